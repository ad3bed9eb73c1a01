"""The store: one transaction a batch, a change log that tells all, and the skip of rows that were seen."""

from __future__ import annotations

import os
import sqlite3
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosync import row_hashes as rules
from autosync.errors import StaleLock, StoreBusy, StoreError
from blocks.store import batches, history, ledger
from blocks.store import staged_batch as staging
from blocks.store.schema import INDEX_NAMES, column_name, connect
from flows.operations.ingest import ingest
from flows.operations.overrides import Replay
from flows.operations.plan import describe
from flows.operations.store import store
from flows.workspace import now
from tests.pipeline import Pipeline


@pytest.fixture
def place(tmp_path: Path) -> Pipeline:
    """A home without records; everything may be deleted."""
    pipeline = Pipeline(tmp_path)
    pipeline.configure(guard={"max_delete": 1.0})
    return pipeline


def query(place: Pipeline, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """The answer of a query."""
    with place.workspace.database(read_only=True) as db:
        return db.execute(sql, values).fetchall()


def token(place: Pipeline, run: str) -> int:
    """A fencing token for the source."""
    with place.workspace.database() as db:
        return ledger.grant(db, "source things", run, now=now())


def test_the_log_tells_every_change_with_before_and_after(place: Pipeline) -> None:
    """Insert, update, delete, insert again: one row each, each continuing where the one before ended."""
    for text in ('[{"id":"a"},{"id":"b"}]', '[{"id":"a","n":1},{"id":"b"}]', '[{"id":"b"}]', '[{"id":"a"},{"id":"b"}]'):
        place.write(text)
        place.load()
    assert query(place, "SELECT seq, op, before, after FROM change_log WHERE id = 'a' ORDER BY seq") == [
        (1, "insert", None, '{"id":"a"}'),
        (3, "update", '{"id":"a"}', '{"id":"a","n":1}'),
        (4, "delete", '{"id":"a","n":1}', None),
        (5, "insert", None, '{"id":"a"}'),
    ]


def test_a_batch_of_a_run_that_lost_its_lock_is_refused(place: Pipeline) -> None:
    """A newer token was given out: the older run writes nothing, and nothing of what it saw is remembered."""
    place.write('[{"id":"a"}]')
    found = ingest(place.workspace, "things", "old")
    old, new = token(place, "old"), token(place, "new")
    with pytest.raises(StaleLock, match="run new has taken over"):
        store(place.workspace, "things", found.batch, "old", old)
    for table in ("record", "change", "batch", "seen", "source_state"):
        assert query(place, f"SELECT count(*) FROM {table}") == [(0,)]
    store(place.workspace, "things", found.batch, "new", new)
    assert set(place.records()) == {"a"}


def test_a_batch_that_was_compared_with_an_older_state_is_refused(place: Pipeline) -> None:
    """Two runs saw the same state: the second one must look again, and says so."""
    place.write('[{"id":"a"}]')
    one, two = ingest(place.workspace, "things", "1"), ingest(place.workspace, "things", "2")
    store(place.workspace, "things", one.batch, "1", token(place, "1"))
    with pytest.raises(StoreBusy, match="in between") as caught:
        store(place.workspace, "things", two.batch, "2", token(place, "2"))
    assert caught.value.retryable
    assert query(place, "SELECT count(*) FROM change") == [(1,)]


def test_a_failed_transaction_leaves_rows_and_their_state(place: Pipeline) -> None:
    """The batch's file is cut off: neither its records nor what was seen are kept, so that all are read again."""
    place.write('[{"id":"a"}]')
    place.load()
    place.write('[{"id":"b"},{"id":"c"}]')
    found = ingest(place.workspace, "things", "x")
    (place.workspace.home.staging / found.batch / staging.DOCS).write_text('{"id":"b"}\n')
    before = query(place, "SELECT * FROM source_state"), query(place, "SELECT * FROM seen"), place.records()
    with pytest.raises(ValueError):
        store(place.workspace, "things", found.batch, "x", token(place, "x"))
    assert (query(place, "SELECT * FROM source_state"), query(place, "SELECT * FROM seen"), place.records()) == before
    place.load()
    assert set(place.records()) == {"b", "c"}


# What the skip of unchanged raw rows stands on (docs/decisions/0002-skip-unchanged-rows.md)


@pytest.mark.parametrize("table", ["seen", "source_state", "change", "batch"])
def test_rows_and_what_was_seen_are_written_together_or_not_at_all(place: Pipeline, table: str) -> None:
    """Whichever table can't be written: all of them are as before, and the next run brings everything."""
    place.write('[{"id":"a"},{"id":"b"}]')
    place.load()
    tables = ("record", "change", "batch", "collection", "seen", "source_state")
    before = [query(place, f"SELECT * FROM {name}") for name in tables]
    with place.workspace.database() as db:
        db.execute(f"CREATE TRIGGER full BEFORE INSERT ON {table} BEGIN SELECT raise(ABORT, 'no room'); END")
    place.write('[{"id":"b","n":1},{"id":"c"}]')
    with pytest.raises(StoreError, match="no room"):
        place.load()
    assert [query(place, f"SELECT * FROM {name}") for name in tables] == before
    with place.workspace.database() as db:
        db.execute("DROP TRIGGER full")
    counts = place.load().counts
    assert (counts.inserted, counts.updated, counts.deleted) == (1, 1, 1)
    assert place.records() == {"b": '{"id":"b","n":1}', "c": '{"id":"c"}'}


def test_of_two_equal_rows_one_may_go(place: Pipeline) -> None:
    """A row that stood there twice and now once, or in another spelling, deletes nothing."""
    for text in ('[{"id":"a"},{"id":"a"},{ "id":"a"}]', '[{"id":"a"}]', '[{ "id":"a"}]', '[{ "id":"a"},{"id":"a"}]'):
        place.write(text)
        place.load()
        assert set(place.records()) == {"a"}
    assert query(place, "SELECT count(*) FROM change") == [(1,)]


def test_refused_rows_are_looked_at_again(place: Pipeline) -> None:
    """A refused row never counts as seen: beside another change it is refused again, under looser rules it is taken."""
    place.configure(expect={"ranges": {"/n": [0, 9]}}, guard={"max_delete": 1.0})
    place.write('[{"id":"a","n":1},{"id":"b","n":99}]')
    place.load()
    place.write('[{"id":"a","n":2},{"id":"b","n":99}]')
    again = place.load().counts
    assert (again.quarantined, again.unchanged) == (1, 0)
    place.configure(expect={"ranges": {"/n": [0, 100]}}, guard={"max_delete": 1.0})
    assert place.load().counts.inserted == 1


@pytest.mark.parametrize(
    "rows",
    [
        '{"id":"a","n":2},{"id":"a","n":3}',
        '{"id":"x","e":1},{"id":"y","e":1}',
        '{"id":"a","n":2},{"id":"a","n":"much"}',
    ],
)
def test_rows_refused_for_another_row_are_looked_at_again(place: Pipeline, rows: str) -> None:
    """Rows that contradict each other never count as seen: each time they come they are refused, and once the other
    one is gone, the first is taken.
    """
    place.configure(expect={"unique": ["/e"], "types": {"/n": "integer"}}, guard={"max_delete": 1, "max_refuse": 1})
    place.write('[{"id":"a","n":1}]')
    place.load()
    for n in range(2):
        place.write(f'[{{"id":"other","n":{n}}},{rows}]')
        counts = place.load().counts
        assert (counts.quarantined, counts.unchanged) == (2, 0)
    first = rows[: rows.index("},") + 1]
    place.write(f'[{{"id":"other","n":1}},{first}]')
    assert place.load().counts.quarantined == 0
    assert first in place.records().values() or place.records()["x"] == '{"e":1,"id":"x"}'


def test_stricter_rules_look_at_rows_that_were_seen(place: Pipeline) -> None:
    """The file is the same to the byte, the checks are not: the rows that fail now are refused, their records stay."""
    place.write('[{"id":"a","n":1},{"id":"b","n":99}]')
    place.load()
    place.configure(expect={"ranges": {"/n": [0, 9]}}, guard={"max_delete": 1.0})
    counts = place.load().counts
    assert (counts.quarantined, counts.changed) == (1, 0)
    assert set(place.records()) == {"a", "b"}
    assert place.load().batch == "", "with the same rules again, nothing is read"
    place.write('[{"id":"a","n":2},{"id":"b","n":99}]')
    counts = place.load().counts
    assert (counts.quarantined, counts.unchanged) == (1, 0), "what was seen under the old rules is forgotten"


def test_another_key_makes_other_records(place: Pipeline) -> None:
    """The key is part of what makes a row a record: with another one the same bytes are read anew."""
    place.write('[{"id":"a","n":1},{"id":"b","n":2}]')
    place.load()
    place.configure(key="/n", guard={"max_delete": 1.0})
    counts = place.load().counts
    assert (counts.inserted, counts.deleted) == (2, 2)
    assert set(place.records()) == {"1", "2"}


@pytest.mark.parametrize("version", ["CANONICAL_VERSION", "SEEN_VERSION"])
def test_another_version_of_ours_reads_every_row_again(
    place: Pipeline, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new canonical form must reach records whose source didn't change: none of their rows counts as seen."""
    place.write('[{"id":"a"}]')
    place.load()
    assert place.load().batch == ""
    monkeypatch.setattr(rules, version, getattr(rules, version) + 1)
    with place.workspace.database() as db:
        db.execute("UPDATE record SET doc = '{\"old form\":1}'")  # as an older version would have left it
    assert place.load().counts.updated == 1
    assert place.records() == {"a": '{"id":"a"}'}


def test_every_home_has_its_own_secret_seed(tmp_path: Path) -> None:
    """Nobody outside can know under which key rows are hashed; a source keeps its own."""
    seeds = set()
    for name in "xyz":
        place = Pipeline(tmp_path / name)
        place.folder.mkdir()
        place.configure()
        for n in range(2):
            place.write([{"id": "a", "n": n}])
            place.load()
        seeds |= set(query(place, "SELECT seed FROM source_state"))
    assert len(seeds) == 3


def test_a_replayed_row_lets_the_source_have_its_say(place: Pipeline) -> None:
    """What a person corrected by hand holds until the source says something acceptable of that record."""
    place.configure(expect={"ranges": {"/n": [0, 9]}}, guard={"max_delete": 1.0})
    place.write('[{"id":"a","n":99},{"id":"b","n":1}]')
    place.load()
    with place.workspace.database() as db:
        number = ledger.open_items(db)[0]["item"]
    assert place.load(override=Replay(items=[number], text='{"id":"a","n":5}')).counts.inserted == 1
    with place.workspace.database() as db:
        assert ledger.item(db, number)["state"] == "replayed"  # type: ignore[index]
    assert place.load().counts.changed == 0
    assert place.records()["a"] == '{"id":"a","n":5}', "the source's row is refused again, its record stays"
    place.write('[{"id":"a","n":7},{"id":"b","n":1}]')
    assert place.load().counts.updated == 1


@pytest.mark.parametrize("location", ["things.json", "things", "*.json"])
def test_a_replayed_row_does_not_outlive_an_accepted_one(place: Pipeline, location: str) -> None:
    """An old refused row is replayed over what the source says now: the next run reads the source's row again, in
    files whose stats say for certain that they are as they were.
    """
    place.configure(location=location, expect={"ranges": {"/n": [0, 9]}}, guard={"max_delete": 1.0})
    name = "things/things.json" if location == "things" else "things.json"
    (place.folder / "things").mkdir()
    place.write('[{"id":"a","n":99},{"id":"b","n":1}]', name)
    place.load()
    with place.workspace.database() as db:
        number = ledger.open_items(db)[0]["item"]
    os.utime(place.write('[{"id":"a","n":1},{"id":"b","n":1}]', name), (1, 1))
    place.load()
    assert place.load().batch == ""
    assert place.load(override=Replay(items=[number], text='{"id":"a","n":5}')).counts.updated == 1
    assert place.load().counts.updated == 1
    assert place.records()["a"] == '{"id":"a","n":1}'


def test_an_upsert_deletes_nothing_and_forgets_nothing(place: Pipeline) -> None:
    """Rows of earlier inputs stay records, and are still known when they come again."""
    place.configure(mode="upsert")
    place.write('[{"id":"a"}]')
    place.load()
    place.write('[{"id":"b"}]')
    place.load()
    place.write('[{"id":"a"},{"id":"b","n":1}]')
    counts = place.load().counts
    assert (counts.updated, counts.unchanged, counts.deleted) == (1, 1, 0)
    place.write('[{"id":"a"},{"id":"b"}]')
    assert place.load().counts.updated == 1, "b's first row is no longer what b is"


def test_a_plan_writes_nothing_and_says_what_a_run_does(place: Pipeline) -> None:
    """The same counts, from a store that isn't touched; a refusal is part of the plan."""
    place.configure()
    place.write([{"id": f"{n}"} for n in range(10)])
    place.run()
    files = {path: path.read_bytes() for path in place.workspace.home.path.rglob("*") if path.is_file()}
    place.write([{"id": f"{n}", "n": 1} for n in range(9)] + [{"id": "new"}, {"n": 1}])
    plan = describe(place.workspace, "things")
    assert (plan["outcome"], plan["inserted"], plan["updated"], plan["deleted"]) == ("changed", 1, 9, 0)
    place.write([{"id": "0"}])
    assert describe(place.workspace, "things")["outcome"] == "refused"
    assert "--accept" in describe(place.workspace, "things")["error"]
    after = {path: path.read_bytes() for path in place.workspace.home.path.rglob("*") if path.is_file()}
    assert {path for path in files | after if not path.name.endswith("-shm")} == {
        path for path in files if not path.name.endswith("-shm")
    } | {path for path in after if path.name.endswith("-wal")}
    assert all(after[path] == data for path, data in files.items() if not path.name.endswith("-shm"))


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@given(
    st.dictionaries(NAMES, st.one_of(st.integers(-5, 5), st.dictionaries(NAMES, st.integers(), max_size=2)), max_size=5)
)
def test_any_names_of_fields_make_a_view(tmp_path_factory: pytest.TempPathFactory, fields: dict[str, Any]) -> None:
    """Quotes, dots, NUL, names that differ in case only: the record is stored and its view can be queried."""
    place = Pipeline(tmp_path_factory.mktemp("names"))
    place.configure()
    fields = fields | {"id": "a"}
    place.write([fields])
    place.run()
    with place.workspace.database(read_only=True) as db:
        (row,) = history.rows(db, "SELECT * FROM things")
    assert row["_id"] == "a" and row["_record"] == place.records()["a"]
    plain = [name for name in fields if name.isidentifier() and name.isascii() and not isinstance(fields[name], dict)]
    for name in plain:
        if sum(column_name((other,)).lower() == name.lower() for other in fields) == 1:
            assert name not in row or row[name] == fields[name]


@pytest.mark.parametrize("name", ["a #1", "50%41", "what?", "Ünïcode ✓", 'it\'s "quoted"'])
def test_a_home_may_lie_in_any_folder(tmp_path: Path, name: str) -> None:
    """Whatever stands in the path, the same database is written and read."""
    place = Pipeline(tmp_path / name)
    place.folder.mkdir()
    place.configure()
    place.write([{"id": "a"}])
    place.run()
    assert set(place.records()) == {"a"} and place.verify()["equal"] is True


def test_a_newer_database_is_left_alone(place: Pipeline) -> None:
    """A database of a version that isn't known is neither read nor written."""
    place.write([{"id": "a"}])
    place.load()
    db = sqlite3.connect(place.workspace.home.database)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreError, match="newer AutoSync"):
        place.load()


def test_a_file_that_is_no_database_is_told_and_kept(place: Pipeline) -> None:
    """The message says what to do, and the file stays as it is."""
    place.workspace.home.path.mkdir()
    place.workspace.home.database.write_bytes(b"not a database" * 1000)
    place.write([{"id": "a"}])
    with pytest.raises(StoreError, match=r"damaged or no database.*autosync\.db.*rebuild"):
        place.load()
    assert place.workspace.home.database.read_bytes().startswith(b"not a database")


def test_an_old_state_can_be_read_by_time(place: Pipeline) -> None:
    """The last change at or before a time gives the records of then."""
    times = []
    for n in range(3):
        place.write([{"id": "a", "n": n}])
        place.load()
        times.append(query(place, "SELECT max(time) FROM batch")[0][0])
    with place.workspace.database(read_only=True) as db:
        for n, time in enumerate(times):
            assert dict(history.as_of(db, 1, history.seq_at(db, 1, time))) == {"a": b'{"id":"a","n":%d}' % n}
        assert history.seq_at(db, 1, times[0] - 1) == 0 and not dict(history.as_of(db, 1, 0))


def test_a_first_load_in_bulk_has_its_indexes(place: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large first load drops the indexes while it writes; afterwards they are there."""
    monkeypatch.setattr(batches, "BULK", 100)
    place.write([{"id": f"{n}"} for n in range(300)])
    place.load()
    fresh = connect(place.folder / "fresh.db")
    names = "SELECT name FROM sqlite_master WHERE type = 'index' ORDER BY name"
    assert query(place, names) == fresh.execute(names).fetchall()
    fresh.close()
    place.write([{"id": f"{n}"} for n in range(1, 301)])
    counts = place.load().counts
    assert (counts.inserted, counts.deleted, counts.unchanged) == (1, 1, 299)


def test_a_source_that_took_over_a_collection_makes_the_other_one_look_again(place: Pipeline) -> None:
    """The source was renamed and back: what it showed under its first name says nothing of what the other one did."""
    rules = {"collection": "x", "guard": {"max_delete": 1.0}}
    place.configure(name="first", location="first.json", **rules)
    place.write('[{"id":"a"},{"id":"b"}]', "first.json")
    place.load(source="first")
    place.configure(name="second", location="second.json", **rules)
    place.write('[{"id":"b"}]', "second.json")
    assert place.load(source="second").counts.deleted == 1
    place.configure(name="first", location="first.json", **rules)
    assert place.load(source="first").counts.inserted == 1
    assert set(place.records("x")) == {"a", "b"}


def test_two_sources_keep_apart(tmp_path: Path) -> None:
    """Equal ids, rows and files of two sources are two collections, each with its own log and state."""
    place = Pipeline(tmp_path)
    place.configure()
    config = place.folder / "autosync.toml"
    text = config.read_text()
    config.write_text(text + text.replace('"things"', '"others"') + "[source.guard]\nmax_delete = 1.0\n")
    place.write([{"id": "a"}, {"id": "b"}])
    place.run()
    place.run(source="others")
    place.write([{"id": "b", "n": 1}])
    assert place.run(source="others").found.counts.deleted == 1
    assert set(place.records("others")) == {"b"} and set(place.records("things")) == {"a", "b"}
    assert place.verify()["equal"] is True


MANY = b"".join(b'{"id":"%06d"}\n' % n for n in range(batches.BULK + 1))


def journal_mode(place: Pipeline) -> str:
    return str(query(place, "PRAGMA journal_mode")[0][0])


@pytest.mark.parametrize("watched", [False, True], ids=["alone", "while somebody reads"])
def test_a_first_load_ends_in_wal_mode_with_its_indexes(place: Pipeline, watched: bool) -> None:
    """Whether the journal could be changed for it or not, the store is then as it always is."""
    place.configure(location="things.jsonl")
    place.write(MANY, "things.jsonl")
    with ExitStack() as readers:
        if watched:
            db = readers.enter_context(place.workspace.database())
            db.execute("BEGIN")
            assert db.execute("SELECT count(*) FROM record").fetchone() == (0,)
        found = place.load()
    assert found.counts.inserted == len(place.records()) == batches.BULK + 1
    assert journal_mode(place) == "wal"
    assert {row[0] for row in query(place, "SELECT name FROM sqlite_schema WHERE type = 'index'")} >= set(INDEX_NAMES)
    assert query(place, "SELECT count(*), min(seq), max(seq) FROM change") == [(batches.BULK + 1, 1, batches.BULK + 1)]


def test_a_first_load_that_fails_leaves_an_empty_store(place: Pipeline) -> None:
    """Its file is cut off in the middle: no record, no state, indexes and journal as before; then it goes."""
    place.configure(location="things.jsonl")
    place.write(MANY, "things.jsonl")
    found = ingest(place.workspace, "things", "x")
    docs = place.workspace.home.staging / found.batch / staging.DOCS
    docs.write_bytes(docs.read_bytes()[: len(MANY) // 2 // 14 * 14])
    with pytest.raises(ValueError):
        store(place.workspace, "things", found.batch, "x", token(place, "x"))
    assert query(place, "SELECT count(*) FROM record") == query(place, "SELECT count(*) FROM seen") == [(0,)]
    assert journal_mode(place) == "wal"
    assert {row[0] for row in query(place, "SELECT name FROM sqlite_schema WHERE type = 'index'")} >= set(INDEX_NAMES)
    assert place.load().counts.inserted == batches.BULK + 1


def test_a_store_whose_first_load_died_is_in_wal_mode_again(place: Pipeline) -> None:
    """The process died before it could change back: the next one that opens the store does it."""
    place.write('[{"id":"a"}]')
    place.load()
    with place.workspace.database() as db:
        db.execute("PRAGMA journal_mode = DELETE")
    assert journal_mode(place) == "delete"
    with place.workspace.database():
        assert journal_mode(place) == "wal"
