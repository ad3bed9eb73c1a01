"""Version files: each is proven, damage is named by verify, mended from the store, and never becomes history."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from autosync.errors import ConfigError, MirrorDamaged
from blocks.mirror.versions import chain
from blocks.store import compaction, ledger
from flows.operations.rebuild import rebuild_store
from flows.operations.restore import write_collection
from flows.operations.verify import repair_mirrors
from flows.workspace import now
from tests.pipeline import Pipeline

SEQS = [50, 100, 150, 200]


@pytest.fixture
def place(tmp_path: Path) -> Pipeline:
    """Four states of fifty records, at seqs 50, 100, 150 and 200."""
    place = Pipeline(tmp_path)
    place.configure(guard={"max_delete": 1.0})
    for n in range(4):
        place.write([{"id": f"{i:03d}", "n": n} for i in range(50)])
        place.run()
    return place


def state(n: int) -> bytes:
    return b"".join(b'{"id":"%03d","n":%d}\n' % (i, n) for i in range(50))


def restored(place: Pipeline, seq: int, source: str) -> bytes:
    out = place.folder / "out.jsonl"
    write_collection(place.workspace, "things", str(seq), str(out), source)
    return out.read_bytes()


def files(place: Pipeline) -> list[Path]:
    """The version files that lead back, newest first."""
    return [version.path for version in chain(place.workspace.home.mirror / "things", SEQS[-1])]


def changed(old: bytes, new: bytes) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        data = path.read_bytes()
        assert old in data
        path.write_bytes(data.replace(old, new, 1))

    return change


HARMS: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-30]),
    "lines lost": lambda path: path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-3])),
    "edited by hand": changed(b'"n":', b'"m":'),
    "line added by hand": lambda path: path.write_bytes(path.read_bytes() + b'["zzz",null]\n'),
    "header damaged": lambda path: path.write_bytes(b"x" + path.read_bytes()),
    "time changed": changed(b'"from_time":1', b'"from_time":2'),
    "no proof": changed(b'"sha256"', b'"sha257"'),
    "emptied": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("which", [0, 1, 2], ids=["newest", "middle", "oldest"])
@pytest.mark.parametrize("harm", HARMS.values(), ids=list(HARMS))
def test_damage_is_named_and_mended_from_the_store(place: Pipeline, harm: Callable[[Path], object], which: int) -> None:
    """verify names the file; --repair keeps it aside and makes it again, byte for byte; then all is well."""
    assert place.verify()["equal"]
    victim = files(place)[which]
    whole = victim.read_bytes()
    harm(victim)
    hurt = victim.read_bytes() if victim.exists() else None
    found = place.verify()
    assert not found["equal"]
    (problem,) = found["problems"]
    assert victim.name in problem and "autosync verify --repair" in problem
    assert repair_mirrors(place.workspace) == [f"things/{victim.name}"]
    assert victim.read_bytes() == whole
    aside = [path.read_bytes() for path in (place.workspace.home.mirror / "things").glob("damaged/*")]
    assert aside == ([] if hurt is None else [hurt])
    assert place.verify()["equal"]
    assert [restored(place, seq, "mirror") for seq in SEQS] == [state(n) for n in range(4)]
    assert repair_mirrors(place.workspace) == []


def test_all_version_files_deleted(place: Pipeline) -> None:
    """The whole folder gone is found, too; the store's log brings back the way to the oldest state."""
    shutil.rmtree(place.workspace.home.mirror / "things" / "versions")
    assert not place.verify()["equal"]
    assert repair_mirrors(place.workspace) != []
    assert place.verify()["equal"]
    assert [restored(place, seq, "mirror") for seq in (50, 200)] == [state(0), state(3)]


def test_a_mirror_made_anew_owes_no_older_states(place: Pipeline) -> None:
    """Somebody deleted the whole mirror: it begins where it was made again, and that is no damage."""
    shutil.rmtree(place.workspace.home.mirror)
    place.run()
    assert place.verify()["equal"]
    assert repair_mirrors(place.workspace) == []


@pytest.mark.parametrize("harm", HARMS.values(), ids=list(HARMS))
def test_a_damaged_version_gives_no_wrong_state(place: Pipeline, harm: Callable[[Path], object]) -> None:
    """Restoring behind it is refused; in front of it everything can be had."""
    harm(files(place)[1])
    assert restored(place, 150, "mirror") == state(2)
    with pytest.raises((MirrorDamaged, ConfigError)):
        restored(place, 100, "mirror")


@pytest.mark.parametrize("harm", HARMS.values(), ids=list(HARMS))
def test_a_rebuilt_store_claims_no_history_that_it_does_not_have(
    place: Pipeline, harm: Callable[[Path], object]
) -> None:
    """The history ends before the damage: that is said, older moments are refused, the newer ones are right."""
    harm(files(place)[1])
    place.workspace.home.database.unlink()
    done = rebuild_store(place.workspace, "mirror")
    assert [row["since"] for row in done["collections"]] == [150]
    assert "versions" in " ".join(done["problems"])
    for seq, n in ((150, 2), (200, 3)):
        assert restored(place, seq, "store") == state(n)
    for moment in (1, 50, 99, 100, 149):
        with pytest.raises(ConfigError, match="reaches back to seq 150"):
            restored(place, moment, "store")


@pytest.mark.parametrize(("source", "since"), [("mirror", 50), ("repo", 200)])
def test_a_rebuilt_store_rounds_to_states_that_it_knows(place: Pipeline, source: str, since: int) -> None:
    """The order of changes inside a sync is lost with the old database: a seq in between gives the state before."""
    with place.workspace.database() as db:
        first = db.execute("SELECT min(time) FROM batch").fetchone()[0]
    place.workspace.home.database.unlink()
    assert rebuild_store(place.workspace, source)["collections"][0]["since"] == since
    out = place.folder / "out.jsonl"
    for moment in (0, since - 1, "2001-01-01"):
        with pytest.raises(ConfigError, match=f"reaches back to seq {since}"):
            write_collection(place.workspace, "things", str(moment), str(out), "store")
    if source == "mirror":
        done = write_collection(place.workspace, "things", "125", str(out), "store")
        assert (done["seq"], done["asked"], out.read_bytes()) == (100, 125, state(1))
    place.write([{"id": "new", "n": i} for i in range(1)])
    place.run()
    assert restored(place, 200, "store") == state(3)
    assert place.verify()["equal"] and first > 0


@pytest.mark.parametrize("field", ["seq", "time", "root", "records", "since", "sha256"])
def test_an_altered_manifest_is_made_again(place: Pipeline, field: str) -> None:
    """Whatever fact of it is another, it is found, and the way back stays as long as it was."""
    manifest = place.workspace.home.mirror / "things" / "manifest.json"
    whole = manifest.read_bytes()
    lines = whole.splitlines(keepends=True)
    n = max(n for n, line in enumerate(lines) if line.strip().startswith(f'"{field}"'.encode()))
    lines[n] = lines[n].translate(bytes.maketrans(b"0123456789", b"1234567809"))
    manifest.write_bytes(b"".join(lines))
    assert not place.verify()["equal"]
    assert repair_mirrors(place.workspace) == ["things/manifest.json"]
    assert manifest.read_bytes() == whole
    assert [restored(place, seq, "mirror") for seq in SEQS] == [state(n) for n in range(4)]


def test_what_neither_knows_ends_the_history(place: Pipeline) -> None:
    """A version is damaged and the store was made anew from the repository: that is said, and the rest is whole."""
    place.workspace.home.database.unlink()
    rebuild_store(place.workspace, "repo")
    files(place)[0].write_bytes(b"")
    (said,) = repair_mirrors(place.workspace)
    assert "things/000000000200.jsonl" in said and "begins at 200" in said
    assert place.verify()["equal"] and repair_mirrors(place.workspace) == []
    assert restored(place, 200, "mirror") == state(3)
    with pytest.raises(ConfigError, match="reaches back to seq 200"):
        restored(place, 150, "mirror")
    place.write([{"id": "new"}])
    place.run()
    assert place.verify()["equal"] and restored(place, 200, "mirror") == state(3)


def test_compaction_keeps_in_mind_where_a_rebuilt_store_begins(place: Pipeline) -> None:
    """What was before the first known state stays unknown when that state is merged with later ones."""
    place.workspace.home.database.unlink()
    rebuild_store(place.workspace, "mirror")
    with place.workspace.database() as db:
        token = ledger.grant(db, "source things", "compact", now=now())
        compaction.compact(db, 1, frozenset({100, 200}), place="source things", token=token)
    assert restored(place, 100, "store") == state(1) and restored(place, 200, "store") == state(3)
    for moment in (0, 50, 99):
        with pytest.raises(ConfigError, match="reaches back to seq 100"):
            restored(place, moment, "store")


def test_versions_without_a_proof_are_read_as_before(place: Pipeline) -> None:
    """Files and manifests of older releases have neither proof nor `since`: no damage, and the root still proves."""
    folder = place.workspace.home.mirror / "things"
    for path in [*files(place), folder / "manifest.json"]:
        head, _, rest = path.read_bytes().partition(b"\n") if path.suffix == ".jsonl" else (path.read_bytes(), b"", b"")
        found = {k: v for k, v in msgspec.json.decode(head).items() if k not in ("sha256", "since")}
        path.write_bytes(msgspec.json.encode(found) + (b"\n" + rest if rest else b""))
    assert place.verify()["equal"]
    assert [restored(place, seq, "mirror") for seq in SEQS] == [state(n) for n in range(4)]
    place.write([{"id": f"{i:03d}", "n": 9} for i in range(50)])
    place.run()
    assert place.verify()["equal"]
    changed(b'"n":1', b'"n":7')(files(place)[1])
    place.workspace.home.database.unlink()
    assert [row["since"] for row in rebuild_store(place.workspace, "mirror")["collections"]] == [150]
