"""The contract of a collection's copies, over a real history: what store, mirror and repository all keep."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from autosync.errors import AutoSyncError, ConfigError, MirrorDamaged
from autosync.ports import Commit, Copy, PointInTime
from autosync.records import canonical
from autosync.shards import root_of
from blocks.store import compaction, ledger
from flows.operations.copies import COPIES, OTHERS, CopyName, open_copy, parse_copy
from flows.operations.push import open_remote
from flows.operations.rebuild import rebuild_store
from flows.workspace import now
from tests.pipeline import Pipeline

Lines = dict[str, bytes]
MANY = {f"{n:03d}": n for n in range(300)}
STATES: list[dict[str, int]] = [
    {"a": 1, "b": 1, "c": 1},
    {"b": 2, "c": 1, "é": 3},
    MANY,  # so many that they are cut into several files
    MANY | {"010": -1, "zz": 5},
    {"a": 4},
]


@dataclass(frozen=True)
class History:
    """A home whose collection went through STATES, each of them stored, mirrored and pushed; its states by seq."""

    pipeline: Pipeline
    states: dict[int, Lines]

    @property
    def newest(self) -> int:
        return max(self.states)

    def open(self, name: CopyName, collection: str = "things") -> Copy:
        return open_copy(self.pipeline.workspace, name, collection)

    def times(self) -> dict[int, float]:
        """When each state was stored."""
        with self.pipeline.workspace.database(read_only=True) as db:
            return dict(db.execute("SELECT last_seq, time FROM batch").fetchall())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> History:
    pipeline, states = Pipeline(tmp_path_factory.mktemp("history")), dict[int, Lines]()
    pipeline.configure(guard={"max_delete": 1.0})
    for state in STATES:
        records: list[dict[str, Any]] = [{"id": id, "n": n} for id, n in state.items()]
        pipeline.write(records)
        states[pipeline.run().pushed.seq] = {record["id"]: canonical(record) for record in records}
    return History(pipeline, states)


@pytest.fixture
def history(made: History, tmp_path: Path) -> History:
    """The history in a folder of its own, which a test may damage."""
    shutil.copytree(made.pipeline.folder, tmp_path, dirs_exist_ok=True)
    return History(Pipeline(tmp_path), made.states)


@pytest.fixture(params=COPIES)
def name(request: pytest.FixtureRequest) -> CopyName:
    return parse_copy(request.param)


@pytest.fixture
def copy(made: History, name: CopyName) -> Copy:
    """Each copy of the undamaged history, for looking only."""
    return made.open(name)


def points_of_states(history: History, copy: Copy) -> Iterator[tuple[PointInTime, Lines]]:
    points = {point.seq: point for point in copy.points()}
    return ((points[seq], lines) for seq, lines in history.states.items())


def test_points_come_newest_first(made: History, copy: Copy) -> None:
    """From the newest state on, with seqs and times that never rise, through every state that was pushed."""
    points = list(copy.points())
    seqs = [point.seq for point in points]
    assert seqs == sorted(set(seqs), reverse=True) and seqs[0] == made.newest
    assert [point.time for point in points] == sorted((point.time for point in points), reverse=True)
    assert {point.seq: point.time for point, _ in points_of_states(made, copy)} == made.times()


def test_rows_are_the_records_at_a_point(made: History, copy: Copy) -> None:
    """Canonical lines by id, in key order, the same from every copy."""
    for point, lines in points_of_states(made, copy):
        assert list(copy.rows(point)) == sorted(lines.items())


def test_every_point_can_be_had(copy: Copy) -> None:
    """Whatever a copy names as a point it gives the rows of, and of those the proof."""
    for point in list(copy.points())[::40]:
        rows = list(copy.rows(point))
        assert copy.prove(point) == (root_of(rows, len(rows)), len(rows), point.seq)
        assert point.root in ("", root_of(rows, len(rows)))
        assert point.records in (None, len(rows))


def test_a_moment_gives_the_newest_point_before_it(made: History, copy: Copy) -> None:
    """A seq or a time, its own included; none gives the newest of all, and so does what is yet to come."""
    points, newest = list(copy.points()), copy.at(None)
    assert newest.seq == copy.at(made.newest + 99).seq == copy.at(9e9).seq == points[0].seq
    for seq, time in made.times().items():
        assert copy.at(seq).seq == copy.at(time).seq == seq
        assert copy.at(seq).time == copy.at(time).time == time
    for moment in [*range(made.newest), *(time - 1e-3 for time in made.times().values())]:
        by = "seq" if isinstance(moment, int) else "time"
        expected = next((point for point in points if getattr(point, by) <= moment), None)
        if expected is not None:
            assert copy.at(moment).seq == expected.seq


def test_before_its_oldest_point_a_copy_says_how_far_it_reaches(made: History, copy: Copy) -> None:
    """The store knows that there was nothing at first; the others begin with the first state that reached them."""
    oldest = list(copy.points())[-1]
    if oldest.seq == 0:
        assert list(copy.rows(oldest)) == [] and copy.at(0.0).seq == copy.at(0).seq == 0
        return
    first = datetime.fromtimestamp(made.times()[oldest.seq], UTC).isoformat(timespec="seconds")
    for moment in (oldest.seq - 1, oldest.time - 1):
        with pytest.raises(ConfigError) as caught:
            copy.at(moment)
        assert f"reaches back to seq {oldest.seq} ({first}) only" in str(caught.value)
        assert "--from" in caught.value.todo


def test_what_was_replaced_leads_back(made: History, name: CopyName) -> None:
    """Step by step the newest state is turned back to those before; a repository keeps whole states instead."""
    copy = made.open(name)
    state, seqs = dict(copy.rows(copy.at(None))), list[int]()
    for point, replaced, _ in copy.replaced():
        state = {id: line for id, line in (state | dict(replaced)).items() if line is not None}
        seqs.append(point.seq)
        assert sorted(state.items()) == list(copy.rows(point))
    expected = {"store": [*sorted(made.states)[:-1][::-1], 0], "mirror": sorted(made.states)[:-1][::-1], "repo": []}
    assert seqs == expected[name]


def test_what_lies_there_now_is_proven(made: History, copy: Copy) -> None:
    """Without a point: the same as of the newest one, while nobody wrote to the copy."""
    lines = made.states[made.newest]
    assert copy.prove() == copy.prove(copy.at(None)) == (root_of(lines.items(), len(lines)), len(lines), made.newest)


def test_the_key_is_known(copy: Copy) -> None:
    """Each copy alone tells by what its records are known."""
    assert copy.key == ["/id"]


def test_a_collection_that_is_not_there(made: History, name: CopyName) -> None:
    """It has no points and no records; whoever asks for one of them is told."""
    copy = made.open(name, "others")
    assert list(copy.points()) == []
    proof = copy.prove()
    assert proof is None or proof.records == 0
    with pytest.raises(AutoSyncError, match=r"no collection 'others'|no mirror|no commit of 'others'"):
        copy.at(None)
    assert COPIES[name].collections(made.pipeline.workspace) == {"things"}


def compact(history: History) -> None:
    """Merge what lies between the first state and the last."""
    with history.pipeline.workspace.database() as db:
        token = ledger.grant(db, "source things", "compact", now=now())
        keep = frozenset({min(history.states), history.newest})
        compaction.compact(db, 1, keep, place="source things", token=token)


def rebuild(history: History) -> None:
    """Make the store anew from the mirror."""
    rebuild_store(history.pipeline.workspace, force=True)


@pytest.mark.parametrize(("change", "oldest"), [(compact, 0), (rebuild, 3)])
def test_the_points_of_a_store_that_does_not_know_every_change(
    history: History, change: Callable[[History], None], oldest: int
) -> None:
    """Inside a batch that was merged, or told by a mirror, no seq is a point; all the others are as they were."""
    change(history)
    copy = history.open("store")
    points = list(copy.points())
    assert points[-1].seq == oldest
    assert all(dict(copy.rows(point)) == history.states[point.seq] for point in points if point.seq in history.states)
    for seq in range(history.newest + 1):
        expected = next((point for point in points if point.seq <= seq), None)
        if expected is None:
            with pytest.raises(ConfigError, match="reaches back to seq 3"):
                copy.at(seq)
        else:
            assert copy.at(seq)[:2] == expected[:2]
    state = dict(copy.rows(points[0]))
    for point, replaced, _ in copy.replaced():
        state = {id: line for id, line in (state | dict(replaced)).items() if line is not None}
        assert state == dict(copy.rows(point))


def harm(history: History, name: CopyName) -> None:
    """Change a record in a copy behind its back."""
    workspace = history.pipeline.workspace
    if name == "store":
        with workspace.database() as db:
            db.execute("""UPDATE record SET doc = '{"id":"a","n":5}' WHERE id = 'a'""")
    elif name == "mirror":
        (workspace.home.mirror / "things" / "current" / "records.jsonl").write_bytes(b'{"id":"a","n":5}\n')
    else:
        remote = open_remote(workspace)
        head, files = remote.head(), dict(remote.files("things"))
        assert head is not None
        changed = {"things/records.jsonl": b'{"id":"a","n":5}\n', "things/manifest.json": files["things/manifest.json"]}
        changed["things/manifest.json"] += b"\n"
        remote.commit(Commit("edited", tuple(head.trailers.items()), changed.items(), time=head.time), parent=head.sha)


def test_what_somebody_changed_has_another_root(history: History, name: CopyName) -> None:
    """The proof of what lies there is of what lies there, whatever the copy says of itself; the others are equal."""
    before = history.open(name).prove()
    harm(history, name)
    proof = history.open(name).prove()
    assert proof is not None and before is not None
    assert proof.root != before.root and (proof.records, proof.seq) == (before.records, before.seq)
    assert {history.open(other).prove() for other in COPIES if other != name} == {before}


@pytest.mark.parametrize("name", OTHERS)
def test_what_somebody_changed_is_not_given(history: History, name: CopyName) -> None:
    """A copy that noted what it holds never gives other rows for it without an error."""
    harm(history, name)
    copy = history.open(name)
    with pytest.raises(MirrorDamaged, match=r"root differs|not what the manifest says"):
        list(copy.rows(copy.at(None)))


def test_the_words_of_the_command_line() -> None:
    """store, mirror and repo, as ever; any other word is answered with those that fit."""
    assert list(COPIES) == ["store", "mirror", "repo"] and OTHERS == ("mirror", "repo")
    with pytest.raises(ConfigError, match=r"'moon' is no copy to rebuild from.*mirror, repo"):
        parse_copy("moon", "rebuild", OTHERS)
