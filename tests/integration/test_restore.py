"""Restoring: a collection as it was, from the store, the mirror or the repository; to a file, or back again."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosync.errors import ConfigError, MirrorDamaged, Refused
from autosync.ports import Commit
from autosync.records import canonical
from blocks.mirror.versions import chain
from flows.operations.mirror import mirror
from flows.operations.overrides import Restored
from flows.operations.plan import describe
from flows.operations.push import open_remote
from flows.operations.restore import write_collection
from tests.pipeline import Pipeline

PLACES = ["store", "mirror", "repo"]
Records = dict[str, dict[str, Any]]


@pytest.fixture
def place(tmp_path: Path) -> Pipeline:
    """A home without records; everything may be deleted."""
    return fresh(tmp_path)


def fresh(folder: Path) -> Pipeline:
    pipeline = Pipeline(folder)
    pipeline.configure(guard={"max_delete": 1.0})
    return pipeline


def sync(place: Pipeline, records: Records) -> int:
    """Make the collection these records; its newest seq."""
    place.write(list(records.values()))
    return place.run().pushed.seq


def text(records: Records) -> bytes:
    """The canonical JSON Lines of records."""
    return b"".join(canonical(records[id]) + b"\n" for id in sorted(records))


def restored(place: Pipeline, source: str, as_of: str = "") -> tuple[bytes, dict[str, Any]]:
    path = place.folder / "out.jsonl"
    done = write_collection(place.workspace, "things", as_of, str(path), source)
    return path.read_bytes(), done


def record(id: str, n: int) -> dict[str, Any]:
    return {"id": id, "n": n}


IDS = st.sampled_from("abcdefgh")
STATES = st.lists(st.dictionaries(IDS, st.integers(0, 3), min_size=1), min_size=1, max_size=5)


@given(STATES)
def test_every_state_comes_back_from_every_place(states: list[dict[str, int]]) -> None:
    """After each sync, each seq that was pushed gives the same bytes from store, mirror and repository."""
    with tempfile.TemporaryDirectory() as folder:
        place, known = fresh(Path(folder)), dict[int, Records]()
        for state in states:
            records = {id: record(id, n) for id, n in state.items()}
            known[sync(place, records)] = records
        for seq, records in known.items():
            for source in PLACES:
                data, done = restored(place, source, str(seq))
                assert (data, done["seq"], done["records"]) == (text(records), seq, len(records))


def many(n: int) -> Records:
    return {f"{i:04d}": record(f"{i:04d}", n) for i in range(300)}


@pytest.mark.parametrize("source", PLACES)
def test_many_records_in_several_files(place: Pipeline, source: str) -> None:
    """Crossing from one file to many and back, with inserts before, between and behind."""
    states = [many(0), {"0150": record("0150", 1)}, many(1) | {"00": record("00", 0), "x": record("x", 0)}, {}]
    seqs = [sync(place, state) for state in states[:3]]
    for seq, state in zip(seqs, states, strict=False):
        assert restored(place, source, str(seq))[0] == text(state)
    assert restored(place, source)[0] == text(states[2])


@pytest.mark.parametrize("source", PLACES)
def test_a_time_gives_the_state_then(place: Pipeline, source: str) -> None:
    """All three date a state by when it was stored."""
    sync(place, {"a": record("a", 1)})
    with place.workspace.database() as db:
        db.execute("UPDATE batch SET time = 1700000000")
        db.execute("DELETE FROM consumer")
    for path in (place.workspace.home.mirror, place.workspace.home.repository):
        path.rename(path.with_suffix(".old"))
    place.run()
    sync(place, {"a": record("a", 2)})
    assert restored(place, source, "2023-11-14T22:13:20")[0] == text({"a": record("a", 1)})
    assert restored(place, source, "2033-01-01")[0] == text({"a": record("a", 2)})


@pytest.mark.parametrize("source", ["mirror", "repo"])
def test_a_state_in_between_is_the_one_before_and_says_so(place: Pipeline, source: str) -> None:
    """Mirror and repository know the states that were mirrored and pushed."""
    first, second = {"a": record("a", 1)}, {id: record(id, 2) for id in "abcd"}
    sync(place, first)
    sync(place, second)
    data, done = restored(place, source, "3")
    assert (data, done["seq"], done["asked"]) == (text(first), 1, 3)
    assert "asked" not in restored(place, source, "5")[1]
    with pytest.raises(ConfigError, match="reaches back to seq 1"):
        restored(place, source, "0")


@pytest.mark.parametrize("source", ["mirror", "repo"])
def test_the_store_is_not_needed(place: Pipeline, source: str) -> None:
    """With the database gone, mirror and repository still give everything."""
    records = many(0)
    sync(place, records)
    sync(place, many(1))
    for path in place.workspace.home.path.glob("autosync.db*"):
        path.unlink()
    assert restored(place, source, "300")[0] == text(records)


def test_a_damaged_mirror_gives_no_file(place: Pipeline) -> None:
    """A changed file, a version that says otherwise, a missing version: an error that names it, and nothing written."""
    sync(place, many(0))
    sync(place, many(1))
    folder = place.workspace.home.mirror / "things"
    (version,) = (one.path for one in chain(folder, 600))
    out = place.folder / "out.jsonl"

    def refused(as_of: str, what: str) -> None:
        with pytest.raises((MirrorDamaged, ConfigError), match=what):
            restored(place, "mirror", as_of)
        assert not out.exists()

    good = version.read_bytes()
    version.write_bytes(good.replace(b'"n":0', b'"n":9', 1))
    refused("300", "not what it was")
    version.unlink()
    refused("300", "reaches back to seq 600")
    version.write_bytes(good)
    (current,) = (folder / "current").iterdir()
    current.write_bytes(current.read_bytes().replace(b'"n":1', b'"n":7', 1))
    refused("300", "not what the manifest says")
    (folder / "manifest.json").unlink()
    refused("300", "no mirror")


def test_a_repository_that_somebody_edited_gives_no_file(place: Pipeline) -> None:
    """A commit of ours whose files can't be what its trailer says is not believed."""
    sync(place, {"a": record("a", 1)})
    remote = open_remote(place.workspace)
    head = remote.head()
    assert head is not None
    manifest = remote.read("things/manifest.json")
    assert manifest is not None
    files = {"things/records.jsonl": b'{"id":"a","n":5}\n', "things/manifest.json": manifest + b"\n"}
    remote.commit(Commit("edited", tuple(head.trailers.items()), files.items(), time=head.time), parent=head.sha)
    with pytest.raises(MirrorDamaged, match="root differs"):
        restored(place, "repo")


@pytest.mark.parametrize("source", PLACES)
def test_apply_writes_a_state_back_as_ordinary_changes(place: Pipeline, source: str) -> None:
    """Inserts, updates and deletes of origin restore, mirrored and pushed; what came after stays in the log."""
    before = {id: record(id, 1) for id in "abc"}
    after = {"b": record("b", 1), "c": record("c", 2), "d": record("d", 2)}
    seq = sync(place, before)
    newest = sync(place, after)
    override = Restored(as_of=str(seq), place=source)  # type: ignore[arg-type]  # one of the three
    plan = describe(place.workspace, "things", override)
    assert [plan[name] for name in ("inserted", "updated", "deleted")] == [1, 1, 1]
    done = place.run(override=override)
    assert (done.found.counts.inserted, done.found.counts.updated, done.found.counts.deleted) == (1, 1, 1)
    assert place.records() == {id: canonical(one).decode() for id, one in before.items()}
    assert place.verify()["equal"]
    with place.workspace.database(read_only=True) as db:
        log = db.execute("SELECT op, id, origin FROM change_log WHERE seq > ? ORDER BY id", [newest]).fetchall()
    assert log == [("insert", "a", "restore"), ("update", "c", "restore"), ("delete", "d", "restore")]
    assert restored(place, "store", str(newest))[0] == text(after)


def test_after_apply_the_source_has_its_say_again(place: Pipeline) -> None:
    """The next sync reads every row that the restore undid: inserts, updates and deletes alike."""
    sync(place, {id: record(id, 1) for id in "abc"})
    after = {"b": record("b", 1), "c": record("c", 2), "d": record("d", 2)}
    sync(place, after)
    place.run(override=Restored(as_of="3"))
    place.run()
    assert place.records() == {id: canonical(one).decode() for id, one in after.items()}


def test_apply_obeys_the_delete_guard(place: Pipeline) -> None:
    """It is refused with the code that lets this very state pass, and the command to give it to."""
    sync(place, {"a": record("a", 1)})
    sync(place, many(1))
    place.configure(guard={"max_delete": 0.1})
    with pytest.raises(Refused, match=r"autosync restore things --as-of 1 --from store --apply --accept") as caught:
        place.run(override=Restored(as_of="1"))
    code = str(caught.value).rsplit("--accept ", 1)[1].split()[0].rstrip(".")
    assert place.run(accept=code, override=Restored(as_of="1")).found.counts.deleted == 300


def test_apply_takes_records_that_todays_checks_would_refuse(place: Pipeline) -> None:
    """They were right then; the whole state comes back, and quarantine is left alone."""
    sync(place, {"a": record("a", 1), "b": record("b", 100)})
    sync(place, {"a": record("a", 1)})
    place.configure(guard={"max_delete": 1.0}, expect={"ranges": {"/n": [0, 10]}})
    assert place.run(override=Restored(as_of="2")).found.counts.inserted == 1
    assert set(place.records()) == {"a", "b"}


@pytest.mark.parametrize("source", PLACES)
@pytest.mark.parametrize(("as_of", "what"), [("yesterday", "neither a seq nor a time"), ("", "no .*others")])
def test_what_can_not_be_had_is_said(place: Pipeline, source: str, as_of: str, what: str) -> None:
    """An unreadable moment, and a collection that isn't there."""
    sync(place, {"a": record("a", 1)})
    name = "things" if as_of else "others"
    with pytest.raises((ConfigError, MirrorDamaged), match=what if as_of else r"no collection|no mirror|no commit"):
        write_collection(place.workspace, name, as_of, str(place.folder / "out.jsonl"), source)


def test_the_mirror_is_as_old_as_its_newest_change(place: Pipeline) -> None:
    """Its manifest and the commit carry the time of the batch, so that a time means the same in all places."""
    sync(place, {"a": record("a", 1)})
    with place.workspace.database(read_only=True) as db:
        time = db.execute("SELECT time FROM batch").fetchone()[0]
    manifest = msgspec.json.decode((place.workspace.home.mirror / "things" / "manifest.json").read_bytes())
    assert manifest["time"] == time
    assert int(place.git("log", "-1", "--format=%ct")) == int(time)
    assert mirror(place.workspace, "things").written == 0
