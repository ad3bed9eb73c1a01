"""Compaction: what is kept stays as it was to the byte, in the log and in the mirror; the rest goes, whatever dies."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosync.errors import StaleLock, StoreError
from autosync.retention import DAY
from autosync.settings import Retention
from autosync.shards import root_of
from blocks.mirror import update as files
from blocks.mirror import versions as mirror_versions
from blocks.mirror.files import read_manifest
from blocks.store import batches, compaction, history, ledger
from blocks.store import staged_batch as staging
from blocks.store.history import COMPACTED
from blocks.store.reader import Reader
from blocks.store.schema import Db
from flows.compact import Compacted, compact_collection, plan_compaction
from flows.operations.ingest import ingest
from flows.operations.restore import write_collection
from flows.service.dashboard import StoreReading
from flows.stages.lock import Grant
from flows.workspace import now
from reports.dashboard.app import create_app
from tests.pipeline import Pipeline, dying, mirrored_states
from tests.serving import serving

Model = dict[str, bytes]
BASE = datetime(2025, 3, 20, tzinfo=UTC).timestamp()
EVER = 100_000
NAMES = ("things", "others")


@dataclass
class Past:
    """A home with two collections, and what each held after each of its points."""

    place: Pipeline
    states: dict[str, dict[int, Model]] = field(default_factory=lambda: {name: {} for name in NAMES})

    def step(self, name: str, ids: dict[str, int], time: float) -> None:
        """Sync, as if at a time: ingest, store and mirror; both consumers have read it."""
        self.place.write([{"id": id, "n": n} for id, n in ids.items()], f"{name}.json")
        newest = self.place.load_at(time, name)
        with self.place.workspace.database(read_only=True) as db:
            self.states[name][newest] = dict(batches.read_rows(db, batches.collection_id(db, name) or 0))

    def rule(self, **rule: int) -> None:
        """Write [retention]."""
        config = self.place.folder / "autosync.toml"
        text = config.read_text().split("[retention]")[0]
        config.write_text(text + "[retention]\n" + "".join(f"{name} = {days}\n" for name, days in rule.items()))

    def compact(self) -> dict[str, Compacted]:
        """What the compact flow does to each collection."""
        with self.place.workspace.database() as db:
            rows = history.collections(db)
        return {row["name"]: compact_collection(self.place.workspace, row, self.grant(row["source"])) for row in rows}

    def grant(self, source: str) -> Grant:
        with self.place.workspace.database() as db:
            token = ledger.grant(db, f"source {source}", "compact", now=now())
        return Grant(place=f"source {source}", token=token, lease="", state_version=0)

    @contextmanager
    def collections(self) -> Iterator[tuple[Db, list[tuple[str, int]]]]:
        with self.place.workspace.database(read_only=True) as db:
            yield db, [(row["name"], row["collection"]) for row in history.collections(db)]

    def check(self) -> None:
        """Every point that is still there is what it was; rounding down says where; the log tells one story."""
        with self.collections() as (db, rows):
            for name, number in rows:
                states = self.states[name]
                left = [point.seq for point in compaction.points(db, number)]
                assert set(left) <= states.keys() and max(left) == max(states)
                for seq in left:
                    assert dict(history.as_of(db, number, seq)) == states[seq]
                for seq in range(max(states) + 2):
                    exact = history.kept_seq(db, number, seq)
                    assert exact == seq or exact in [0, *left]
                    if seq in states:
                        assert exact in [0, *states]
                        assert dict(history.as_of(db, number, exact)) == states.get(exact, {})
                check_log(db, name, states[max(states)])
                self.check_mirror(name, left)

    def check_mirror(self, name: str, left: list[int]) -> None:
        """Going back through the versions gives each of its points with its root, and has all that the store has."""
        folder = self.place.workspace.home.mirror / name
        found = dict(mirrored_states(folder))
        assert all(state == self.states[name][seq] for seq, state in found.items())
        assert set(left) <= found.keys()

    def bytes(self) -> dict[str, bytes]:
        """Every version file."""
        return {str(path): path.read_bytes() for path in self.place.workspace.home.mirror.glob("*/versions/*")}

    def log(self) -> list[Any]:
        """The tables that compaction touches."""
        with self.place.workspace.database(read_only=True) as db:
            tables = ("change", "batch", "record", "collection")
            return [db.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in tables]


def check_log(db: Db, name: str, newest: Model) -> None:
    """The change log, replayed from its beginning, leads to the present, each change from where the last one ended."""
    replayed: dict[str, str] = {}
    for id, op, before, after in db.execute(
        "SELECT id, op, before, after FROM change_log WHERE collection = ? ORDER BY seq", [name]
    ):
        assert replayed.get(id) == before != after
        assert (op == "insert") == (before is None) and (op == "delete") == (after is None)
        replayed.pop(id, None)
        if op != "delete":
            replayed[id] = after
    assert {id: doc.encode() for id, doc in replayed.items()} == newest
    for counts, rows in db.execute(
        "SELECT inserted || ' ' || updated || ' ' || deleted, (SELECT sum(op = 'insert') || ' ' || sum(op = 'update') "
        "|| ' ' || sum(op = 'delete') FROM change WHERE change.batch = batch.batch AND seq BETWEEN first_seq AND "
        "last_seq) FROM batch"
    ):
        assert counts == (rows or "0 0 0")


def begin(folder: Path) -> Past:
    folder.mkdir(parents=True, exist_ok=True)
    sources = [
        f'[[source]]\nname = "{name}"\nlocation = "{name}.json"\nkey = "/id"\n[source.guard]\nmax_delete = 1.0\n'
        for name in NAMES
    ]
    (folder / "autosync.toml").write_text("\n".join(sources))
    return Past(Pipeline(folder))


@pytest.fixture
def past(tmp_path: Path) -> Past:
    """Two collections in turn over six days of one month, three times a day."""
    past = begin(tmp_path / "first")
    for days in range(5, -1, -1):
        for hour in range(3):
            time = BASE - days * DAY + 3600 * hour
            past.step("things", {"a": days, "b": hour, f"only{days}{hour}": 1, "same": days * (hour == 1)}, time)
            past.step("others", {"x": hour, f"y{days}": 1}, time + 60)
    return past


STEPS = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.dictionaries(st.sampled_from("abcd"), st.integers(0, 2), min_size=1),
        st.sampled_from([60.0, 20_000.0, DAY, 20 * DAY]),
    ),
    min_size=1,
    max_size=12,
)


@given(STEPS, st.integers(0, 30), st.integers(0, 60), STEPS)
def test_what_is_kept_stays_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any], days: int, daily: int, more: list[Any]
) -> None:
    """Random histories of two collections and random rules: every kept point in log and mirror is what it was, a
    second compaction changes nothing, and syncs go on.
    """
    past = begin(tmp_path_factory.mktemp("past"))
    time = now() - sum(gap for _, _, gap in steps)
    for name, ids, gap in steps:
        time += gap
        past.step(name, ids, time)
    past.rule(days=days, daily=daily)
    planned = {row.collection: row for row in plan_compaction(past.place.workspace)}
    before = past.log()
    done = past.compact()
    assert planned == done
    assert (past.log() == before) == all(row.merged == 0 for row in done.values())
    past.check()
    for row in done.values():
        with past.collections() as (db, _):
            number = batches.collection_id(db, row.collection)
            assert number is not None
            assert len(compaction.points(db, number)) == row.points - row.merged
    first = past.log(), past.bytes()
    assert all(row.merged == row.rows == row.files == 0 for row in past.compact().values())
    assert (past.log(), past.bytes()) == first
    for name, ids, _ in more:
        past.step(name, ids, now())
    past.check()


def test_days_become_one_point_each_and_give_space_back(past: Past) -> None:
    """Three points a day, of which all but the last go; the figures are those of the tables and the files."""
    past.rule(days=0, daily=EVER)
    size, rows = sum(map(len, past.bytes().values())), [len(table) for table in past.log()]
    done = past.compact()
    past.check()
    assert [(row.points, row.merged) for row in done.values()] == [(18, 12), (18, 12)]
    assert [row.files for row in done.values()] == [11, 11], "of the first day the oldest is no file"
    assert size - sum(row.file_bytes for row in done.values()) == sum(map(len, past.bytes().values()))
    assert rows[0] - sum(row.rows for row in done.values()) == len(past.log()[0])
    assert rows[1] - 24 == len(past.log()[1])
    assert all(row.bytes > 0 and row.rows > 0 for row in done.values())


def test_records_that_came_and_went_leave_nothing(past: Past) -> None:
    """Their tombstones go with their changes; a number is never given twice, and they can come back."""
    past.step("things", {"a": 0, "newest": 1}, BASE + DAY)
    past.step("things", {"a": 0}, BASE + DAY + 60)
    with past.place.workspace.database(read_only=True) as db:
        (top,) = db.execute("SELECT max(rec) FROM record").fetchone()
    past.rule(days=0, daily=0)
    past.compact()
    with past.place.workspace.database(read_only=True) as db:
        left = {row[0] for row in db.execute("SELECT id FROM record WHERE doc IS NULL")}
    assert not {id for id in left if id.startswith("only5")}
    past.step("things", {"only50": 7, "only51": 7, "fresh": 1}, now())
    past.check()
    with past.place.workspace.database(read_only=True) as db:
        assert db.execute("SELECT min(rec) FROM record WHERE id IN ('only50', 'fresh')").fetchone()[0] > top


def test_a_record_that_the_log_mentions_keeps_its_number(past: Past) -> None:
    """It came and went again within one span, but it had been there before: the log still needs it."""
    past.step("things", {"a": 0, "again": 1}, BASE + DAY)
    past.step("things", {"a": 0}, BASE + 2 * DAY)
    past.step("things", {"a": 0, "again": 2}, BASE + 3 * DAY)
    past.step("things", {"a": 0}, BASE + 3 * DAY + 60)
    past.step("others", {"x": 9}, BASE + 3 * DAY + 120)
    past.rule(days=0, daily=EVER)
    past.compact()
    past.check()
    with past.place.workspace.database(read_only=True) as db:
        log = db.execute("SELECT op, after FROM change_log WHERE id = 'again' ORDER BY seq").fetchall()
    assert log == [("insert", '{"id":"again","n":1}'), ("delete", None)]


def test_a_batch_staged_before_compaction_is_staged_again(past: Past) -> None:
    """It names a record by a number that compaction took away: the store refuses it instead of losing the record."""
    past.place.write('[{"id":"only50","n":7}]')
    found = ingest(past.place.workspace, "things", "late")
    past.rule(days=0, daily=0)
    past.compact()
    grant = past.grant("things")
    with past.place.workspace.database() as db, pytest.raises(StoreError, match="in between"):
        batch = staging.load(past.place.workspace.home.staging / found.batch)
        batches.apply(db, batch, past.place.workspace.source("things"), run="late", token=grant.token, now=now())
    past.step("things", {"only50": 7}, now())
    past.check()


def test_what_a_consumer_has_not_read_is_not_merged(past: Past) -> None:
    """A push that stands on day 3: nothing of the days since is merged, and nothing across its place."""
    with past.collections() as (db, rows):
        number = dict(rows)["things"]
        points = compaction.points(db, number)
    cursor = points[7].seq
    with past.place.workspace.database() as db:
        ledger.advance(db, "push", number, cursor, now=now(), info={})
    past.rule(days=0, daily=0)
    past.compact()
    past.check()
    with past.collections() as (db, _):
        left = [point.seq for point in compaction.points(db, number)]
        assert left == [point.seq for point in points[7:]]
        changes = history.changes_since(db, number, cursor, points[-1].seq)
        assert {id: before for id, (_, before) in changes.items()} == {
            id: past.states["things"][cursor].get(id) for id in changes
        }


def test_a_newer_holder_of_the_place_stops_it(past: Past) -> None:
    """A run that was given the source's place meanwhile: nothing more is merged."""
    past.rule(days=0, daily=0)
    grant, before = past.grant("things"), past.log()
    past.grant("things")
    with past.place.workspace.database() as db:
        row = next(row for row in history.collections(db) if row["name"] == "things")
    with pytest.raises(StaleLock):
        compact_collection(past.place.workspace, row, grant)
    assert past.log() == before


def test_dying_between_any_two_writes_loses_nothing(past: Past, tmp_path: Path) -> None:
    """Each write of the mirror's compaction in turn is the last one; what is there is right, and the next compaction
    brings about what an undisturbed one would have.
    """
    past.rule(days=0, daily=EVER)
    whole = Past(Pipeline(tmp_path / "whole"), past.states)
    shutil.copytree(past.place.folder, whole.place.folder)
    whole.compact()
    wanted = whole.log(), {Path(name).parts[-3:]: data for name, data in whole.bytes().items()}
    writes, survived = 0, False
    while not survived and writes < 300:
        copy = Past(Pipeline(tmp_path / f"copy{writes}"), past.states)
        shutil.copytree(past.place.folder, copy.place.folder)
        with dying(writes) as died:
            copy.compact()
        survived = not died
        copy.check()
        copy.compact()
        copy.check()
        assert (copy.log(), {Path(name).parts[-3:]: data for name, data in copy.bytes().items()}) == wanted
        shutil.rmtree(copy.place.folder)
        writes += 1
    assert survived and writes > 20


@pytest.mark.parametrize("pieces", range(6))
def test_dying_between_two_transactions_loses_nothing(past: Past, monkeypatch: pytest.MonkeyPatch, pieces: int) -> None:
    """The log is merged in several transactions; those that were done stay done, the one that died never was."""
    monkeypatch.setattr(compaction, "ROWS_AT_ONCE", 6)
    past.rule(days=0, daily=EVER)
    with past.place.workspace.database() as db:
        db.execute(
            "CREATE TRIGGER dead BEFORE INSERT ON batch WHEN (SELECT count(*) FROM batch WHERE origin = "
            f"'{COMPACTED}') >= {pieces} BEGIN SELECT raise(ABORT, 'dead'); END"
        )
    before = past.log()
    with pytest.raises(StoreError, match="dead"):
        past.compact()
    past.check()
    assert (past.log() == before) == (pieces == 0)
    with past.place.workspace.database() as db:
        db.execute("DROP TRIGGER dead")
    past.compact()
    past.check()


def test_few_version_files_are_open_at_once(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many files are merged in several rounds, with the same result."""
    monkeypatch.setattr(mirror_versions, "FILES_AT_ONCE", 3)
    past.rule(days=0, daily=0)
    done = past.compact()["things"]
    assert done.files > 9
    past.check()


def test_a_damaged_version_is_left_alone_and_named(past: Past) -> None:
    """What can't be read is not merged away: its span stays as it is, the others are merged."""
    folder = past.place.workspace.home.mirror / "things"
    versions = mirror_versions.chain(folder, max(past.states["things"]))
    hurt = next(version for version in versions if version.header.time < BASE - 4 * DAY)
    hurt.path.write_bytes(hurt.path.read_bytes()[:-5])
    past.rule(days=0, daily=EVER)
    planned = {row.collection: row for row in plan_compaction(past.place.workspace)}
    done = past.compact()
    assert done == planned
    assert done["things"].damaged == [str(hurt.path)]
    assert 0 < done["things"].files < done["others"].files
    assert hurt.path.exists()


def test_an_old_copy_of_the_mirror_at_a_kept_point_catches_up(tmp_path: Path) -> None:
    """A mirror folder from before the compaction, put back, leads from its point to the present in one version."""
    past, old = begin(tmp_path / "home"), tmp_path / "old"
    past.step("things", {"a": 1, "gone": 1}, BASE - 9 * DAY)
    point, folder = max(past.states["things"]), past.place.workspace.home.mirror / "things"
    shutil.copytree(folder, old)
    for n in range(3):
        past.step("things", {"a": n, f"b{n}": n}, BASE + n)
        past.step("others", {"c": n, f"d{n}": n}, BASE + n)
    past.rule(days=0, daily=EVER)
    past.compact()
    shutil.rmtree(folder)
    shutil.copytree(old, folder)
    past.step("things", {"a": 4, "b1": 1}, now())
    found = dict(mirrored_states(folder))
    assert found == {seq: past.states["things"][seq] for seq in (max(past.states["things"]), point)}
    versions = mirror_versions.chain(folder, max(past.states["things"]))
    ids = [id for id, _ in mirror_versions.read_changes(versions[0].path)]
    assert not [id for id in ids if id.startswith("c")], "the other collection's changes lie between, and stay there"


def test_an_old_copy_of_the_mirror_is_made_whole(tmp_path: Path) -> None:
    """Put back, a mirror folder from before the compaction stands where the log no longer knows."""
    old = tmp_path / "old"
    other = begin(tmp_path / "other")
    other.step("things", {"a": 1, "gone": 1}, BASE - 9 * DAY)
    other.step("things", {"a": 2, "gone": 2}, BASE - 9 * DAY + 60)
    shutil.copytree(other.place.workspace.home.mirror / "things", old)
    other.step("things", {"a": 3}, BASE - 9 * DAY + 120)
    other.step("things", {"a": 3, "b": 1}, BASE - DAY)
    other.rule(days=0, daily=EVER)
    other.compact()
    folder = other.place.workspace.home.mirror / "things"
    shutil.rmtree(folder)
    shutil.copytree(old, folder)
    other.step("things", {"a": 4, "b": 1}, now())
    manifest = read_manifest(folder)
    assert manifest is not None and (manifest.seq, manifest.records) == (max(other.states["things"]), 2)
    assert sorted(files.lines(folder, manifest)) == sorted(other.states["things"][manifest.seq].values())
    assert manifest.root == root_of(sorted(other.states["things"][manifest.seq].items()), 2)
    assert mirror_versions.chain(folder, manifest.seq) == [], "no way back is claimed that isn't there"


def test_restore_says_when_it_goes_further_back(past: Past, tmp_path: Path) -> None:
    """A seq, or a time, between two kept points gives the state before, and says which that is; within a batch that
    was not merged, every seq is known.
    """
    past.step("things", {"new": 1, "newer": 1}, BASE + DAY)
    past.rule(days=0, daily=EVER)
    past.compact()
    with past.collections() as (db, rows):
        number = dict(rows)["things"]
        first, second, *_, newest = (point.seq for point in compaction.points(db, number))
        assert [history.kept_seq(db, number, seq) for seq in (newest - 1, newest + 9)] == [newest - 1, newest + 9]
    gone = next(seq for seq in sorted(past.states["things"]) if first < seq < second)
    for as_of, wanted in ((str(gone), first), (str(second), second), ("2025-03-16T00:30", first)):
        done = write_collection(past.place.workspace, "things", as_of, str(tmp_path / "old.jsonl"))
        assert done["seq"] == wanted and done.get("asked", wanted) == (gone if as_of == str(gone) else wanted)
        states = past.states["things"][wanted]
        assert (tmp_path / "old.jsonl").read_bytes() == b"".join(states[id] + b"\n" for id in sorted(states))


def test_a_mirror_keeps_its_days_when_the_store_has_lost_them(past: Past) -> None:
    """A store that was made anew knows no history: the rule alone decides over the mirror's."""
    folder, newest = past.place.workspace.home.mirror / "things", max(past.states["things"])
    mirror_versions.compact(folder, Retention(days=0, daily=EVER), now(), frozenset([newest]))
    left = dict(mirrored_states(folder))
    assert len(left) == 7, "the last of each of six days, and where the oldest version leads back to"
    assert all(state == past.states["things"][seq] for seq, state in left.items())


def test_pages_of_the_log_stay_whole(past: Past) -> None:
    """Merged batches of two collections lie between each other; page after page shows each change once, in order."""
    past.rule(days=0, daily=EVER)
    past.compact()
    reader = Reader(past.place.workspace.home.database)
    wanted = [row[0] for row in reversed(past.log()[0])]
    found, before = list[int](), None
    while page := [row["seq"] for row in reader.changes(before=before, limit=3)]:
        found += page
        before = page[-1]
    assert found == wanted
    by_source = [row["seq"] for name in NAMES for row in reader.changes(source=name, limit=500)]
    assert sorted(by_source, reverse=True) == wanted
    runs = {row["run"] for row in reader.changes(limit=500) if row["origin"] == COMPACTED}
    assert runs and not any(reader.changes(run=run) for run in runs), "merged changes belong to no single run"


@pytest.mark.parametrize("rebuilt", [False, True])
@pytest.mark.parametrize("merged", [False, True])
def test_log_and_pages_tell_the_same_changes(past: Past, merged: bool, rebuilt: bool) -> None:
    """By collection, record, run and page, the log of the command line and that of the pages agree; a change that a
    merged or a rebuilt batch tells belongs to no run.
    """
    if rebuilt:
        with past.place.workspace.database() as db:
            db.execute("UPDATE batch SET origin = ? WHERE first_seq = 1", [history.REBUILT])
            db.commit()
    if merged:
        past.rule(days=0, daily=0)
        past.compact()
    reader = Reader(past.place.workspace.home.database)
    with past.place.workspace.database(read_only=True) as db:
        runs, ids = ([row[0] for row in db.execute(sql)] for sql in ("SELECT run FROM batch", "SELECT id FROM record"))
        own = {
            row["run"] for row in history.changes(db, limit=500) if row["origin"] not in (COMPACTED, history.REBUILT)
        }
        for run in runs:
            told = [row["seq"] for row in history.changes(db, run=run)]
            assert told == [row["seq"] for row in reader.changes(run=run)]
            assert bool(told) == (run in own)
        for name in NAMES:
            for before in (None, 9):
                told = history.changes(db, collection=name, before=before, limit=4)
                shown = reader.changes(collection=name, before=before, limit=4)
                assert [(r["seq"], r["op"], r["before"], r["after"]) for r in told] == [
                    (r["seq"], r["op"], r["before"], r["after"]) for r in shown
                ]
            for id in ids:
                told = history.changes(db, collection=name, id=id)
                assert [row["seq"] for row in told] == [row["seq"] for row in reader.history(name, id)]


def test_the_pages_link_merged_changes_to_no_run(past: Past) -> None:
    """They are shown with their time, and belong to no single run."""
    past.rule(days=0, daily=0)
    past.compact()
    with serving(create_app(StoreReading(past.place.workspace))) as client:
        text = client.get("/changes").text
    with past.place.workspace.database(read_only=True) as db:
        runs = [row[0] for row in db.execute("SELECT run FROM batch")]
    assert 'class="line"' in text and not [run for run in runs if run in text]


def test_much_free_space_goes_back_to_the_disk(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that was mostly history: the file is smaller by what `freed` says, and holds what it held."""
    for n in range(30):
        past.step("things", {f"k{m}": n for m in range(500)}, BASE - 60 * DAY + 60 * n)
    past.step("things", {"a": 1}, now())
    with past.place.workspace.database() as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path = past.place.workspace.home.database
    size = path.stat().st_size
    monkeypatch.setattr(compaction, "FREE_BYTES", 1 << 16)
    past.rule(days=0, daily=0)
    done = past.compact()
    past.check()
    freed = sum(row.freed for row in done.values())
    assert freed > 0 and path.stat().st_size == size - freed
