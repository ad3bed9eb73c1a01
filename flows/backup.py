"""The backup flow: a consistent copy of the database to a folder or to Google Drive, proven by checksum."""

from __future__ import annotations

import asyncio
import gzip
import shutil
import sqlite3
import tempfile
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow

from autosync.errors import ConfigError, StoreError
from autosync.ports import BackupTarget, Stored
from blocks.folder import FolderTarget
from blocks.store import history
from flows.log import event, open_log
from flows.space import Space, now, open_space
from flows.stages.task import stage

PREFIX, SUFFIX = "autosync-", ".db.gz"


def open_target(space: Space) -> BackupTarget:
    """The backup target that the settings name; a folder in the home when they name none."""
    wanted = space.settings.backup
    if wanted.block:
        target: BackupTarget = space.block(wanted.block).target()
        return target
    return FolderTarget(space.base / wanted.folder if wanted.folder else space.home.backups)


def save_backup(space: Space) -> Stored:
    """Copy the database as it is now, while others go on writing, and delete backups past `keep`.

    Raises:
        ConfigError: Nothing was synced yet.
        RemoteUnavailable, RemoteError: The target; older backups are as before.
    """
    if not space.home.database.exists():
        raise ConfigError("there is nothing to back up yet", where=str(space.home.path), todo="run: autosync run")
    target = open_target(space)
    with tempfile.TemporaryDirectory(prefix="autosync-backup-") as folder:
        copy, packed = Path(folder) / "copy.db", Path(folder) / "copy.db.gz"
        with space.database(read_only=True) as db:
            revision = history.revision(db)
            with closing(sqlite3.connect(copy)) as into:
                db.backup(into)
        with copy.open("rb") as plain, gzip.GzipFile(packed, "wb", compresslevel=6, mtime=0) as archive:
            shutil.copyfileobj(plain, archive, 1 << 20)
        time = datetime.fromtimestamp(now(), UTC)
        stored = target.put(packed, f"{PREFIX}{time:%Y%m%dT%H%M%SZ}-r{revision}{SUFFIX}")
    for old in list_backups(space, target)[space.settings.backup.keep :]:
        target.delete(old.name)
    return stored


def list_backups(space: Space, target: BackupTarget | None = None) -> list[Stored]:
    """The backups that are kept, newest first."""
    found = (target or open_target(space)).list()
    return sorted((item for item in found if item.name.endswith(SUFFIX)), key=lambda item: item.name, reverse=True)


def restore_backup(space: Space, name: str) -> Path:
    """Put a backup in the database's place; a database that is there is kept aside, never overwritten.

    Mirror and repository follow with the next run.

    Raises:
        ConfigError: There is no such backup.
        StoreError: It is damaged.
    """
    target = open_target(space)
    if name not in {item.name for item in list_backups(space, target)}:
        raise ConfigError(f"there is no backup {name!r}", where=target.address, todo="see: autosync backup list")
    space.home.path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=space.home.path) as folder:
        packed, plain = Path(folder) / "copy.db.gz", Path(folder) / "copy.db"
        target.get(name, packed)
        with gzip.open(packed, "rb") as archive, plain.open("wb") as into:
            shutil.copyfileobj(archive, into, 1 << 20)
        with closing(sqlite3.connect(plain)) as db:
            said = db.execute("PRAGMA integrity_check").fetchone()[0]
        if said != "ok":
            raise StoreError(f"the backup is damaged: {said}", where=name, kept="the present database")
        for path in (space.home.database, *(Path(f"{space.home.database}{end}") for end in ("-wal", "-shm"))):
            if path.exists():
                path.rename(path.with_name(f"{path.name}.before-restore-{now():.0f}"))
        plain.replace(space.home.database)
    return space.home.database


save_stage = stage("backup", "Copy the database to the backup target; delete what is past its keep.")(save_backup)


@flow(name="backup", description="Copy the database to a folder or to Google Drive.", flow_run_name="backup")
async def backup(home: str = "", config: str = "") -> dict[str, Any]:
    """Back the database up.

    Returns:
        name, size (bytes), sha256 and target of the backup.
    """
    space = open_space(home, config)
    open_log(space.home.log)
    stored = await save_stage(space)
    target = await asyncio.to_thread(open_target, space)
    event("backup", "-", f"{stored.name}, {stored.size:,} bytes, to {target.address}")
    return {"name": stored.name, "size": stored.size, "sha256": stored.sha256, "target": target.address}
