"""A folder of many files: only files that changed are read, and the outcome is as if all had been.

Whether a file was read shows by a change that its size, time and inode don't tell: it is seen only if it was.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autosync.errors import SourceError, SourceUnavailable
from autosync.settings import Source
from blocks.sources.listing import list_folder
from blocks.sources.reader import Context, NothingKnown, Previous, Reading
from blocks.sources.registry import reader_of
from blocks.store import batches, ledger
from blocks.store import file_states as parts
from blocks.store.schema import transaction
from flows.operations.plan import describe
from tests.pipeline import Pipeline

LONG_AGO = 1_700_000_000


def write(place: Pipeline, name: str, rows: list[Any], age: float = 100.0) -> Path:
    """Write a file of the folder, last changed some seconds ago."""
    path = place.folder / "things" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows) or "\n"
    path.write_text(lines if name.endswith("l") else json.dumps(rows))
    at = time.time() - age
    os.utime(path, (at, at))
    return path


def write_secretly(path: Path, old: str, new: str) -> None:
    """Change a file without its size, time or inode telling."""
    info, text = path.stat(), path.read_text()
    assert old in text and len(old) == len(new)
    with path.open("r+") as handle:
        handle.write(text.replace(old, new))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


@pytest.fixture
def place(tmp_path: Path) -> Pipeline:
    """Three files with two records each, synced."""
    pipeline = Pipeline(tmp_path)
    pipeline.configure(location="things", guard={"max_delete": 1.0, "max_refuse": 1.0})
    for n, name in enumerate(("a.json", "b.jsonl", "deep/c.json")):
        write(pipeline, name, [{"id": f"{n}x", "v": 1}, {"id": f"{n}y", "v": 1}])
    pipeline.run()
    return pipeline


def value(place: Pipeline, id: str) -> int:
    """The field v of a record."""
    return int(json.loads(place.records()[id])["v"])


def quarantined(place: Pipeline) -> list[dict[str, Any]]:
    """The refused rows."""
    with place.workspace.database() as db:
        return ledger.open_items(db)


def test_a_changed_file_is_read_alone(place: Pipeline) -> None:
    """The others' rows count as seen: nothing is deleted, nothing of them is read."""
    write_secretly(place.folder / "things" / "a.json", '"v": 1', '"v": 8')
    write(place, "b.jsonl", [{"id": "1x", "v": 2}, {"id": "1y", "v": 1}], age=50)
    counts = place.run().found.counts
    assert (counts.updated, counts.deleted, counts.unchanged) == (1, 0, 5)
    assert (value(place, "1x"), value(place, "0x")) == (2, 1)
    assert place.verify()["equal"] is True


def test_nothing_is_read_when_no_file_changed(place: Pipeline) -> None:
    """The stats alone decide."""
    for path in (place.folder / "things").rglob("*.json"):
        write_secretly(path, '"v": 1', '"v": 8')
    assert place.run().found.batch == ""


def test_a_file_written_when_it_was_looked_at_is_read_again(place: Pipeline) -> None:
    """A second write may come before the clock of the file system moves on."""
    path = write(place, "a.json", [{"id": "0x", "v": 3}, {"id": "0y", "v": 1}], age=0)
    place.run()
    write_secretly(path, '"v": 3', '"v": 4')
    write(place, "b.jsonl", [{"id": "1x", "v": 2}, {"id": "1y", "v": 1}], age=50)
    place.run()
    assert (value(place, "0x"), value(place, "1x")) == (4, 2)


def test_a_file_that_was_only_touched_is_not_parsed_again(place: Pipeline) -> None:
    """Its content's digest says that its rows are as they were; from then on its new time is known."""
    path = place.folder / "things" / "a.json"
    os.utime(path, (LONG_AGO, LONG_AGO))
    write(place, "b.jsonl", [{"id": "1x", "v": 2}, {"id": "1y", "v": 1}], age=50)
    assert place.run().found.counts.updated == 1
    write_secretly(path, '"v": 1', '"v": 8')
    write(place, "b.jsonl", [{"id": "1x", "v": 3}, {"id": "1y", "v": 1}], age=40)
    place.run()
    assert (value(place, "0x"), value(place, "1x")) == (1, 3)


def test_a_folder_that_was_only_touched_is_unchanged(place: Pipeline) -> None:
    """Nothing is staged or stored; from then on the new times are known, and nothing is read."""
    paths = sorted(path for path in (place.folder / "things").rglob("*.json*") if path.is_file())
    for path in paths:
        os.utime(path, (LONG_AGO, LONG_AGO))
    assert place.run().found.batch == "" and not list(place.workspace.home.staging.iterdir())
    write_secretly(paths[0], '"v": 1', '"v": 8')
    assert place.run().found.batch == "" and value(place, "0x") == 1


def test_a_removed_file_takes_its_records_along(place: Pipeline) -> None:
    """Deletes are exact while the other files aren't read; what is kept of the file goes too."""
    (place.folder / "things" / "a.json").unlink()
    write_secretly(place.folder / "things" / "deep" / "c.json", '"v": 1', '"v": 8')
    assert place.run().found.counts.deleted == 2
    assert sorted(place.records()) == ["1x", "1y", "2x", "2y"] and value(place, "2x") == 1
    with place.workspace.database() as db:
        assert sorted(parts.kept(db, "things")) == ["things/b.jsonl", "things/deep/c.json"]


def test_a_record_that_moves_to_another_file_stays(place: Pipeline) -> None:
    """Moved as it is, it is unchanged; moved and changed, it is an update and no delete."""
    write(place, "a.json", [{"id": "0x", "v": 1}], age=50)
    write(place, "new.json", [{"id": "0y", "v": 1}], age=50)
    assert place.run().found.counts.changed == 0
    write(place, "a.json", [], age=40)
    write(place, "new.json", [{"id": "0y", "v": 1}, {"id": "0x", "v": 2}], age=40)
    counts = place.run().found.counts
    assert (counts.inserted, counts.updated, counts.deleted) == (0, 1, 0)


def test_a_key_that_an_unread_file_has_is_refused(place: Pipeline) -> None:
    """Two files with one key and different content: refused though one of them wasn't read; again until corrected."""
    write(place, "b.jsonl", [{"id": "1x", "v": 1}, {"id": "0x", "v": 7}], age=50)
    counts = place.run().found.counts
    assert (counts.quarantined, value(place, "0x")) == (1, 1)
    write(place, "deep/c.json", [{"id": "2x", "v": 5}, {"id": "2y", "v": 1}], age=40)
    assert place.run().found.counts.quarantined == 1
    assert [item["place"] for item in quarantined(place)] == ["things/b.jsonl, line 2"]
    write(place, "b.jsonl", [{"id": "1x", "v": 1}], age=30)
    place.run()
    assert quarantined(place) == [] and sorted(place.records()) == ["0x", "0y", "1x", "2x", "2y"]


def test_a_refused_row_is_looked_at_with_every_run(place: Pipeline) -> None:
    """A file with a refused row is read again: its row stays in quarantine, its record isn't deleted."""
    place.configure(
        location="things", expect={"types": {"/v": "integer"}}, guard={"max_delete": 1.0, "max_refuse": 1.0}
    )
    write(place, "a.json", [{"id": "0x", "v": "one"}, {"id": "0y", "v": 1}], age=50)
    place.run()
    write(place, "b.jsonl", [{"id": "1x", "v": 2}, {"id": "1y", "v": 1}], age=40)
    counts = place.run().found.counts
    assert (counts.quarantined, counts.deleted, value(place, "0x")) == (1, 0, 1)
    assert [item["place"] for item in quarantined(place)] == ["things/a.json, /0"]


def test_other_rules_read_every_file(place: Pipeline) -> None:
    """What other checks made of a file says nothing."""
    place.configure(location="things", expect={"ranges": {"/v": [0, 0]}}, guard={"max_delete": 1.0, "max_refuse": 1.0})
    assert place.run().found.counts.quarantined == 6


def test_a_file_whose_rows_were_forgotten_is_read(place: Pipeline) -> None:
    """What something else changed in the store is looked at again, in the files that it came from."""
    with place.workspace.database() as db, transaction(db):
        rec = db.execute("SELECT rec FROM record WHERE id = '0x'").fetchone()[0]
        batches.forget_rows(db, "things", np.array([rec], np.int64))
    write_secretly(place.folder / "things" / "a.json", '"v": 1', '"v": 8')
    write_secretly(place.folder / "things" / "deep" / "c.json", '"v": 1', '"v": 8')
    place.run()
    assert (value(place, "0x"), value(place, "2x")) == (8, 1)


def test_a_database_without_the_table_is_opened(place: Pipeline) -> None:
    """A database that an earlier version made gets it; a plan reads such a database as it is."""
    with place.workspace.database() as db:
        db.execute("DROP TABLE seen_part")
    write(place, "b.jsonl", [{"id": "1x", "v": 2}, {"id": "1y", "v": 1}], age=50)
    assert describe(place.workspace, "things")["updated"] == 1
    assert place.run().found.counts.updated == 1
    with place.workspace.database() as db:
        assert len(parts.kept(db, "things")) == 3


def test_a_source_of_one_file_keeps_no_files(place: Pipeline) -> None:
    """A folder that became a file leaves nothing behind."""
    shutil.move(place.folder / "things" / "a.json", place.folder / "things.json")
    place.configure(location="things.json", guard={"max_delete": 1.0})
    place.run()
    with place.workspace.database() as db:
        assert parts.kept(db, "things") == {}


def test_a_file_that_changes_while_the_folder_is_read_is_told(place: Pipeline) -> None:
    """Every file is looked at again after it was read."""
    path = write(place, "a.json", [{"id": "0x", "v": 3}], age=50)
    opened = reader_of(place.workspace.source("things"), Context(place.folder, place.folder)).look(Previous())
    assert isinstance(opened, Reading)
    os.utime(path, (LONG_AGO, LONG_AGO))
    with pytest.raises(SourceUnavailable, match="changed while it was read"):
        list(opened.blocks(NothingKnown()))


def test_a_bad_file_among_unread_ones_refuses_the_folder(place: Pipeline) -> None:
    """It is named; afterwards the others still needn't be read."""
    write(place, "b.jsonl", [{"id": "1x", "v": 2}], age=50)
    (place.folder / "things" / "bad.json").write_text("[{")
    with pytest.raises(SourceError, match=r"truncated.*things/bad\.json"):
        place.run()
    (place.folder / "things" / "bad.json").unlink()
    write_secretly(place.folder / "things" / "a.json", '"v": 1', '"v": 8')
    assert place.run().found.counts.updated == 1
    assert value(place, "0x") == 1


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems refuse such names themselves")
@pytest.mark.parametrize("name", ["bad\udcff.json", "fol\udcfeder/other.json"])
def test_a_name_that_is_no_text_refuses_the_folder(place: Pipeline, name: str) -> None:
    """Of a file or a folder, among others: the error shows it, nothing is changed, and renamed it is read."""
    before, path = place.records(), write(place, name, [{"id": "new"}])
    with pytest.raises(SourceError, match="not encoded in UTF-8") as caught:
        place.load()
    assert caught.value.where == "things/" + os.fsencode(name).decode(errors="backslashreplace")
    assert "\\xf" in caught.value.where and place.records() == before
    path.replace(place.folder / "things" / "good.json")
    place.load()
    assert set(place.records()) == {*before, "new"}


def test_the_only_file_of_a_folder_may_lie_deeper_and_grow(place: Pipeline) -> None:
    """One file below a subfolder is read on from where it ended, as one that stands at the top."""
    shutil.rmtree(place.folder / "things")
    write(place, "deep/only.jsonl", [{"id": "p", "v": 1}])
    place.run()
    write(place, "deep/only.jsonl", [{"id": "p", "v": 1}, {"id": "q", "v": 2}], age=50)
    assert place.run().found.counts.inserted == 1
    assert (value(place, "p"), value(place, "q")) == (1, 2)


NAMES = ("a.json", "b.jsonl", "c.json", "d/e.json")
contents = st.dictionaries(st.sampled_from("pqrstu"), st.integers(0, 2), max_size=4)
steps = st.lists(st.dictionaries(st.sampled_from(NAMES), st.none() | contents, min_size=1), min_size=1, max_size=6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps, st.lists(st.sampled_from([0.0, 50.0]), min_size=6, max_size=6))
def test_random_folders_give_what_reading_all_gives(
    tmp_path: Path, history: list[dict[str, dict[str, int] | None]], ages: list[float]
) -> None:
    """At last the records are those of a home that reads the folder for the first time, and those of keys that
    clash: they stay as they were."""
    place, fresh = Pipeline(tmp_path / "place"), Pipeline(tmp_path / "fresh")
    for one in (place, fresh):
        shutil.rmtree(one.folder, ignore_errors=True)
        (one.folder / "things").mkdir(parents=True)
        one.configure(location="things", guard={"max_delete": 1.0, "max_refuse": 1.0})
    write(place, "kept.json", [{"id": "kept", "v": 0}])
    for step, age in zip(history, ages, strict=False):
        for name, rows in step.items():
            if rows is None:
                (place.folder / "things" / name).unlink(missing_ok=True)
            else:
                write(place, name, [{"id": id, "v": v} for id, v in rows.items()], age=age)
        place.load()
    shutil.rmtree(fresh.folder / "things")
    shutil.copytree(place.folder / "things", fresh.folder / "things")
    fresh.load()
    clashing = {item["id"] for item in quarantined(fresh)}
    assert {id: doc for id, doc in place.records().items() if id not in clashing} == fresh.records()
    assert {item["id"] for item in quarantined(place)} <= clashing


LEAVES = st.sampled_from(["a.json", "a-.json", "ab.jsonl", "z.json", "notes.txt"])
FOLDERS = st.lists(st.sampled_from(["a", "a-b", "ab", "b.json"]), max_size=3)


@given(st.sets(st.tuples(FOLDERS.map(tuple), LEAVES), min_size=1))
def test_files_come_in_the_order_of_their_paths(tree: set[tuple[tuple[str, ...], str]]) -> None:
    """All JSON files of a tree, in the order of their paths as text, with their facts; what a link leads to counts as a
    file, and a folder that is there already doesn't count again."""
    with TemporaryDirectory() as name:
        base = Path(name)
        made = [base.joinpath("things", *folders, leaf) for folders, leaf in tree]
        for path in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("[]" + " " * made.index(path))
        (base / "things" / "link.json").symlink_to(made[0])
        (base / "things" / "elsewhere").symlink_to(made[0].parent)
        facts = {str(path.relative_to(base)): path.stat() for path in [*made, base / "things" / "link.json"]}
        found = list_folder(Source(name="things", location="things", key="/id"), base).files()
    wanted = sorted((shown, info) for shown, info in facts.items() if not shown.endswith(".txt"))
    assert list(found.items()) == [(shown, (info.st_size, info.st_mtime_ns, info.st_ino)) for shown, info in wanted]
