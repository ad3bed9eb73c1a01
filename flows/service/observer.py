"""The observer: watches the files of local sources and syncs one within seconds of a save.

It is a long-lived process with everything imported, so that a save costs a flow run, not a start of Python.
"""

from __future__ import annotations

import asyncio
import fnmatch
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

from autosync.settings import Source
from blocks.sources.own_folders import OwnFolders
from blocks.sources.registry import kind_of
from flows.log import event, open_log
from flows.waiting import start
from flows.workspace import Workspace, open_workspace

SETTLE_MS = 400
IGNORED = (".tmp", ".swp", "~", ".part", ".crdownload")


def watched_folder(workspace: Workspace, source: Source) -> Path | None:
    """The folder whose files make up a source; None for what is no path, isn't there or lies in the home."""
    if not kind_of(source.location, workspace.base).local:
        return None
    path = Path(os.path.normpath(workspace.base / Path(source.location).expanduser()))
    while not path.is_dir() or any(sign in path.name for sign in "*?["):
        if path.parent == path:
            return None
        path = path.parent
    return None if OwnFolders(workspace.own, path).home_above else path


def touched_sources(workspace: Workspace, changed: set[str]) -> list[str]:
    """The sources that changed paths belong to, in the configuration's order."""
    names = []
    for source in workspace.settings.source:
        folder = watched_folder(workspace, source)
        if folder is None:
            continue
        own = OwnFolders(workspace.own, folder)
        if any(belongs(workspace, source, folder, Path(path)) and not own.around(path) for path in changed):
            names.append(source.name)
    return names


def belongs(workspace: Workspace, source: Source, folder: Path, path: Path) -> bool:
    """Whether a changed path is the source's file, or one of its folder's or glob's."""
    if path.name.endswith(IGNORED) or path.name.startswith("."):
        return False
    exact = Path(os.path.normpath(workspace.base / Path(source.location).expanduser()))
    if exact == path:
        return True
    if exact == folder:
        return path.is_relative_to(folder)
    return fnmatch.fnmatch(str(path), str(exact))


async def watch(workspace: Workspace, stop: asyncio.Event) -> None:
    """Sync the sources whose files change, until asked to stop."""
    from flows.service.running import sync_source, warm

    await warm()
    syncs = Syncs(lambda name: sync_source(workspace, name))
    async for name in saved(workspace, stop):
        await syncs.sync(name)
    await syncs.stop()


async def saved(workspace: Workspace, stop: asyncio.Event) -> AsyncIterator[str]:
    """The sources whose files were saved, until asked to stop; what AutoSync itself writes is not among them."""
    from watchfiles import DefaultFilter, awatch

    folders = {
        folder for source in workspace.settings.source if (folder := watched_folder(workspace, source)) is not None
    }
    if not folders:
        await stop.wait()
        return
    beside = DefaultFilter(ignore_paths=[f"{workspace.home.path}{os.sep}"])
    event("observer", "-", f"watching {', '.join(sorted(map(str, folders)))}")
    async for changes in awatch(*folders, watch_filter=beside, step=SETTLE_MS, stop_event=stop, recursive=True):
        for name in touched_sources(workspace, {path for _, path in changes}):
            event("observer", name, "a file was saved")
            yield name


class Syncs:
    """Syncs one source after the other; one that waits because a service asks to holds up no other source.

    Args:
        call: Syncs a source by name.
    """

    def __init__(self, call: Callable[[str], Coroutine[Any, Any, Any]]) -> None:
        self._call = call
        self._waiting: dict[str, asyncio.Task[None]] = {}
        self._again = set[str]()

    async def sync(self, name: str) -> None:
        """Sync a source now, or after the run of it that waits."""
        self._collect()
        if name in self._waiting:
            self._again.add(name)
            return
        self._waiting[name] = await start(self._sync(name))
        self._collect()

    async def stop(self) -> None:
        """End the runs that still wait; the next runs do the rest."""
        for task in self._waiting.values():
            task.cancel()
        await asyncio.gather(*self._waiting.values(), return_exceptions=True)

    def _collect(self) -> None:
        for name in [name for name, task in self._waiting.items() if task.done()]:
            self._waiting.pop(name).result()

    async def _sync(self, name: str) -> None:
        await self._call(name)
        while name in self._again:
            self._again.discard(name)
            await self._call(name)


def main() -> None:
    """Watch until SIGTERM or SIGINT; a child of `autosync up`."""
    from flows.prefect_server import prepare

    workspace = open_workspace()
    open_log(workspace.home.log)
    prepare(workspace.home, os.environ)

    async def serve() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await watch(workspace, stop)

    asyncio.run(serve())


if __name__ == "__main__":
    main()
