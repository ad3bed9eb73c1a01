"""import-git: the history of a JSON file becomes a change log that says, at every commit, what the file said."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosync.errors import ConfigError, RemoteError, SourceError, StaleLock, StoreBusy
from autosync.records import parse
from blocks.store import batches, history, ledger
from flows.operations.import_history import import_history, imported_source
from flows.operations.ingest import ingest
from flows.operations.store import store
from flows.service.dashboard import StoreReading
from flows.workspace import now
from reports.dashboard.app import create_app
from tests.histories import git, write_history
from tests.integration.service import ROOT, Service
from tests.pipeline import SHARED, Pipeline
from tests.serving import serving

Model = dict[str, bytes]
T = 1_600_000_000
KEV = SHARED / "data" / "kev"


@pytest.fixture
def place(tmp_path: Path) -> Pipeline:
    return Pipeline(tmp_path)


def bring(
    place: Pipeline,
    repository: Path | str,
    path: str = "data.json",
    key: tuple[str, ...] = ("/id",),
    *,
    records: str = "",
    collection: str = "",
    branch: str = "",
) -> dict[str, Any]:
    """Import as the command does."""
    source, fed = imported_source(place.workspace, path, key, records, collection)
    return import_history(place.workspace, source, fed, str(repository), branch)


def body(*rows: dict[str, Any]) -> bytes:
    return json.dumps(list(rows), indent=1, ensure_ascii=False).encode()


def row(id: str, n: Any = 0) -> dict[str, Any]:
    return {"id": id, "n": n}


def model(*rows: dict[str, Any]) -> Model:
    return {str(one["id"]): parse(json.dumps(one).encode())[1] for one in rows}


def states(place: Pipeline, collection: str = "data") -> dict[str, Model]:
    """commit -> the collection after it, for commits that changed something, in the log's order."""
    with place.workspace.database(read_only=True) as db:
        number = batches.collection_id(db, collection)
        assert number is not None
        rows = db.execute("SELECT run, last_seq FROM batch WHERE collection = ? ORDER BY batch", [number]).fetchall()
        return {run: dict(history.as_of(db, number, seq)) for run, seq in rows}


def log(place: Pipeline, collection: str = "data", id: str | None = None) -> list[dict[str, Any]]:
    """The change log, oldest first."""
    with place.workspace.database(read_only=True) as db:
        return history.changes(db, collection=collection, id=id, limit=10_000)[::-1]


def test_inserts_updates_deletes_and_returns_are_all_logged(place: Pipeline, tmp_path: Path) -> None:
    """Each commit is a batch with its time; a record that goes and comes back is deleted and inserted again."""
    steps = [body(row("a"), row("b")), body(row("a", 1)), body(row("a", 1), row("b", 2)), body(row("b", 2))]
    commits = write_history(tmp_path / "r", [(T + n, {"data.json": data}) for n, data in enumerate(steps)])
    done = bring(place, tmp_path / "r")
    assert [(one["op"], one["id"], one["run"]) for one in log(place)] == [
        ("insert", "a", commits[0]),
        ("insert", "b", commits[0]),
        ("update", "a", commits[1]),
        ("delete", "b", commits[1]),
        ("insert", "b", commits[2]),
        ("delete", "a", commits[3]),
    ]
    first, last = log(place)[0], log(place)[-1]
    assert (first["origin"], first["time"], last["time"]) == (
        "git",
        "2020-09-13T12:26:40.000Z",
        "2020-09-13T12:26:43.000Z",
    )
    assert [(one["before"], one["after"]) for one in log(place, id="b")] == [
        (None, '{"id":"b","n":0}'),
        ('{"id":"b","n":0}', None),
        (None, '{"id":"b","n":2}'),
    ]
    assert place.records("data") == {"b": '{"id":"b","n":2}'}
    counts = ("versions", "changed", "inserted", "updated", "deleted", "records", "first_seq", "last_seq")
    assert [done[name] for name in counts] == [4, 4, 3, 1, 2, 1, 1, 6]
    assert (done["first_time"], done["last_time"], done["head"]) == (
        "2020-09-13T12:26:40Z",
        "2020-09-13T12:26:43Z",
        commits[-1],
    )


def test_a_removed_file_is_a_collection_without_records(place: Pipeline, tmp_path: Path) -> None:
    """A commit that removes the file deletes every record; the one that brings it back inserts them again."""
    there = {"data.json": body(row("a"), row("b"))}
    commits = write_history(tmp_path / "r", [(T, there), (T + 1, {"data.json": None}), (T + 2, there)])
    bring(place, tmp_path / "r")
    full = model(row("a"), row("b"))
    assert states(place) == dict(zip(commits, [full, {}, full], strict=True))


def test_commits_that_change_nothing_in_the_records_leave_no_batch(place: Pipeline, tmp_path: Path) -> None:
    """White space, the order of rows and other files are no changes; the next change is still found."""
    steps = [
        {"data.json": body(row("a"), row("b"))},
        {"other.txt": b"x"},
        {"data.json": json.dumps([row("b"), row("a")]).encode()},
        {"data.json": json.dumps([row("b"), row("a", 5)]).encode()},
    ]
    commits = write_history(tmp_path / "r", [(T + n, files) for n, files in enumerate(steps)])
    done = bring(place, tmp_path / "r")
    assert (done["versions"], done["changed"]) == (3, 2)
    assert list(states(place)) == [commits[0], commits[3]]
    assert (done["inserted"], done["updated"], done["deleted"]) == (2, 1, 0)


def test_a_bad_version_is_left_out_and_named(place: Pipeline, tmp_path: Path) -> None:
    """A version that is cut off, empty, no UTF-8, a folder or without the array changes nothing; the rest goes on."""
    good, better = body(row("a"), row("b")), body(row("b", 1))
    bad = [good[:-3], b"", b'[{"id": "\xff"}]', '[{"id": "a"}]'.encode("utf-16"), b'{"x": [1]} trailing', b"7"]
    steps: list[dict[str, bytes | None]] = [{"data.json": data} for data in (good, *bad)]
    steps += [{"data.json": None, "data.json/x": b"1"}, {"data.json/x": None, "data.json": better}]
    commits = write_history(tmp_path / "r", [(T + n, files) for n, files in enumerate(steps)])
    done = bring(place, tmp_path / "r")
    assert [skipped.commit for skipped in done["skipped"]] == commits[1:-1]
    reasons = " | ".join(skipped.reason for skipped in done["skipped"])
    for text in ("cut off", "empty file", "not encoded in UTF-8", "UTF-16", "a folder stands there", commits[1][:10]):
        assert text in reasons
    assert states(place) == {commits[0]: model(row("a"), row("b")), commits[-1]: model(row("b", 1))}


def test_a_bad_row_keeps_its_record_as_it_was(place: Pipeline, tmp_path: Path) -> None:
    """Rows are refused as ingest refuses them: twice the same key, a repeated name, no key. A row whose key can't be
    read might be any record, so that such a version deletes nothing.
    """
    start = (row("a"), row("b"), row("c"))
    twice = b'[{"id":"a","n":7},{"id":"b","n":8},{"id":"b","n":9}]'
    repeated = b'[{"id":"a","n":7},{"id":"b","n":1,"n":2}]'
    steps = [body(*start), twice, repeated, body(row("a", 7), {"n": 3}), body(row("a", 7))]
    commits = write_history(tmp_path / "r", [(T + n, {"data.json": data}) for n, data in enumerate(steps)])
    done = bring(place, tmp_path / "r")
    assert states(place) == {
        commits[0]: model(*start),
        commits[1]: model(row("a", 7), row("b")),
        commits[4]: model(row("a", 7)),
    }
    assert done["refused_rows"] == 4
    places = {refused.place.split(":")[0]: refused.reason for refused in done["refused"]}
    assert set(places) == {commit[:10] for commit in commits[1:4]}
    assert "stands more than once" in places[commits[1][:10]]
    assert "the name" in places[commits[2][:10]]
    assert "no key" in places[commits[3][:10]]


def test_a_merge_counts_when_it_was_merged(place: Pipeline, tmp_path: Path) -> None:
    """The branch's own line is followed: commits of a merged branch appear as the one merge, at its time."""
    folder = tmp_path / "r"
    write_history(folder, [(T, {"data.json": body(row("a"), row("b"))})], bare=False)
    git(folder, "checkout", "--quiet", "--force", "-b", "side", "main")

    def commit(time: int, *rows: dict[str, Any]) -> str:
        (folder / "data.json").write_bytes(body(*rows))
        git(folder, "commit", "--quiet", "--all", "--message=x", time=time)
        return git(folder, "rev-parse", "HEAD")

    commit(T + 1, row("a"), row("b", 1))
    commit(T + 2, row("a"), row("b", 2))
    git(folder, "checkout", "--quiet", "main")
    (folder / "other.txt").write_text("so that there is something to merge")
    git(folder, "add", "other.txt")
    git(folder, "commit", "--quiet", "--message=x", time=T + 3)
    git(folder, "merge", "--quiet", "--no-ff", "--message=merge", "side", time=T + 4)
    merge, last = git(folder, "rev-parse", "HEAD"), commit(T + 5, row("b", 2))
    bring(place, folder)
    assert list(states(place).items())[1:] == [(merge, model(row("a"), row("b", 2))), (last, model(row("b", 2)))]
    bring(place, folder, branch="side", collection="side")
    assert len(states(place, "side")) == 3


def test_times_never_go_back(place: Pipeline, tmp_path: Path) -> None:
    """A commit dated before its parent gets the parent's time, one in the future the present: as of works by time."""
    future = int(now()) + 10_000_000
    times = [T + 100, T + 50, T + 200, future, T + 300]
    steps = [(time, {"data.json": body(row("a", n))}) for n, time in enumerate(times)]
    write_history(tmp_path / "r", steps)
    before = now()
    done = bring(place, tmp_path / "r")
    assert done["times_moved"] == 3
    with place.workspace.database(read_only=True) as db:
        written = [time for (time,) in db.execute("SELECT time FROM batch ORDER BY batch")]
        number = batches.collection_id(db, "data")
        assert number is not None
        assert written[:3] == [T + 100, T + 100, T + 200]
        assert before <= written[3] == written[4] <= now()
        for time, n in ((T + 99, None), (T + 100, 1), (T + 199, 1), (T + 200, 2), (now(), 4)):
            rows = dict(history.as_of(db, number, history.seq_at(db, number, time)))
            assert rows == ({} if n is None else model(row("a", n)))


SHAPES = [
    ("data.json", "/x/rows", lambda rows: json.dumps({"meta": 1, "x": {"rows": rows}}).encode()),
    ("some folder/dätä.json", "/rows", lambda rows: json.dumps({"rows": rows}).encode()),
    ("data.jsonl", "", lambda rows: b"".join(json.dumps(one).encode() + b"\n" for one in rows)),
    ("data.json", "", lambda rows: b"\xef\xbb\xbf" + json.dumps(rows).encode()),
]


@pytest.mark.parametrize(("path", "records", "encode"), SHAPES)
def test_every_form_that_a_source_may_have(
    place: Pipeline, tmp_path: Path, path: str, records: str, encode: Any
) -> None:
    """An array at a pointer, JSON Lines, a byte order mark, names with spaces and of any script."""
    versions = [[row("a"), row("b")], [row("b", 1), row("c")]]
    commits = write_history(tmp_path / "r", [(T + n, {path: encode(rows)}) for n, rows in enumerate(versions)])
    bring(place, tmp_path / "r", path, records=records, collection="data")
    assert states(place) == {commit: model(*rows) for commit, rows in zip(commits, versions, strict=True)}


def test_a_key_of_two_parts(place: Pipeline, tmp_path: Path) -> None:
    """Several --key make one id, as for a source."""
    versions = [[{"a": 1, "b": {"c": "x/y"}}, {"a": 1, "b": {"c": "z"}}], [{"a": 1, "b": {"c": "z"}, "n": 1}]]
    write_history(tmp_path / "r", [(T + n, {"d.json": body(*rows)}) for n, rows in enumerate(versions)])
    bring(place, tmp_path / "r", "d.json", ("/a", "/b/c"))
    assert [(one["op"], one["id"]) for one in log(place, "d")] == [
        ("insert", "1/x~1y"),
        ("insert", "1/z"),
        ("update", "1/z"),
        ("delete", "1/x~1y"),
    ]


def test_numbers_and_text_keep_every_digit(place: Pipeline, tmp_path: Path) -> None:
    """Canonical form as everywhere: 10^400, 0.1000, -0.0, 2^63+1; a change of spelling alone is a change."""
    first = '[{"id":"a","n":[1e400,0.1000,-0.0,9223372036854775809],"t":"é\\u0000✓"}]'
    write_history(tmp_path / "r", [(T, {"data.json": first.encode()}), (T + 1, {"data.json": b'[{"id":"a","n":1.0}]'})])
    bring(place, tmp_path / "r")
    assert log(place)[1]["before"] == '{"id":"a","n":[1e400,0.1000,-0.0,9223372036854775809],"t":"é\\u0000✓"}'
    assert place.records("data") == {"a": '{"id":"a","n":1.0}'}


def nothing_imported(place: Pipeline) -> bool:
    with place.workspace.database() as db:
        tables = ("collection", "record", "change", "batch", "source_state")
        return not any(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables)


def test_a_wrong_repository_branch_path_or_key_is_told(place: Pipeline, tmp_path: Path) -> None:
    """No repository, no commit, no such branch, no such file, no key: each says so, and nothing is written."""
    write_history(tmp_path / "r", [(T, {"data.json": body(row("a"))})])
    git(tmp_path, "init", "--quiet", "--bare", "empty")
    wrong: list[tuple[str, str, dict[str, Any]]] = [
        ("no Git repository", "nowhere", {}),
        ("no commit yet", "empty", {}),
        ("no branch, tag or commit 'x'", "r", {"branch": "x"}),
        ("no branch, tag or commit '--all'", "r", {"branch": "--all"}),
        ("no file other.json", "r", {"path": "other.json"}),
        ("no file \\*.json", "r", {"path": "*.json", "collection": "data"}),
        ("can't be a file's path", "r", {"path": "/etc/data.json"}),
        ("key is needed", "r", {"key": ()}),
        ("can't be used", "r", {"path": "1.json"}),
        ("own tables", "r", {"collection": "change"}),
    ]
    for text, repository, options in wrong:
        with pytest.raises(ConfigError, match=text):
            bring(place, tmp_path / repository, **options)
    assert not place.workspace.home.path.exists()
    with pytest.raises(SourceError, match="none of 1 versions"):
        bring(place, tmp_path / "r", records="/rows")
    assert nothing_imported(place)


def test_a_damaged_repository_imports_nothing(place: Pipeline, tmp_path: Path) -> None:
    """A version whose content is lost is no removed file: the import stops, and nothing is written."""
    folder = tmp_path / "r"
    write_history(folder, [(T + n, {"data.json": body(row("a", n))}) for n in range(3)])
    git(folder, "repack", "-q", "-a", "-d")
    blob = git(folder, "rev-parse", "main~1:data.json")
    pack = next((folder / "objects" / "pack").glob("*.pack"))
    moved = pack.read_bytes()
    for path in (folder / "objects" / "pack").iterdir():
        path.unlink()
    git(folder, "unpack-objects", "-q", data=moved)
    (folder / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(RemoteError, match="lacks the content"):
        bring(place, folder)
    assert nothing_imported(place)


def test_a_collection_with_changes_is_refused(place: Pipeline, tmp_path: Path) -> None:
    """A history can't be put before changes that are there; the error says what to do, and nothing is touched."""
    write_history(tmp_path / "r", [(T, {"things.json": body(row("a"))})])
    place.configure()
    place.write([row("z")])
    place.load()
    for collection in ("things", "Things"):
        with pytest.raises(ConfigError, match="--collection"):
            bring(place, tmp_path / "r", "things.json", collection=collection)
    assert place.records() == {"z": '{"id":"z","n":0}'}
    bring(place, tmp_path / "r", "things.json", collection="past")
    with pytest.raises(ConfigError, match="changes already"):
        bring(place, tmp_path / "r", "things.json", collection="past")


def test_the_source_goes_on_from_the_imported_history(place: Pipeline, tmp_path: Path) -> None:
    """The first run of a source that feeds the collection stores only differences, deletes included; mirror,
    repository and every imported state are right.
    """
    versions = [[row(f"k{n}") for n in range(9)], [row(f"k{n}", n % 2) for n in range(9)]]
    commits = write_history(tmp_path / "r", [(T + n, {"things.json": body(*v)}) for n, v in enumerate(versions)])
    place.configure()
    bring(place, tmp_path / "r", "things.json")
    place.write([row(f"k{n}", n % 2) for n in range(1, 9)] + [row("new")])
    counts = place.run().found.counts
    assert (counts.inserted, counts.updated, counts.deleted, counts.unchanged) == (1, 0, 1, 8)
    assert place.verify()["equal"] is True
    assert list(states(place, "things").values())[:2] == [model(*rows) for rows in versions]
    assert list(states(place, "things"))[:2] == commits
    place.write([row(f"k{n}", n % 2) for n in range(1, 9)])
    assert place.run().found.counts.deleted == 1
    assert place.run().found.batch == ""


def test_mirror_and_repository_take_an_imported_collection(place: Pipeline, tmp_path: Path) -> None:
    """Without any difference in the source, the next run still mirrors and pushes what was imported."""
    rows = [row("a"), row("b")]
    write_history(tmp_path / "r", [(T, {"things.json": body(row("a"))}), (T + 1, {"things.json": body(*rows)})])
    place.configure()
    bring(place, tmp_path / "r", "things.json")
    place.write(rows)
    result = place.run()
    assert result.found.counts.changed == 0
    assert result.pushed.sha
    assert place.verify()["equal"] is True


def test_the_key_of_the_source_that_feeds_the_collection_must_be_the_same(place: Pipeline, tmp_path: Path) -> None:
    """Another key would make every record another one with the source's next run."""
    write_history(tmp_path / "r", [(T, {"things.json": body(row("a"))})])
    place.configure()
    with pytest.raises(ConfigError, match="has the key"):
        bring(place, tmp_path / "r", "things.json", ("/n",))
    assert bring(place, tmp_path / "r", "things.json", ("id",))["records"] == 1


def test_a_run_that_began_before_the_import_is_refused(place: Pipeline, tmp_path: Path) -> None:
    """A batch staged against the empty collection can't be stored after the import, with an old place or a new one."""
    write_history(tmp_path / "r", [(T, {"things.json": body(row("a"))})])
    place.configure()
    place.write([row("a", 5), row("b")])
    run = str(uuid4())
    with place.workspace.database() as db:
        old = ledger.grant(db, "source things", run, now=now())
    staged = [ingest(place.workspace, "things", run).batch for _ in range(2)]
    bring(place, tmp_path / "r", "things.json")
    with pytest.raises(StaleLock):
        store(place.workspace, "things", staged[0], run, old)
    with place.workspace.database() as db:
        new = ledger.grant(db, "source things", run, now=now())
    with pytest.raises(StoreBusy):
        store(place.workspace, "things", staged[1], run, new)
    assert place.records() == {"a": '{"id":"a","n":0}'}
    place.load()
    assert place.records() == {"a": '{"id":"a","n":5}', "b": '{"id":"b","n":0}'}


def test_an_import_whose_place_was_taken_writes_nothing(place: Pipeline, tmp_path: Path) -> None:
    """A run that began while the history was read has the place: the import is refused as any older holder is."""
    write_history(tmp_path / "r", [(T, {"data.json": body(row("a"))})])
    source, fed = imported_source(place.workspace, "data.json", ["/id"])
    with place.workspace.database() as db:
        old = ledger.grant(db, "source data", "one", now=now())
        ledger.grant(db, "source data", "two", now=now())
    with pytest.raises(StaleLock):
        import_history(place.workspace, source, fed, str(tmp_path / "r"), token=old)
    assert nothing_imported(place)


def test_an_address_is_cloned_and_its_login_shown_nowhere(place: Pipeline, tmp_path: Path) -> None:
    """An address gives the same as the folder, whole history included; an unreachable one is an error."""
    commits = write_history(tmp_path / "r", [(T + n, {"data.json": body(row("a", n))}) for n in range(3)])
    done = bring(place, (tmp_path / "r").as_uri())
    assert list(states(place)) == commits
    assert done["repository"] == (tmp_path / "r").as_uri()
    with pytest.raises(RemoteError) as caught:
        bring(place, "http://me:hidden@127.0.0.1:9/x.git", collection="other")
    assert caught.value.retryable
    assert "hidden" not in str(caught.value)


def test_a_working_copy_and_a_worktree_are_repositories(place: Pipeline, tmp_path: Path) -> None:
    """A folder with .git, and one whose .git is a file that names it, are read as they are."""
    write_history(tmp_path / "r", [(T, {"data.json": body(row("a"))})], bare=False)
    git(tmp_path / "r", "worktree", "add", "--quiet", "--detach", str(tmp_path / "tree"), "main")
    assert bring(place, tmp_path / "r")["records"] == 1
    assert bring(place, tmp_path / "tree", collection="tree")["records"] == 1


def test_the_command_says_what_happened(place: Pipeline, tmp_path: Path) -> None:
    """import-git prints counts, times, skipped versions and refused rows; log, show and restore know the commits."""
    bad = b'[{"id":"a","n":1},{"n":2}]'
    steps = [body(row("a")), b"{", bad, body(row("a", 2)), body(row("b"))]
    times = [T, T + 10, T + 5, T + 20, T + 30]
    commits = write_history(tmp_path / "r", zip(times, [{"data.json": data} for data in steps], strict=True))
    service = Service(tmp_path)
    said = service.run("import-git", str(tmp_path / "r"), "data.json", "--key", "/id").stdout
    for text in (commits[1][:10], f"{commits[2][:10]}:data.json", "no key", "cut off", "autosync log data"):
        assert text in said
    assert "2020-09-13T12:26:40Z to 2020-09-13T12:27:10Z" in said
    changes = service.json("log", "data")["changes"]
    assert [change["run"] for change in changes[::-1]] == [commits[0], commits[2], commits[3], commits[4], commits[4]]
    assert f"git {commits[4][:10]}" in service.run("log", "data").stdout
    target = tmp_path / "out.jsonl"
    service.run("restore", "data", "--as-of", "2020-09-13T12:27:00", "--to", str(target))
    assert target.read_text() == '{"id":"a","n":2}\n'
    again = service.run("import-git", str(tmp_path / "r"), "data.json", "--key", "/id", status=2)
    assert "has changes already" in again.stderr
    found = service.json("import-git", str(tmp_path / "r"), "data.json", "--key", "/id", "--collection", "more")
    assert (found["collection"], found["records"], len(found["skipped"]), len(found["refused"])) == ("more", 1, 1, 1)


def test_the_pages_name_the_commit_and_link_no_run(place: Pipeline, tmp_path: Path) -> None:
    """An imported change shows its commit: there is no page of a run to go to."""
    commits = write_history(tmp_path / "r", [(T, {"data.json": body(row("a"))})])
    bring(place, tmp_path / "r")
    place.configure()
    with serving(create_app(StoreReading(place.workspace))) as client:
        text = client.get("/changes").text
    assert f"git {commits[0][:10]}" in text
    assert "/runs/" + commits[0] not in text


def test_the_flow_imports_under_the_lock(place: Pipeline, tmp_path: Path) -> None:
    """The Prefect flow takes and gives back the source's place, and imports the same."""
    write_history(tmp_path / "r", [(T + n, {"things.json": body(row("a", n))}) for n in range(2)])
    place.configure()
    code = (
        "import asyncio, json; from flows.import_git import import_git\n"
        f"done = asyncio.run(import_git({str(tmp_path / 'r')!r}, 'things.json', ['/id'], "
        f"home={str(place.workspace.home.path)!r}, config={str(place.workspace.config)!r}))\n"
        "print(done['changed'])"
    )
    environment = Service(tmp_path).environment | {"PREFECT_HOME": str(tmp_path / "prefect")}
    environment["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] = "180"
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert ran.stdout.strip().endswith("2"), ran.stderr
    assert [change["op"] for change in log(place, "things")] == ["insert", "update"]
    with place.workspace.database(read_only=True) as db:
        assert db.execute("SELECT token, released IS NOT NULL FROM fence").fetchall() == [(1, 1)]


IDS = ["a", "b", "c", "d/é"]
ROWS = st.fixed_dictionaries(
    {"id": st.sampled_from(IDS)},
    optional={"n": st.one_of(st.integers(-2, 2), st.just({"x": [1]})), "t": st.sampled_from(["", "✓"])},
)
FILES = st.one_of(
    st.lists(ROWS, max_size=5, unique_by=lambda row: str(row["id"])),
    st.sampled_from([b"{", b"", None, b'{"a": 1}\n[', b'[{"id":"a"},{"id":"a","n":1}]', b'[{"id":"b","n":01}]']),
)
STEPS = st.lists(st.tuples(FILES, st.sampled_from([None, 1, 2]), st.integers(-5, 50)), min_size=1, max_size=12)


@contextmanager
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="autosync-import-"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


@given(STEPS)
def test_any_history_comes_out_as_the_model_at_every_commit(steps: list[tuple[Any, int | None, int]]) -> None:
    """Random rows, orders, white space, bad versions, bad rows, removals, times: as of each commit equals a dict."""
    expected: list[Model] = []
    files: list[tuple[int, dict[str, bytes | None]]] = []
    now_model: Model = {}
    time, before = T, None
    for content, indent, pause in steps:
        time += pause
        data = content if content is None or isinstance(content, bytes) else json.dumps(content, indent=indent).encode()
        if data is None and before is None:
            continue  # nothing to remove
        files.append((time, {"data.json": data}))
        before = data
        if isinstance(content, list):
            now_model = model(*content)
        elif data is None:
            now_model = {}
        elif b'"id":"a"' in data:  # twice: a stays as it was, everything else is absent
            now_model = {id: doc for id, doc in now_model.items() if id == "a"}
        expected.append(now_model)
    with folder() as root:
        place = Pipeline(root)
        if not files:
            return
        commits = write_history(root / "r", files)
        try:
            bring(place, root / "r")
        except SourceError as error:
            assert "none of" in str(error)
            assert not any(expected)
            return
        check(place, commits, expected)


def check(place: Pipeline, commits: list[str], expected: list[Model]) -> None:
    """After every commit the store says what the model says; the last state is the stored one; times never fall."""
    with place.workspace.database(read_only=True) as db:
        number = batches.collection_id(db, "data")
        assert number is not None
        last = dict(db.execute("SELECT run, last_seq FROM batch").fetchall())
        seq, old = 0, Model()
        for commit, wanted in zip(commits, expected, strict=True):
            assert (commit in last) == (wanted != old), commit
            seq, old = last.get(commit, seq), wanted
            assert dict(history.as_of(db, number, seq)) == wanted
        assert {id: doc.encode() for id, doc in place.records("data").items()} == expected[-1]
        assert batches.record_count(db, "data") == len(expected[-1])
        times = [time for (time,) in db.execute("SELECT time FROM batch ORDER BY batch")]
        assert times == sorted(times)


@pytest.mark.skipif(not KEV.is_dir(), reason="../shared/data/kev is not here")
def test_the_catalogue_of_exploited_vulnerabilities(place: Pipeline, tmp_path: Path) -> None:
    """Twelve real snapshots committed to a repository come out byte-equal at every commit."""
    bodies = [path.read_bytes() for path in sorted(KEV.glob("*.json"))]
    commits = write_history(tmp_path / "r", [(T + n, {"kev.json": data}) for n, data in enumerate(bodies)])
    bring(place, tmp_path / "r", "kev.json", ("/cveID",), records="/vulnerabilities")
    found = states(place, "kev")
    assert len(found) > 5
    for commit, data in zip(commits, bodies, strict=True):
        rows = json.loads(data)["vulnerabilities"]
        assert commit not in found or found[commit] == {
            one["cveID"]: parse(json.dumps(one, ensure_ascii=False).encode())[1] for one in rows
        }
