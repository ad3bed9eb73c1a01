"""Backups: the database copied to a folder or to Google Drive, proven by checksum, listed and brought back.

Imports no Prefect, so that a command can still choose the server that keeps its block.
"""

from __future__ import annotations

import gzip
import shutil
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from autosync.backups import Backups, backup_name, divide, expired, maker, next_number
from autosync.block_settings import BACKUP
from autosync.errors import ConfigError, Refused, StoreError
from autosync.ports import BackupTarget, Stored
from autosync.suggestions import did_you_mean, or_else
from blocks import home_id
from blocks.backup.folder import FolderTarget
from blocks.files import put_in_place
from blocks.store import history
from blocks.store.schema import damage
from flows.workspace import Workspace, now


@dataclass(frozen=True)
class Saved:
    """A backup that was made.

    Attributes:
        left: How many backups lie there that nothing proves any home to have made, and that therefore stay.
    """

    stored: Stored
    left: int


def open_target(workspace: Workspace) -> BackupTarget:
    """The backup target that the settings name; a folder in the home when they name none.

    Raises:
        ConfigError: The block doesn't exist or is no backup target.
        RemoteUnavailable: The server that keeps the block doesn't answer.
    """
    wanted = workspace.settings.backup
    if wanted.block:
        return workspace.port(BACKUP, wanted.block)
    return FolderTarget(workspace.base / wanted.folder if wanted.folder else workspace.home.backups)


def save_backup(workspace: Workspace) -> Saved:
    """Copy the database as it is now, while others go on writing, and delete this home's backups past `keep`.

    Raises:
        ConfigError: Nothing was synced yet.
        RemoteUnavailable, RemoteError: The target; older backups are as before.
    """
    if not workspace.home.database.exists():
        raise ConfigError("there is nothing to back up yet", where=str(workspace.home.path), todo="run: autosync run")
    target, home = open_target(workspace), home_id.claim(workspace.home.identity)
    before = divide(target.list(), home)
    with tempfile.TemporaryDirectory(prefix="autosync-backup-") as folder:
        packed, revision = _pack(workspace, Path(folder))
        stored = target.put(packed, backup_name(home, next_number(before.own), now(), revision), home)
    keep = workspace.settings.backup.keep
    for old in expired((stored, *before.own), keep, lambda backup: target.verify(backup.name, home)):
        target.delete(old.name, home)
    return Saved(stored, len(before.unmarked))


def _pack(workspace: Workspace, folder: Path) -> tuple[Path, int]:
    """A compressed copy of the database in a folder, and its revision."""
    copy, packed = folder / "copy.db", folder / "copy.db.gz"
    with workspace.database(read_only=True) as db:
        revision = history.revision(db)
        with closing(sqlite3.connect(copy)) as into:
            db.backup(into)
    with copy.open("rb") as plain, gzip.GzipFile(packed, "wb", compresslevel=6, mtime=0) as archive:
        shutil.copyfileobj(plain, archive, 1 << 20)
    return packed, revision


def left_alone(count: int, address: str) -> str:
    """What people are told about backups that nothing proves any home to have made."""
    what = "1 backup has" if count == 1 else f"{count:,} backups have"
    return (
        f"{what} no mark of the home that made it, as older releases left them: never deleted, not counted in keep. "
        f"See autosync backup list --all; what nobody needs, delete by hand in {address}, with its .sha256 file."
    )


def list_backups(workspace: Workspace) -> Backups:
    """What lies at the backup target: this home's own backups, and the others."""
    return divide(open_target(workspace).list(), home_id.read(workspace.home.identity))


def restore_backup(workspace: Workspace, name: str, *, foreign: bool = False) -> Path:
    """Put a backup in the database's place; a database that is there is kept aside, never overwritten.

    Mirror and repository follow with the next run.

    Args:
        foreign: Also one that this home isn't proven to have made.

    Raises:
        ConfigError: There is no such backup.
        Refused: Nothing proves that this home made it, and `foreign` wasn't said.
        StoreError: It is damaged.
    """
    target, home = open_target(workspace), home_id.read(workspace.home.identity)
    chosen = _choose(name, divide(target.list(), home), home, target.address, foreign)
    workspace.home.path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=workspace.home.path) as folder:
        packed, plain = Path(folder) / "copy.db.gz", Path(folder) / "copy.db"
        target.get(name, packed, chosen)
        with gzip.open(packed, "rb") as archive, plain.open("wb") as into:
            shutil.copyfileobj(archive, into, 1 << 20)
        with closing(sqlite3.connect(plain)) as db:
            wrong = damage(db)
        if wrong:
            raise StoreError(f"the backup is damaged: {wrong[0]}", where=name, kept="the present database")
        for path in (workspace.home.database, *(Path(f"{workspace.home.database}{end}") for end in ("-wal", "-shm"))):
            if path.exists():
                path.rename(path.with_name(f"{path.name}.before-restore-{now():.0f}"))
        put_in_place(plain, workspace.home.database)
    return workspace.home.database


def _choose(name: str, backups: Backups, home: str, address: str, foreign: bool) -> str:
    """The home whose backup of that name is meant; "" for whoever's."""
    if any(backup.name == name for backup in backups.own):
        return home
    other = next((backup for backup in backups.others if backup.name == name), None)
    if other is None:
        question = did_you_mean(name, (backup.name for backup in (*backups.own, *backups.others)))
        todo = or_else(question, "see: autosync backup list --all")
        raise ConfigError(f"there is no backup {name!r}", where=address, todo=todo)
    if not foreign:
        whose = maker(other)
        raise Refused(
            f"{name} was made by another home, {whose}" if whose else f"nothing proves which home made {name}",
            where=address,
            kept="the present database",
            todo=f"if it is the one you want, run: autosync backup restore {name} --foreign",
        )
    return ""
