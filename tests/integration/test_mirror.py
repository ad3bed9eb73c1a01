"""The mirror: few files, each proven by its hash, the same for the same records, and a way back to every version."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosync.errors import MirrorDamaged, StoreError
from autosync.shards import MIRROR_BITS, level
from blocks.mirror import update as files
from blocks.mirror.files import Manifest, read_manifest
from blocks.store import ledger
from flows.operations.mirror import Mirrored, mirror
from flows.operations.verify import repair_mirrors
from flows.workspace import now
from tests.pipeline import Pipeline

FILL = [f"k{n:03d}" for n in range(300)]


# Ids at which a file of the mirror begins (one in 16,384 does): before, between and after the others.
BEGIN = "a70831 a71503 a72123 k84737 k86505 z17920 z29184 z32279".split()


@pytest.fixture
def place(tmp_path: Path) -> Pipeline:
    """A home without records; everything may be deleted."""
    return fresh(tmp_path)


def fresh(folder: Path) -> Pipeline:
    folder.mkdir(exist_ok=True)
    pipeline = Pipeline(folder)
    pipeline.configure(guard={"max_delete": 1.0})
    return pipeline


def sync(place: Pipeline, ids: list[str] | set[str], **more: Any) -> Mirrored:
    """Make the collection these records and mirror it."""
    place.write([{"id": id, **more} for id in sorted(ids)])
    place.load()
    return mirror(place.workspace, "things")


def current(place: Pipeline) -> dict[str, bytes]:
    """The mirror's files by name."""
    folder = place.workspace.home.mirror / "things" / "current"
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def manifest(place: Pipeline) -> Manifest:
    found = read_manifest(place.workspace.home.mirror / "things")
    assert found is not None
    return found


def repair(place: Pipeline) -> tuple[str, ...]:
    """What `verify --repair` does to one collection."""
    with place.workspace.database() as db:
        target = place.workspace.target(db, place.workspace.source("things"))
        assert target is not None
        upto, records = ledger.newest_seq(db, target.collection), len(place.records())
        return files.repair(db, target, upto=upto, records=records, now=now())


@given(
    st.lists(st.tuples(st.sets(st.integers(0, 7)), st.integers(240, 290), st.integers(0, 2)), min_size=1, max_size=4)
)
def test_files_and_root_depend_on_the_records_alone(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[set[int], int, int]]
) -> None:
    """Whatever way led to the records, the files, their names and the root are those of a mirror made at once."""
    first = fresh(tmp_path_factory.mktemp("way"))
    for chosen, count, value in steps:
        ids = FILL[:count] + [BEGIN[n] for n in chosen]
        done = sync(first, ids, n=value)
    other = fresh(tmp_path_factory.mktemp("once"))
    assert sync(other, ids, n=value).root == done.root
    assert current(first) == current(other)
    assert [shard[0] for shard in manifest(first).shards] == [shard[0] for shard in manifest(other).shards]


def test_the_manifest_proves_every_file(place: Pipeline) -> None:
    """Records, bytes and SHA-256 of each file, in key order; the root is the hash over those hashes."""
    sync(place, FILL + BEGIN)
    found, held = manifest(place), current(place)
    assert all(level(id) >= MIRROR_BITS for id in BEGIN)
    assert len(found.shards) == len(held) == len(BEGIN)
    assert {shard.sha256 for shard in found.shards} == {sha256(data).hexdigest() for data in held.values()}
    assert sum(shard.records for shard in found.shards) == found.records == len(place.records())
    assert found.root == sha256(b"".join(bytes.fromhex(shard.sha256) for shard in found.shards)).hexdigest()
    lines = list(files.lines(place.workspace.home.mirror / "things", found))
    assert [line.decode() for line in lines] == [place.records()[id] for id in sorted(place.records())]


def test_only_files_that_changes_touch_are_written(place: Pipeline) -> None:
    """One changed record writes one file; no change writes none; the other files are not even opened for it."""
    ids = FILL + BEGIN
    sync(place, ids)
    folder = place.workspace.home.mirror / "things" / "current"
    before = {path.name: path.stat().st_ino for path in folder.iterdir()}
    assert mirror(place.workspace, "things").written == 0
    place.write([{"id": id} | ({"n": 1} if id == "k000" else {}) for id in sorted(ids)])
    place.load()
    assert mirror(place.workspace, "things").written == 1
    assert sum(before[path.name] != path.stat().st_ino for path in folder.iterdir()) == 1


def test_a_file_goes_with_its_first_key_and_comes_with_it(place: Pipeline) -> None:
    """A boundary that is deleted joins its file to the one before; when it comes back, so does the file."""
    ids = FILL + BEGIN
    sync(place, ids)
    with_all = current(place)
    for gone in BEGIN:
        sync(place, set(ids) - {gone})
        assert len(current(place)) == len(with_all) - 1
        sync(place, ids)
        assert current(place) == with_all


def test_every_version_can_be_had_back(place: Pipeline) -> None:
    """Going back through the kept versions gives each earlier state, byte for byte."""
    states, way = list[dict[str, str]](), random.Random(5)
    for n in range(6):
        sync(place, way.sample(FILL, way.randrange(1, 300)) + BEGIN, n=n % 2)
        states.append(place.records())
    held = dict(states[-1])
    versions = sorted((place.workspace.home.mirror / "things" / "versions").iterdir(), reverse=True)
    assert len(versions) == 5
    for path, then in zip(versions, reversed(states[:-1]), strict=True):
        header, *changes = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
        raw = [msgspec.json.decode(line, type=list[msgspec.Raw]) for line in path.read_bytes().splitlines()[1:]]
        for (id, _), (_, before) in zip(changes, raw, strict=True):
            held.pop(id, None)
            if bytes(before) != b"null":
                held[id] = bytes(before).decode()
        assert held == then and header["records"] == len(then)


def test_a_damaged_file_is_kept_aside_and_made_again(place: Pipeline) -> None:
    """A changed and a missing file are found by their hashes; the changed one is kept for people to look at."""
    sync(place, FILL + BEGIN)
    whole = current(place)
    folder = place.workspace.home.mirror / "things"
    one, two = sorted(whole)[:2]
    (folder / "current" / one).write_bytes(b"somebody was here\n")
    (folder / "current" / two).unlink()
    assert place.workspace.home.mirror.exists() and set(repair(place)) == {one, two}
    assert current(place) == whole
    assert [path.read_bytes() for path in (folder / "damaged").iterdir()] == [b"somebody was here\n"]
    assert repair(place) == ()


def test_damage_is_found_where_a_change_falls(place: Pipeline) -> None:
    """A file that was altered is not built upon: it is told, kept aside, and made from the store."""
    sync(place, FILL)
    (file,) = (place.workspace.home.mirror / "things" / "current").iterdir()
    file.write_bytes(file.read_bytes()[:-10])
    assert sync(place, FILL, n=1).rebuilt == [file.name]
    assert b"".join(current(place).values()).count(b"\n") == 300


def untouched(place: Pipeline) -> bool:
    """Whether a look at the mirror's files finds them as they were written."""
    with place.workspace.database() as db:
        target = place.workspace.target(db, place.workspace.source("things"))
        assert target is not None
        return files.untouched(target, ledger.cursor(db, "mirror", target.collection).info["stats"])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "harm",
    [
        flip,
        lambda path: path.write_bytes(path.read_bytes()[:-10]),
        Path.unlink,
        lambda path: path.write_bytes(path.read_bytes() + b'{"id":"by hand"}\n'),
    ],
    ids=["flipped bit", "truncated", "deleted", "edited by hand"],
)
def test_damage_is_found_where_nothing_changed(place: Pipeline, harm: Callable[[Path], object]) -> None:
    """A look at the files' stats tells that somebody wrote to one: it is proven, kept aside, and made again."""
    sync(place, FILL + BEGIN)
    whole = current(place)
    assert untouched(place)
    victim = place.workspace.home.mirror / "things" / "current" / sorted(whole)[-1]
    harm(victim)
    assert not untouched(place)
    assert mirror(place.workspace, "things").rebuilt == [victim.name]
    assert current(place) == whole
    assert untouched(place)


def test_a_file_written_again_with_the_same_bytes_is_no_damage(place: Pipeline) -> None:
    """Its stats differ, its hash doesn't: nothing is written, and the next look costs a stat again."""
    sync(place, FILL + BEGIN)
    victim = place.workspace.home.mirror / "things" / "current" / sorted(current(place))[0]
    data = victim.read_bytes()
    victim.unlink()
    victim.write_bytes(data)
    done = mirror(place.workspace, "things")
    assert (done.rebuilt, done.written) == ([], 0)
    assert untouched(place)


@pytest.mark.parametrize("junk", [b"", b"{", b'{"format": 1}', b"\xff\xfe"])
def test_a_damaged_manifest_makes_the_mirror_anew(place: Pipeline, junk: bytes) -> None:
    """The mirror is rendered from the store, and the manifest that could not be read is kept aside."""
    done = sync(place, FILL[:3])
    path = place.workspace.home.mirror / "things" / "manifest.json"
    path.write_bytes(junk)
    with pytest.raises(MirrorDamaged, match="manifest is damaged"):
        manifest(place)
    assert mirror(place.workspace, "things").rebuilt == ["manifest.json"]
    assert manifest(place).root == done.root
    assert [kept.read_bytes() for kept in (path.parent / "damaged").iterdir()] == [junk]


def test_a_deleted_mirror_comes_back_whole(place: Pipeline) -> None:
    """Without any file of it, the next update renders everything from the store."""
    sync(place, FILL + BEGIN)
    whole = current(place)
    shutil.rmtree(place.workspace.home.mirror)
    assert mirror(place.workspace, "things").written == len(whole)
    assert current(place) == whole


def test_a_mirror_ahead_of_the_store_is_rendered_again(place: Pipeline) -> None:
    """The database was put back to an earlier time: the mirror follows it, it doesn't stay in the future."""
    sync(place, FILL[:5])
    shutil.copytree(place.workspace.home.path, place.folder / "saved")
    sync(place, FILL[:50])
    for path in place.workspace.home.path.glob("autosync.db*"):
        path.unlink()
    for path in (place.folder / "saved").glob("autosync.db*"):
        shutil.copy(path, place.workspace.home.path)
    assert mirror(place.workspace, "things").records == 5
    assert manifest(place).records == 5 and place.records().keys() == set(FILL[:5])


@pytest.mark.parametrize(
    "write", [lambda place: mirror(place.workspace, "things"), lambda place: repair_mirrors(place.workspace)]
)
def test_a_writer_waits_for_another_program(place: Pipeline, write: Callable[[Pipeline], object]) -> None:
    """While another program writes to the mirror, neither a sync nor a repair does; then both do their work."""
    sync(place, FILL[:3])
    place.write([{"id": "a"}])
    place.load()
    before = manifest(place)
    holder = "import sys; from pathlib import Path; from blocks.mirror.files import writing\n"
    holder += "with writing(Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", holder, str(place.workspace.home.mirror / "things")]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other,
        ThreadPoolExecutor(1) as beside,
    ):
        assert other.stdin and other.stdout and other.stdout.readline() == b"held\n"
        done = beside.submit(write, place)
        with pytest.raises(TimeoutError):
            done.result(0.5)
        assert manifest(place) == before
        other.stdin.close()
        done.result(30)
    mirror(place.workspace, "things")
    assert manifest(place).records == 1


def test_a_folder_that_can_not_be_made_is_told(place: Pipeline) -> None:
    """A file lies where the mirror belongs: the store has the change, the message says what to do; then it heals."""
    place.write([{"id": "a"}])
    place.load()
    place.workspace.home.mirror.write_text("in the way")
    with pytest.raises(StoreError, match=r"mirror can't be written.*Kept safe: the database.*run again"):
        mirror(place.workspace, "things")
    place.workspace.home.mirror.unlink()
    place.run()
    assert place.verify()["equal"] is True


def test_crossing_the_line_between_one_file_and_many(place: Pipeline) -> None:
    """255 records are one file, 256 are cut; back again they are one file, and no other is left."""
    ids = (BEGIN + FILL)[:256]
    assert list(current_after(place, ids[1:])) == ["records.jsonl"]
    assert len(current_after(place, ids)) > 1 and "records.jsonl" not in current(place)
    assert list(current_after(place, ids[1:])) == ["records.jsonl"]


def current_after(place: Pipeline, ids: list[str]) -> dict[str, bytes]:
    sync(place, ids)
    return current(place)


def test_an_emptied_collection_is_an_empty_mirror(place: Pipeline) -> None:
    """No record, no file; the manifest says so, and the version before can be had back."""
    sync(place, FILL[:3])
    place.write("[]")
    with pytest.raises(Exception, match="--accept") as caught:
        place.load()
    place.load(accept=str(caught.value).split("--accept ")[1].rstrip("."))
    assert mirror(place.workspace, "things").records == 0
    assert current(place) == {} and manifest(place).shards == []
    place.run()
    assert place.verify()["equal"] is True
