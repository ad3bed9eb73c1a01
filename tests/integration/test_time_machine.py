"""The time machine as a whole: random histories, asked for at every seq and around every time, in all three places."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from math import ceil, floor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autosync.errors import ConfigError
from autosync.ports import Commit
from autosync.records import canonical
from blocks.repository.copy import stored_at
from flows.operations.mirror import mirror
from flows.operations.push import open_remote, push
from flows.operations.restore import write_collection
from tests.pipeline import Pipeline

FIRST = 1_700_000_000
Lines = dict[str, bytes]
Step = tuple[dict[str, int], float, bool, bool]


class Point(NamedTuple):
    """A state of the model, with the seq and the time at which it was stored."""

    seq: int
    time: float
    lines: Lines


STEPS = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from("abcde"), st.integers(0, 2), min_size=1),
        st.integers(1, 12).map(lambda quarters: quarters / 4),  # seconds since the step before, exact in every format
        st.booleans(),
        st.booleans(),
    ),
    min_size=1,
    max_size=5,
)


class History:
    """A collection that went through some steps; the points of each place as the model has them, oldest first."""

    def __init__(self, folder: Path, steps: list[Step]) -> None:
        self.place = Pipeline(folder)
        self.place.configure(guard={"max_delete": 1.0})
        self.points: dict[str, list[Point]] = {"store": [Point(0, FIRST, {})], "mirror": [], "repo": []}
        time = float(FIRST)
        for number, (state, later, mirrored, pushed) in enumerate(steps, 1):
            time += later
            last = number == len(steps)
            self._step(state, time, mirror_it=mirrored or last, push_it=pushed or last)

    def _step(self, state: dict[str, int], time: float, *, mirror_it: bool, push_it: bool) -> None:
        records: list[dict[str, Any]] = [{"id": id, "n": n} for id, n in state.items()]
        self.place.write(records)
        self.place.load()
        with self.place.workspace.database() as db:
            batch, seq = db.execute("SELECT batch, last_seq FROM batch ORDER BY batch DESC LIMIT 1").fetchone()
            if seq > self.points["store"][-1].seq:
                db.execute("UPDATE batch SET time = ? WHERE batch = ?", [time, batch])
                self.points["store"].append(Point(seq, time, {one["id"]: canonical(one) for one in records}))
        if mirror_it:
            self._reached("mirror")
            root = mirror(self.place.workspace, "things").root
            if push_it:
                self._reached("repo")
                push(self.place.workspace, "things", "run", root)

    def _reached(self, place: str) -> None:
        newest = self.points["store"][-1]
        if newest not in self.points[place]:
            self.points[place].append(newest)

    def every_seq(self) -> Iterator[Point]:
        """The store's state after every single change, in the order of its log."""
        with self.place.workspace.database(read_only=True) as db:
            log = dict(db.execute("SELECT seq, id FROM change_log").fetchall())
        for before, after in pairwise(self.points["store"]):
            lines = dict(before.lines)
            for seq in range(before.seq + 1, after.seq + 1):
                lines.pop(log[seq], None)
                if log[seq] in after.lines:
                    lines[log[seq]] = after.lines[log[seq]]
                yield Point(seq, after.time, dict(lines))
            assert lines == after.lines, "the log does not lead from one state to the next"

    def restored(self, place: str, as_of: str) -> tuple[bytes, dict[str, Any]] | None:
        """The file and what was said; None when the place does not reach back so far."""
        path = self.place.folder / "out.jsonl"
        try:
            done = write_collection(self.place.workspace, "things", as_of, str(path), place)
        except ConfigError as error:
            assert "reaches back to" in str(error)
            return None
        return path.read_bytes(), done


def text(lines: Lines) -> bytes:
    return b"".join(lines[id] + b"\n" for id in sorted(lines))


def iso(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat()


@settings(max_examples=max(settings.default.max_examples // 3, 1))  # type: ignore[union-attr]  # there is a profile
@given(STEPS)
def test_every_seq_gives_the_newest_state_that_a_place_has(steps: list[Step]) -> None:
    """The store has every seq; mirror and repository the states that reached them, and they say when it was rounded."""
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder), steps)
        points = history.points | {"store": [history.points["store"][0], *history.every_seq()]}
        newest = history.points["store"][-1].seq
        for place, known in points.items():
            for seq in range(newest + 2):
                found = history.restored(place, str(seq))
                wanted = [point for point in known if point.seq <= seq]
                if not wanted:
                    assert found is None
                    continue
                assert found is not None
                data, said = found
                assert (data, said["seq"]) == (text(wanted[-1].lines), wanted[-1].seq), (place, seq)
                assert said.get("asked") == (seq if wanted[-1].seq < min(seq, newest) else None), (place, seq)


@settings(max_examples=max(settings.default.max_examples // 3, 1))  # type: ignore[union-attr]  # there is a profile
@given(STEPS)
def test_every_time_gives_the_newest_state_that_a_place_had_then(steps: list[Step]) -> None:
    """No place gives a state for a time at which it was not stored yet, to the fraction of a second."""
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder), steps)
        stored = [point.time for point in history.points["store"][1:]]
        times = {around for time in stored for around in (time - 0.25, time, time + 0.25, floor(time), ceil(time))}
        for place, known in history.points.items():
            for time in sorted(times):
                found = history.restored(place, iso(time))
                wanted = [point for point in known if point.time <= time]
                if place == "store" and not wanted:
                    wanted = known[:1]
                assert (found and found[0]) == (text(wanted[-1].lines) if wanted else None), (place, time - FIRST)


@pytest.mark.parametrize("said", [None, "", "yesterday", "nan", "1e999"])
def test_a_commit_that_tells_no_exact_time_counts_from_its_own(tmp_path: Path, said: str | None) -> None:
    """Commits of older releases have no such trailer, and somebody may have written one: their second counts."""
    history = History(tmp_path, [({"a": 1}, 0.25, True, True)])
    remote = open_remote(history.place.workspace)
    head, files = remote.head(), dict(remote.files("things"))
    assert head is not None and head.trailers["AutoSync-Time"] == repr(FIRST + 0.25)
    trailers = tuple(pair for pair in head.trailers.items() if pair[0] != "AutoSync-Time") + (
        (("AutoSync-Time", said),) if said is not None else ()
    )
    manifest = {"things/manifest.json": files["things/manifest.json"] + b"\n"}
    remote.commit(Commit("again", trailers, manifest.items(), time=FIRST + 10), parent=head.sha)
    assert history.restored("repo", iso(FIRST)) is None
    assert stored_at(next(iter(remote.history("things/manifest.json")))) == FIRST + 10
