"""The dashboard's queries: what they find, and that they stop at their limit instead of reading everything."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from autosync.errors import StoreError
from blocks.store.history import Row
from blocks.store.reader import Reader
from flows.workspace import Workspace
from tests import busy


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return busy.build(tmp_path_factory.mktemp("busy"))


@pytest.fixture
def reader(workspace: Workspace) -> Reader:
    return Reader(workspace.home.database)


def test_nothing_is_made_by_reading(tmp_path: Path) -> None:
    """A database that isn't there is empty, and reading makes no file."""
    reader = Reader(tmp_path / "home" / "autosync.db")
    assert reader.revision() == "" and reader.runs() == reader.changes() == reader.stages("x") == []
    assert reader.waiting() == 0 and reader.behind() == {} and reader.notice("x") is None
    assert not (tmp_path / "home").exists()


def test_connections_cannot_write(reader: Reader) -> None:
    """Even a statement that would write is refused by SQLite itself."""
    with pytest.raises(StoreError, match="readonly"):
        reader.rows("DELETE FROM run")


def test_each_thread_has_its_own_connection(reader: Reader) -> None:
    """Many threads read at once without sharing a connection."""
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(len(reader.changes(limit=500)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1 and len(found) == 8


def test_change_pages_sort_nothing(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest changes are found by walking batches and the log backwards: no sorting, no whole scan of the log."""
    asked: list[tuple[str, list[object]]] = []
    real = reader.rows

    def noted(sql: str, values: Any = ()) -> list[Row]:
        asked.append((sql, list(values)))
        return real(sql, values)

    monkeypatch.setattr(reader, "rows", noted)
    reader.changes(source="orders", op="update", limit=5)
    reader.history("contacts", "1", limit=5)
    monkeypatch.undo()
    for sql, values in asked:
        plan = [row["detail"] for row in reader.rows(f"EXPLAIN QUERY PLAN {sql}", values)]
        picked = [line for line in plan if "batch" in line or "change" in line or "record" in line]
        assert not [line for line in picked if line.startswith("SCAN change")], plan
        assert sum("TEMP B-TREE" in line for line in plan) == 0, plan


def test_changes_say_before_and_after(reader: Reader) -> None:
    """A change's after is the next change's before; the filters leave the rows as they are."""
    rows = reader.history("orders", "A-0003", limit=100)
    assert len(rows) > 2
    assert all(newer["before"] == older["after"] for newer, older in pairwise(rows))
    everything = {row["seq"]: row for row in reader.changes(limit=500)}
    assert all(everything[row["seq"]] == row for row in reader.changes(source="orders", op="delete", limit=500))


def test_a_replaced_database_is_opened_again(tmp_path: Path) -> None:
    """A backup put in the database's place is what the next call reads."""
    paths = [busy.build(tmp_path / name).home.database for name in ("a", "b")]
    reader = Reader(paths[0])
    before = reader.revision()
    with closing(sqlite3.connect(paths[1], isolation_level=None)) as db:
        db.execute("DELETE FROM run")
    assert len(reader.runs()) == 50
    for name in ("-wal", "-shm"):
        Path(f"{paths[0]}{name}").unlink(missing_ok=True)
    paths[1].rename(paths[0])
    assert reader.runs() == [] and reader.revision() != before
