"""A damaged database: found, named, and made anew from the mirror or the repository; and a damaged mirror."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosync.errors import AutoSyncError, ConfigError, MirrorDamaged, Refused, StoreError
from autosync.records import canonical
from blocks.store import history
from flows.operations.health import check_database
from flows.operations.rebuild import rebuild_store
from flows.operations.restore import write_collection
from flows.operations.verify import repair_mirrors
from tests.pipeline import Pipeline

PLACES = ["mirror", "repo"]
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
    place.write(list(records.values()))
    return place.run().pushed.seq


def text(records: Records) -> bytes:
    return b"".join(canonical(records[id]) + b"\n" for id in sorted(records))


def many(n: int) -> Records:
    return {f"{i:04d}": {"id": f"{i:04d}", "n": n, "in": {"x": i}} for i in range(400)}


def junk(path: Path) -> None:
    data = bytearray(path.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 8192] = b"\xa5" * 8192
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


HARMS: dict[str, Callable[[Path], object]] = {
    "junk in the middle": junk,
    "cut in half": truncate,
    "another file": lambda path: path.write_text("this is no database " * 500),
    "deleted": Path.unlink,
}


def settle(place: Pipeline) -> None:
    """Bring everything into the one file, as time does."""
    with place.workspace.database() as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for end in ("-wal", "-shm"):
        place.workspace.home.database.with_name(place.workspace.home.database.name + end).unlink(missing_ok=True)


@pytest.mark.parametrize("source", PLACES)
@pytest.mark.parametrize("harm", HARMS.values(), ids=list(HARMS))
def test_a_damaged_store_is_made_anew(place: Pipeline, source: str, harm: Callable[[Path], object]) -> None:
    """Equal to mirror and repository; the old file is kept; the next sync changes nothing, a later one goes on."""
    first, second = many(0), many(1) | {"x": {"id": "x"}}
    seqs = [sync(place, first), sync(place, second)]
    settle(place)
    commits = place.git("rev-list", "--count", "HEAD")
    harm(place.workspace.home.database)
    there = place.workspace.home.database.exists()
    done = rebuild_store(place.workspace, source)
    assert bool(done["aside"]) == there == bool(done["aside"] and Path(done["aside"]).exists())
    steps, since = (2, seqs[0]) if source == "mirror" else (1, seqs[1])
    assert done["collections"] == [
        {"collection": "things", "records": 401, "seq": seqs[1], "steps": steps, "since": since}
    ]
    assert place.verify()["equal"]
    assert place.run().found.counts.changed == 0
    assert place.git("rev-list", "--count", "HEAD") == commits
    assert sync(place, second | {"y": {"id": "y"}}) == seqs[1] + 1
    assert int(place.git("rev-list", "--count", "HEAD")) == int(commits) + 1
    assert place.verify()["equal"]


def test_damage_is_found_and_said(place: Pipeline) -> None:
    """verify and health name it and the command that helps; reading says it instead of failing with a trace."""
    sync(place, many(0))
    settle(place)
    junk(place.workspace.home.database)
    try:
        said = " ".join(place.verify()["problems"])
    except StoreError as error:
        said = str(error)
    assert "damaged" in said and "autosync rebuild" in said
    try:
        status, told = check_database(place.workspace)
    except StoreError as error:
        status, told = "error", str(error)
    assert status == "error" and "autosync rebuild" in told


def test_the_log_goes_back_as_far_as_the_mirror(place: Pipeline) -> None:
    """Every state that the mirror knows is the same from the new store, with its seq and time."""
    states = [many(0), many(1), {"a": {"id": "a"}}, many(1)]
    seqs = [sync(place, state) for state in states]
    with place.workspace.database(read_only=True) as db:
        times = dict(db.execute("SELECT last_seq, time FROM batch").fetchall())
    place.workspace.home.database.unlink()
    rebuild_store(place.workspace, "mirror")
    out = place.folder / "out.jsonl"
    for seq, state in zip(seqs, states, strict=True):
        write_collection(place.workspace, "things", str(seq), str(out))
        assert out.read_bytes() == text(state)
    with place.workspace.database(read_only=True) as db:
        assert dict(db.execute("SELECT last_seq, time FROM batch").fetchall()) == times
        assert {row["origin"] for row in history.changes(db)} == {"rebuild"}
        assert db.execute("SELECT count(in_x) FROM things").fetchone() == (400,)


STATES = st.lists(
    st.tuples(st.booleans(), st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 2), min_size=1)),
    min_size=1,
    max_size=6,
)


@given(STATES)
def test_random_histories_of_two_collections(states: list[tuple[bool, dict[str, int]]]) -> None:
    """Whatever happened in whatever order, the new store's states are those of the old one, seq by seq."""
    with tempfile.TemporaryDirectory() as folder:
        place, known = fresh(Path(folder)), dict[tuple[str, int], bytes]()
        source = '[[source]]\nname = "{0}"\nlocation = "{0}.json"\nkey = "/id"\nguard = {{max_delete = 1.0}}\n'
        (place.folder / "autosync.toml").write_text(source.format("one") + source.format("two"))
        for first, state in states:
            name = "one" if first else "two"
            records = {id: {"id": id, "n": n} for id, n in state.items()}
            (place.folder / f"{name}.json").write_text(json.dumps(list(records.values())))
            seq = place.run(source=name).pushed.seq
            known[name, seq] = text(records)
        settle(place)
        place.workspace.home.database.unlink()
        rebuild_store(place.workspace)
        out = place.folder / "out.jsonl"
        for (name, seq), data in known.items():
            write_collection(place.workspace, name, str(seq), str(out))
            assert out.read_bytes() == data
        assert place.verify()["equal"]


def test_a_whole_store_is_not_replaced(place: Pipeline) -> None:
    """Unless one insists; then the present file is kept aside, too."""
    sync(place, many(0))
    with pytest.raises(Refused, match="whole"):
        rebuild_store(place.workspace)
    assert Path(rebuild_store(place.workspace, force=True)["aside"]).exists()
    assert place.verify()["equal"]


def test_a_damaged_place_replaces_nothing(place: Pipeline) -> None:
    """A mirror that can't be proven is named, and the damaged database stays for another try from the repository."""
    sync(place, many(0))
    settle(place)
    junk(place.workspace.home.database)
    before = place.workspace.home.database.read_bytes()
    (file,) = (place.workspace.home.mirror / "things" / "current").iterdir()
    file.write_bytes(file.read_bytes().replace(b'"n":0', b'"n":1', 1))
    with pytest.raises(MirrorDamaged, match="not what the manifest says"):
        rebuild_store(place.workspace, "mirror")
    assert place.workspace.home.database.read_bytes() == before
    assert not list(place.workspace.home.path.glob("*.new*"))
    rebuild_store(place.workspace, "repo")
    assert place.run().mirrored.rebuilt == [file.name]
    assert place.verify()["equal"]


def test_places_that_have_nothing_say_so(place: Pipeline) -> None:
    """No mirror, no commit, no such place, no such collection."""
    for source in [*PLACES, "moon"]:
        with pytest.raises(ConfigError):
            rebuild_store(place.workspace, source)
    sync(place, many(0))
    for source in PLACES:
        with pytest.raises(AutoSyncError):
            rebuild_store(place.workspace, source, ("others",), force=True)
    assert place.verify()["equal"]


def test_damaged_mirror_files_are_made_again_on_demand(place: Pipeline) -> None:
    """verify --repair proves every file, whatever its stats say."""
    sync(place, many(0))
    (file,) = (place.workspace.home.mirror / "things" / "current").iterdir()
    stat, data = file.stat(), bytearray(file.read_bytes())
    data[100] ^= 1
    with file.open("r+b") as handle:
        handle.write(data)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert not place.verify()["equal"]
    assert repair_mirrors(place.workspace) == [f"things/{file.name}"]
    assert place.verify()["equal"]
    assert repair_mirrors(place.workspace) == []
