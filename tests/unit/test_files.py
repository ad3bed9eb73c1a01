"""Writing a file whole or not at all."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from autosync.errors import StoreError
from blocks import home_id
from blocks.backup.folder import FolderTarget
from blocks.files import explained, put_in_place, replacing, write_whole
from blocks.mirror import files as mirror_files
from blocks.quality import validator_state
from flows.operations.backups import restore_backup, save_backup
from flows.operations.restore import write_collection
from flows.release_pipeline import setup as release_setup
from tests.pipeline import Pipeline

ROOT = Path(__file__).resolve().parents[2]
DURABLE = ["fsync", "replace", "fsync"]


@contextmanager
def calls(*names: str) -> Iterator[list[str]]:
    """The named calls of the system, in order, while the block runs."""
    seen: list[str] = []

    def note(_frame: Any, event: str, called: Any) -> None:
        if event == "c_call" and called.__module__ == "posix" and called.__name__ in names:
            seen.append(called.__name__)

    sys.setprofile(note)
    try:
        yield seen
    finally:
        sys.setprofile(None)


def in_order(seen: list[str]) -> bool:
    """Whether the file was synced, then renamed, then its folder synced."""
    steps = iter(seen)
    return all(step in steps for step in DURABLE)


def test_a_file_is_synced_before_it_counts_and_its_folder_after(tmp_path: Path) -> None:
    """fsync, rename, fsync of the folder; without the last where the writer of another file does it."""
    with calls("fsync", "replace") as seen:
        write_whole(tmp_path / "deep" / "a", [b"x", b"y"])
    assert seen == DURABLE and (tmp_path / "deep" / "a").read_bytes() == b"xy"
    with calls("fsync", "replace") as seen:
        write_whole(tmp_path / "a", b"x", sync_entry=False)
    assert seen == DURABLE[:2]
    with calls("fsync", "replace") as seen:
        put_in_place(tmp_path / "a", tmp_path / "b")
    assert seen == DURABLE and {path.name for path in tmp_path.iterdir()} == {"deep", "b"}


def test_what_stood_there_stays_until_the_new_file_is_whole(tmp_path: Path) -> None:
    """A writer that fails leaves the old file, and nothing beside it."""
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_rights_are_those_of_the_umask_or_narrower(tmp_path: Path) -> None:
    """A file has the rights that any program's has, unless fewer are asked for; never those of what stood there."""
    old = os.umask(0o027)
    try:
        write_whole(tmp_path / "a", b"")
        write_whole(tmp_path / "b", b"", mode=0o600)
    finally:
        os.umask(old)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in "ab"] == [0o640, 0o600]


def test_an_error_of_the_system_is_told_in_our_words(tmp_path: Path) -> None:
    """Where a folder can't be made, StoreError says what, where and what stays."""
    (tmp_path / "file").write_text("a file")
    path = tmp_path / "file" / "a"
    told = pytest.raises(StoreError, match=r"it can't be written: .*Kept safe: all\.")
    with told as caught, explained("it can't be written", path, kept="all"):
        write_whole(path, b"")
    assert caught.value.where == str(path) and (tmp_path / "file").read_text() == "a file"


def test_whatever_is_written_whole_is_written_so(tmp_path: Path) -> None:
    """The home's id, a mirror's manifest, the validator's state, the release's results, a restored collection, a
    backup and the database that it brings back: all are durable before they count.
    """
    place = Pipeline(tmp_path)
    place.configure()
    place.write([{"id": "a"}])
    place.run()
    source = tmp_path / "source"
    source.write_bytes(b"x")
    writers: dict[str, Callable[[], object]] = {
        "id": lambda: home_id.claim(tmp_path / "id"),
        "mirror": lambda: mirror_files.write_file(tmp_path / "pending", b""),
        "state": lambda: validator_state.write(tmp_path / "state", validator_state.State(1, 1, "", True)),
        "release": lambda: release_setup.write(tmp_path / "metrics.json", b"{}"),
        "restore --to": lambda: write_collection(place.workspace, "things", "", str(tmp_path / "old.jsonl")),
        "folder": lambda: FolderTarget(tmp_path / "disk").put(source, "b", "0" * 16),
        "backup": lambda: save_backup(place.workspace),
        "backup restore": lambda: restore_backup(
            place.workspace, next((place.workspace.home.backups).glob("*.gz")).name
        ),
    }
    for name, write in writers.items():
        with calls("fsync", "replace") as seen:
            write()
        assert in_order(seen), name


def test_nothing_else_writes_files_whole() -> None:
    """Only blocks/files.py syncs files; a secret that is made once is linked, not replaced."""
    syncing = {
        str(path.relative_to(ROOT))
        for folder in ("autosync", "blocks", "flows", "reports", "analytics")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "fsync"
    }
    assert syncing == {"blocks/files.py", "flows/prefect_server.py"}
