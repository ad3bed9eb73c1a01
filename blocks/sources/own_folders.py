"""The folders that AutoSync writes to, known by what they are: links, mounts and spellings lead to the same inode."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

HOME = "AutoSync's own files"
MOST_LINKS = 40

Identity = tuple[int, int]


class OwnFolder(NamedTuple):
    """A folder that AutoSync writes to, and what, for people.

    `entries` are the files and folders in it that are AutoSync's, where people may keep others beside them.
    """

    path: Path
    what: str
    entries: tuple[Path, ...] = ()


class OwnFolders:
    """What a look passes over: the home, and of the other folders those that it doesn't begin in.

    Args:
        folders: The folders that AutoSync writes to, some of which may not exist yet.
        top: Where the look begins.
    """

    def __init__(self, folders: Sequence[OwnFolder] = (), top: str | Path = os.sep) -> None:
        above = [identity for path in _upwards(top) if (identity := _identity(path))]
        self._what: dict[Identity, str] = {}
        self._around: dict[str, str | None] = {}
        self.home_above = False
        for folder in _of_people(folders, above):
            for path in _with_links(folder.path) if folder.what == HOME else [folder.path]:
                if (identity := _identity(path)) in above:
                    self.home_above |= folder.what == HOME
                elif identity:
                    self._what[identity] = folder.what

    def of(self, info: os.stat_result) -> str | None:
        """What AutoSync keeps in a folder; None when it is not one of its own."""
        return self._what.get((info.st_dev, info.st_ino))

    def around(self, path: str) -> str | None:
        """The same of the folders that a path lies in, and of those that it leads to."""
        for _ in range(MOST_LINKS if self._what else 0):
            folder = os.path.dirname(path)  # noqa: PTH120  # no Path for each of thousands of links
            if folder not in self._around:
                self._around[folder] = next(filter(None, map(self._at, _upwards(folder))), None)
            if what := self._around[folder]:
                return what
            try:
                path = os.path.join(folder, os.readlink(path))  # noqa: PTH115, PTH118  # as above
            except OSError:  # it is no link
                return self._at(path)
        return None

    def _at(self, path: str) -> str | None:
        identity = _identity(path)
        return self._what.get(identity) if identity else None


def _of_people(folders: Sequence[OwnFolder], above: Sequence[Identity]) -> Iterator[OwnFolder]:
    """The folders; instead of one that a look begins below of, just what is AutoSync's in it."""
    for folder in folders:
        if folder.entries and _identity(folder.path) in above[1:]:
            yield from (OwnFolder(path, folder.what) for path in folder.entries)
        else:
            yield folder


def _upwards(path: str | Path) -> Iterator[str]:
    """A path and the folders above it, without links."""
    real = os.path.realpath(path)
    yield real
    while (parent := os.path.dirname(real)) != real:  # noqa: PTH120  # as above
        yield parent
        real = parent


def _with_links(home: Path) -> Iterator[Path]:
    """The home, and its folders that lie elsewhere."""
    yield home
    if home.is_dir():
        yield from (path for path in home.iterdir() if path.is_symlink() and path.is_dir())


def _identity(path: str | Path) -> Identity | None:
    try:
        info = os.stat(path)  # noqa: PTH116  # as above
    except OSError:  # it isn't there, so that nothing can be read in it
        return None
    return info.st_dev, info.st_ino
