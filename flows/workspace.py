"""Where a run works: the home folder, the configuration, the store. Decided when a flow starts, never at import."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from autosync.block_settings import BlockSetting
from autosync.settings import Home, Settings, Source, read
from blocks.mirror.files import Target
from blocks.private_files import keep_private
from blocks.sources.own_folders import HOME, OwnFolder
from blocks.store.batches import collection_id
from blocks.store.schema import Db, connect, explained

P = TypeVar("P")
DEFAULT_HOME = ".autosync"
DEFAULT_CONFIG = "autosync.toml"


def now() -> float:
    """Unix seconds, UTC. The one place where flows look at the clock."""
    return time.time()


@dataclass(frozen=True)
class Workspace:
    """The home folder and the configuration of a run."""

    home: Home
    config: Path

    @cached_property
    def settings(self) -> Settings:
        """autosync.toml, read once a run."""
        return read(self.config)

    def source(self, name: str) -> Source:
        """A source by name; ConfigError when there is none."""
        return self.settings.named([name])[0]

    def port(self, setting: BlockSetting[P], name: str) -> P:
        """The port that a setting's Prefect block opens, from the server that this home uses; see `open_port`.

        Raises:
            ConfigError: There is no such block, or its kind doesn't fit the setting.
            RemoteUnavailable: The server doesn't answer.
        """
        setting.check(name)  # before a server is started for it
        if "prefect" not in sys.modules:  # a command that needed no server until now
            from flows.temporary_server import reach_server, wait_until_served

            reach_server(self.home, os.environ)
            wait_until_served(os.environ)
        from blocks.catalog import open_port

        return open_port(setting, name)

    @property
    def base(self) -> Path:
        """The folder that relative locations start from: the configuration's."""
        return self.config.parent

    @property
    def own(self) -> list[OwnFolder]:
        """The folders that AutoSync writes to, the home first: what lies in them is no input."""
        push, backup = self.settings.push, self.settings.backup
        folders = [OwnFolder(self.home.path, HOME, self.home.entries)]
        if backup.folder and not backup.block:
            folders.append(OwnFolder(self.base / backup.folder, "AutoSync's backups"))
        url = (push.url or "").removeprefix("file://")
        if url and ":" not in url and not push.block:
            folders.append(OwnFolder(self.base / url, "the repository that AutoSync pushes to"))
        return folders

    @contextmanager
    def database(self, *, read_only: bool = False) -> Iterator[Db]:
        """The open store; SQLite's errors come out as ours."""
        db = connect(self.home.database, read_only=read_only)
        try:
            with explained(self.home.database):
                yield db
        finally:
            db.close()

    def target(self, db: Db, source: Source) -> Target | None:
        """The collection of a source as the mirror sees it; None before its first batch."""
        number = collection_id(db, source.into)
        if number is None:
            return None
        return Target(self.home.mirror / source.into, number, source.into, tuple(source.keys))


def open_workspace(home: str = "", config: str = "", *, private: bool = True) -> Workspace:
    """The workspace of the given folders, else of AUTOSYNC_HOME and AUTOSYNC_CONFIG, else the defaults.

    Args:
        private: From here on, what this process writes is its user's alone to read.
    """
    home_path = Path(home or os.environ.get("AUTOSYNC_HOME") or DEFAULT_HOME)
    config_path = Path(config or os.environ.get("AUTOSYNC_CONFIG") or DEFAULT_CONFIG)
    workspace = Workspace(Home(home_path.expanduser().resolve()), config_path.expanduser().resolve())
    if private:
        keep_private(workspace.home.path)
    return workspace
