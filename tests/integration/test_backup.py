"""Backups of several homes in one folder: each home lists, keeps, restores and deletes its own."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from autosync.backups import backup_name
from autosync.errors import ConfigError, Refused
from blocks import home_id
from blocks.backup.folder import FolderTarget
from flows.operations.backups import list_backups, restore_backup, save_backup
from tests.integration.service import Service
from tests.pipeline import Pipeline

UNMARKED = "autosync-20260101T000000Z-r7.db.gz"  # as the releases before named them
OTHER = "f" * 16


def home(folder: Path, records: int, *, keep: int = 2) -> Pipeline:
    """A home whose backups go to the folder `nas` beside it."""
    folder.mkdir()
    pipeline = Pipeline(folder)
    pipeline.configure()
    with (folder / "autosync.toml").open("a") as file:
        file.write(f'[backup]\nfolder = "../nas"\nkeep = {keep}\n')
    pipeline.write([{"id": number} for number in range(records)])
    pipeline.load()
    return pipeline


@pytest.fixture
def a(tmp_path: Path) -> Pipeline:
    return home(tmp_path / "a", 5)


@pytest.fixture
def b(tmp_path: Path) -> Pipeline:
    return home(tmp_path / "b", 7)


@pytest.fixture
def nas(tmp_path: Path) -> Path:
    (tmp_path / "nas").mkdir()
    return tmp_path / "nas"


def names(nas: Path) -> list[str]:
    """The backups that lie in a folder."""
    return sorted(path.name for path in nas.glob("*.db.gz"))


def save(place: Pipeline) -> str:
    return save_backup(place.workspace).stored.name


def listed(place: Pipeline) -> list[str]:
    return [stored.name for stored in list_backups(place.workspace).own]


def lay_unmarked(nas: Path, place: Pipeline, name: str = UNMARKED) -> None:
    """A backup as the releases before made them: no id in its name, no manifest beside it."""
    with closing(sqlite3.connect(place.workspace.home.database)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (nas / name).write_bytes(gzip.compress(place.workspace.home.database.read_bytes()))
    (nas / f"{name}.sha256").write_text(f"{hashlib.sha256((nas / name).read_bytes()).hexdigest()}  {name}\n")


def test_two_homes_in_one_folder_leave_each_other_alone(a: Pipeline, b: Pipeline, nas: Path) -> None:
    """However often one home backs up, the other's backup stays, and each lists its own."""
    one = save(a)
    two, three, four = save(b), save(b), save(b)
    assert names(nas) == sorted([one, three, four])
    assert listed(a) == [one]
    assert listed(b) == [four, three]
    assert not list(nas.glob(f"{two}*"))  # with what lay beside it


def test_files_of_others_are_never_touched(a: Pipeline, nas: Path) -> None:
    """What a user keeps there stays, byte for byte, whatever its name; so do the backups that `keep` asks for."""
    number = backup_name(OTHER, 1, 0.0, 1)
    files = {"x.db.gz": b"mine", "x.db.gz.sha256": b"\xff\xfe", "y.db.gz": b"mine", "autosync-old.db.gz": b"mine"}
    files |= {UNMARKED: b"old", f"{UNMARKED}.sha256": b"sum", number: b"other", f"{number}.manifest": b"\xff{"}
    for name, data in files.items():
        (nas / name).write_bytes(data)
    (nas / "autosync-20260101T000000Z-r9.db.gz").mkdir()
    (nas / "dangling.db.gz").symlink_to(nas / "nowhere")
    made = [save(a) for _ in range(4)]
    assert {name: (nas / name).read_bytes() for name in files} == files
    assert (nas / "autosync-20260101T000000Z-r9.db.gz").is_dir() and (nas / "dangling.db.gz").is_symlink()
    assert listed(a) == [made[3], made[2]]


def test_a_name_alone_is_no_proof(a: Pipeline, nas: Path) -> None:
    """A file that carries this home's id in its name, but not in a manifest, is neither counted nor deleted."""
    save(a)
    forged = backup_name(home_id.read(a.workspace.home.identity), 99, 0.0, 1)
    (nas / forged).write_bytes(b"mine")
    made = [save(a) for _ in range(3)]
    assert listed(a) == [made[2], made[1]]
    assert (nas / forged).read_bytes() == b"mine"
    (nas / f"{forged}.manifest").write_text(json.dumps({"name": forged, "home": OTHER}))
    save(a)
    assert (nas / forged).exists()


def test_the_newest_stays_whatever_keep_and_clock_say(tmp_path: Path, a: Pipeline, nas: Path) -> None:
    """With `keep = 0` the backup just made stays; backups dated in the future are older by their number."""
    kept = home(tmp_path / "none", 1, keep=0)
    assert [save(kept), save(kept)][1:] == listed(kept)
    first = save(a)
    mine = home_id.read(a.workspace.home.identity)
    for number in (2, 3):  # made while the clock was wrong
        name = backup_name(mine, number, 4_000_000_000.0, 1)
        FolderTarget(nas).put(nas / first, name, mine)
    made = [save(a), save(a)]
    assert listed(a) == made[::-1]


def test_a_copied_home_is_another_home(tmp_path: Path, a: Pipeline, nas: Path) -> None:
    """A folder copied with its home deletes none of the first one's backups."""
    made = [save(a), save(a)]
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    copy = Pipeline(tmp_path / "copy")
    for _ in range(3):
        save(copy)
    assert listed(a) == made[::-1]
    assert not set(listed(copy)) & set(made)


def test_a_moved_home_stays_itself(tmp_path: Path, a: Pipeline, nas: Path) -> None:
    """A home that is renamed still knows its backups."""
    made = save(a)
    (tmp_path / "a").rename(tmp_path / "moved")
    assert listed(Pipeline(tmp_path / "moved")) == [made]


def test_another_homes_backup_needs_a_word(a: Pipeline, b: Pipeline, nas: Path) -> None:
    """Without the word nothing is touched and the error says whose it is and how to restore it; with it, it is."""
    save(a)
    other = save(b)
    with pytest.raises(Refused, match="another home") as refused:
        restore_backup(a.workspace, other)
    assert "--foreign" in refused.value.todo and "database" in refused.value.kept
    assert len(a.records()) == 5
    restore_backup(a.workspace, other, foreign=True)
    assert len(a.records()) == 7
    assert listed(a) != [other]  # the home is still itself
    save(a)
    assert other in names(nas)


def test_backups_of_before_are_kept_and_restorable(a: Pipeline, nas: Path) -> None:
    """A backup without an id is never deleted, is counted as left, and comes back with the word."""
    lay_unmarked(nas, a)
    a.write([{"id": number} for number in range(6)])
    a.load()
    results = [save_backup(a.workspace) for _ in range(4)]
    assert [result.left for result in results] == [1, 1, 1, 1]
    assert UNMARKED in names(nas) and UNMARKED not in listed(a)
    with pytest.raises(Refused, match="which home made") as refused:
        restore_backup(a.workspace, UNMARKED)
    assert f"autosync backup restore {UNMARKED} --foreign" in refused.value.todo
    restore_backup(a.workspace, UNMARKED, foreign=True)
    assert len(a.records()) == 5


def test_the_commands_say_what_is_left_and_whose_it_is(a: Pipeline, b: Pipeline, nas: Path) -> None:
    """`backup` tells of backups without an id; `backup list` shows one's own, with --all every one and its home."""
    lay_unmarked(nas, a)
    other = save(b)
    service = Service(a.folder)
    text = service.run("backup").stdout
    assert "1 backup has no mark" in text and "by hand in" in text and "/nas" in text and "list --all" in text
    mine = service.json("backup")["name"]
    found = service.json("backup", "list")
    assert len(found["backups"]) == 2 and found["backups"][0]["name"] == mine
    assert found["others"] == 2
    text = service.run("backup", "list").stdout
    assert other not in text and UNMARKED not in text and "2 more there" in text
    everything = service.json("backup", "list", "--all")["backups"]
    assert {row["name"]: row["own"] for row in everything}.items() >= {
        mine: True,
        other: False,
        UNMARKED: False,
    }.items()
    text = service.run("backup", "list", "--all").stdout
    assert other in text and UNMARKED in text and "this home" in text and "unknown" in text
    refused = service.run("backup", "restore", other, status=3).stderr
    assert "another home" in refused and "--foreign" in refused
    service.run("backup", "restore", other, "--foreign")
    assert len(a.records()) == 7


def test_looking_makes_nothing(a: Pipeline) -> None:
    """Listing and being refused leave a home without an id; a backup makes it, for its user alone."""
    assert listed(a) == []
    with pytest.raises(ConfigError, match="no backup"):
        restore_backup(a.workspace, UNMARKED, foreign=True)
    assert not a.workspace.home.identity.exists()
    save(a)
    assert a.workspace.home.identity.stat().st_mode & 0o777 == 0o600
