"""A JSON Lines file to which rows are added: only those are looked at, and nothing else is different."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosync.errors import AutoSyncError
from blocks.sources.file import FileReading
from blocks.sources.reader import Context, Previous
from blocks.sources.registry import reader_of
from blocks.store import batches, ledger
from flows.operations.ingest import ingest
from tests.pipeline import Pipeline

FILE = "things.jsonl"


@pytest.fixture
def place(tmp_path: Path) -> Pipeline:
    """A home without records; everything may be deleted."""
    return fresh(tmp_path)


def fresh(folder: Path, **source: Any) -> Pipeline:
    pipeline = Pipeline(folder)
    pipeline.configure(location=FILE, guard={"max_delete": 1.0, "max_refuse": 1.0}, **source)
    return pipeline


def row(id: str, n: Any = 1) -> str:
    return json.dumps({"id": id, "n": n}) + "\n"


def grown(place: Pipeline) -> int | None:
    """How many lines of the file needn't be looked at; None when all must be."""
    source = place.workspace.source("things")
    with place.workspace.database() as db:
        state = batches.state(db, "things")
    previous = Previous(state.fingerprint, state.digest, state.seed)
    opened = reader_of(source, Context(place.workspace.base, place.folder)).look(previous)
    assert isinstance(opened, FileReading)
    return opened.grown.lines if opened.grown else None


def test_only_added_rows_are_looked_at(place: Pipeline) -> None:
    """The rows before are known by one hash over all of them; the added ones are new, and named by their lines."""
    place.write(row("a") + row("b"), FILE)
    place.load()
    place.write(row("a") + row("b") + row("c") + "{\n", FILE)
    assert grown(place) == 2
    found = place.load()
    assert (found.counts.inserted, found.counts.unchanged, found.counts.deleted, found.rows) == (1, 2, 0, 4)
    with place.workspace.database(read_only=True) as db:
        assert db.execute("SELECT place FROM quarantine").fetchall() == [(f"{FILE}, line 4",)]


@pytest.mark.parametrize(
    ("first", "then", "records"),
    [
        (row("a") + row("b"), row("a", 2) + row("b") + row("c"), {"a": 2, "b": 1, "c": 1}),
        (row("a") + row("b"), row("b") + row("c") + row("d"), {"b": 1, "c": 1, "d": 1}),
        (row("a") + "{\n", row("a") + "{\n" + row("c"), {"a": 1, "c": 1}),
        (row("a") + row("a"), row("a") + row("a") + row("c"), {"a": 1, "c": 1}),
        (row("a") + "\n", row("a") + "\n" + row("c"), {"a": 1, "c": 1}),
        (row("a") + row("b").strip(), row("a") + row("b").strip() + " " + row("c"), {"a": 1, "b": 1}),
    ],
    ids=["changed", "removed", "refused", "repeated", "blank", "no line end"],
)
def test_what_did_not_only_grow_is_looked_at_whole(
    place: Pipeline, first: str, then: str, records: dict[str, int]
) -> None:
    """Another begin, or rows there that are no records of their own: every row counts."""
    place.write(first, FILE)
    place.load()
    place.write(then, FILE)
    assert grown(place) is None
    place.load()
    assert {id: json.loads(text)["n"] for id, text in place.records().items()} == records


def test_an_added_row_with_a_known_key_clashes(place: Pipeline) -> None:
    """It is refused with its place, and the record stays; so does one that only repeats what stands there."""
    place.write(row("a") + row("b"), FILE)
    place.load()
    place.write(row("a") + row("b") + row("a", 2) + row("b"), FILE)
    assert grown(place) == 2
    found = place.load()
    assert found.counts.quarantined == 1
    assert place.records() == {"a": '{"id":"a","n":1}', "b": '{"id":"b","n":1}'}


def test_rows_that_others_changed_are_looked_at_again(place: Pipeline) -> None:
    """After a write of another origin the source has its say about every row."""
    place.write(row("a") + row("b"), FILE)
    place.load()
    with place.workspace.database() as db:
        db.execute("BEGIN")
        batches.forget_rows(db, "things", np.array([1, 2]))
        db.execute("COMMIT")
    place.write(row("a") + row("b") + row("c"), FILE)
    assert grown(place) is None


def test_a_file_saved_again_still_grows(place: Pipeline) -> None:
    """The same content with another time: how many lines it has is kept."""
    place.write(row("a"), FILE)
    place.load()
    os.utime(place.folder / FILE, (1, 1))
    assert not place.load().batch
    place.write(row("a") + row("b"), FILE)
    assert grown(place) == 1


def test_in_upsert_mode_every_row_is_looked_at(place: Pipeline) -> None:
    """Rows of earlier files are remembered there, too, and must not count as shown."""
    place.configure(location=FILE, mode="upsert")
    place.write(row("a"), FILE)
    place.load()
    place.write(row("b"), FILE)
    place.load()
    place.write(row("b") + row("a", 2), FILE)
    place.load()
    place.write(row("b") + row("a", 2) + row("a", 1).strip(), FILE)
    place.load()
    place.write(row("b") + row("a", 1), FILE)
    place.load()
    assert json.loads(place.records()["a"])["n"] == 1


def test_quarantine_follows_a_source_that_comes_back(place: Pipeline) -> None:
    """A file that a guard refused, or that never got to the store, changed the quarantine: the old one counts again."""
    old = row("a") + row("b", 2) + row("b", 3)
    place.write(old, FILE)
    place.load()
    before = outcome(place)
    place.write("\n", FILE)
    assert outcome(place) == ("Refused",)
    with place.workspace.database(read_only=True) as db:
        assert not ledger.open_items(db)
    place.write(old, FILE)
    assert outcome(place) == before
    place.write(row("a", 2) + "{\n", FILE)
    ingest(place.workspace, "things", "dies before the store")
    place.write(old, FILE)
    assert outcome(place) == before


LINES = st.sampled_from([row("a"), row("b"), row("c"), row("a", 2), row("b", 2), "{\n", "\n", row("d", "x")])
EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(LINES, min_size=1, max_size=3)),
        st.tuples(st.just("cut"), st.integers(0, 3)),
        st.tuples(st.just("new"), st.lists(LINES, min_size=1, max_size=3)),
    ),
    min_size=2,
    max_size=6,
)


@given(EDITS)
def test_a_history_of_edits_is_what_whole_looks_give(edits: list[tuple[str, Any]]) -> None:
    """After each edit the records and the refusals are those of a source that is read whole each time."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        growing, whole = fresh(Path(one)), fresh(Path(two))
        lines: list[str] = [row("z")]
        for what, more in edits:
            kept = lines[: len(lines) - more] if what == "cut" else lines if what == "add" else []
            lines = kept + ([] if what == "cut" else more) or [row("z")]
            for place in (growing, whole):
                place.write("".join(lines), FILE)
            with whole.workspace.database() as db:
                db.execute("UPDATE source_state SET rules = '', fingerprint = '', digest = ''")
            outcomes = [outcome(place) for place in (growing, whole)]
            assert outcomes[0] == outcomes[1]
            assert growing.records() == whole.records()


def outcome(place: Pipeline) -> tuple[Any, ...]:
    try:
        found = place.load()
    except AutoSyncError as error:
        return (type(error).__name__,)
    counts = found.counts
    with place.workspace.database(read_only=True) as db:
        waiting = db.execute("SELECT place, reason FROM quarantine WHERE state = 'open' ORDER BY place").fetchall()
    return counts.inserted, counts.updated, counts.deleted, waiting
