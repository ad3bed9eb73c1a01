"""Push: one commit a change, of the touched files only, on top of whatever the branch holds by then."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosync.errors import RemoteError, RemoteMoved
from autosync.ports import Commit
from autosync.shards import level, repo_layout
from blocks.repository.git import trailers_of
from blocks.store.schema import Db
from blocks.store.shard_files import all_files, touched_files
from flows.operations.push import open_remote
from flows.workspace import now
from tests.pipeline import Pipeline, dying

PLAIN = [f"k{n:04d}" for n in range(2000) if level(f"k{n:04d}") < 4][:300]


@cache
def beginners() -> list[str]:
    """Many ids at which a file of the repository begins, before, between and after the others."""
    return [id for n in range(800) for id in (f"{'akz'[n % 3]}{n:04d}",) if level(id) >= 4][:40]


@pytest.fixture
def place(tmp_path: Path) -> Pipeline:
    """A home without records; everything may be deleted."""
    return fresh(tmp_path)


def fresh(folder: Path) -> Pipeline:
    pipeline = Pipeline(folder)
    pipeline.configure(guard={"max_delete": 1.0})
    return pipeline


def sync(place: Pipeline, ids: Any, **more: Any) -> str:
    """Make the collection these records, push, and give the commit."""
    place.write([{"id": id, **more} for id in sorted(ids)])
    return place.run().pushed.sha


def held(place: Pipeline) -> dict[str, bytes]:
    """The record files on the branch."""
    files = open_remote(place.workspace).files("things")
    return {path.removeprefix("things/"): data for path, data in files if path.endswith(".jsonl")}


def rewritten(place: Pipeline) -> dict[str, bytes]:
    """The record files that one full rewrite would make."""
    with place.workspace.database(read_only=True) as db:
        return dict(all_files(db, 1, len(place.records())))


def commits(place: Pipeline) -> int:
    return int(place.git("rev-list", "--count", "main"))


def theirs(place: Pipeline, files: Mapping[str, bytes | None]) -> None:
    """Somebody else's commit on the branch."""
    remote = open_remote(place.workspace)
    head = remote.head()
    remote.commit(Commit("theirs", (), files.items(), now()), parent=head.sha if head else None)


STEPS = st.lists(
    st.tuples(st.sets(st.integers(0, 39)), st.sampled_from([220, 256, 300]), st.integers(0, 1)), min_size=2, max_size=5
)


@given(STEPS)
def test_touched_files_are_what_a_full_rewrite_would_change(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[set[int], int, int]]
) -> None:
    """File by file: applying what is said to be touched to the old files gives the new ones, and two files a change
    are all that is touched.
    """
    place, old, seq = fresh(tmp_path_factory.mktemp("push")), dict[str, bytes](), 0
    for chosen, count, value in steps:
        ids = PLAIN[:count] + [beginners()[n] for n in chosen]
        place.write([{"id": id} | ({"n": value} if id in PLAIN[:5] else {}) for id in sorted(ids)])
        place.load()
        new = rewritten(place)
        with place.workspace.database(read_only=True) as db:
            newest, records = newest_of(db), len(ids)
            same_layout = old and repo_layout(records) == repo_layout(sum(data.count(b"\n") for data in old.values()))
            if same_layout:
                changes = list(touched_files(db, 1, records, seq, newest))
                assert changes == sorted(changes, key=lambda change: change[1] is not None), "deletions come first"
                touched = dict(changes)
                assert len(touched) == len(changes)
                after = {path: data for path, data in (old | touched).items() if data is not None}
                assert after == new
                assert len(touched) <= 2 * (newest - seq) + 1
        old, seq = new, newest


def newest_of(db: Db) -> int:
    return int(db.execute("SELECT coalesce(max(last_seq), 0) FROM batch").fetchone()[0])


@given(STEPS)
def test_many_pushes_make_the_tree_of_one(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[set[int], int, int]]
) -> None:
    """After any history the branch holds exactly the files of a repository that got the records at once."""
    place = fresh(tmp_path_factory.mktemp("many"))
    for chosen, count, value in steps:
        ids = PLAIN[:count] + [beginners()[n] for n in chosen]
        sync(place, ids, n=value)
    assert held(place) == rewritten(place)
    once = fresh(tmp_path_factory.mktemp("once"))
    sync(once, ids, n=value)
    assert held(once) == held(place)
    lines = sorted(line for data in held(place).values() for line in data.decode().splitlines())
    assert lines == sorted(place.records().values())


def test_a_change_touches_few_files(place: Pipeline) -> None:
    """One changed record of some hundreds is one file and the manifest."""
    ids = PLAIN + beginners()
    sync(place, ids)
    place.write([{"id": id} | ({"n": 1} if id == PLAIN[100] else {}) for id in sorted(ids)])
    place.run()
    names = place.git("diff", "--name-only", "main~1", "main").split()
    assert len(names) == 2 and "things/manifest.json" in names


def test_a_commit_says_what_it_holds(place: Pipeline) -> None:
    """Counts in the subject; seq, root and run as trailers; the manifest says the same."""
    sync(place, ["a", "b"])
    place.write([{"id": "a", "n": 1}, {"id": "c"}])
    result = place.run()
    message = place.git("log", "-1", "--format=%B", "main")
    assert message.startswith("sync(things): +1 ~1 -1\n")
    assert trailers_of(message)["AutoSync-Seq"] == str(result.mirrored.seq) == "5"
    assert trailers_of(message)["AutoSync-Root"] == result.mirrored.root
    assert f'"root": "{result.mirrored.root}"' in place.git("show", "main:things/manifest.json")


def test_nothing_new_is_no_commit(place: Pipeline) -> None:
    """Neither a run without changes nor a reformatted source commits."""
    sync(place, ["a"])
    place.write('[ { "id" : "a" } ]')
    assert place.run().pushed.sha == ""
    assert commits(place) == 1


def test_somebody_elses_commit_is_absorbed(place: Pipeline) -> None:
    """Their files stay, ours come on top; touched files only, as the collection's files are where we left them."""
    sync(place, PLAIN + beginners())
    theirs(place, {"README.md": b"hello\n", "things/notes.txt": b"mine\n"})
    sync(place, PLAIN[1:] + beginners())
    assert place.git("show", "main:README.md") == "hello\n"
    assert place.git("show", "main:things/notes.txt") == "mine\n"
    assert held(place) == rewritten(place) and commits(place) == 3
    assert len(place.git("diff", "--name-only", "main~1", "main").split()) == 2


def test_a_branch_that_was_put_back_is_made_whole(place: Pipeline) -> None:
    """Somebody reset the branch to an earlier commit: the next push writes everything anew."""
    sync(place, PLAIN)
    first = place.git("rev-parse", "main").strip()
    sync(place, PLAIN[5:] + beginners())
    place.git("update-ref", "refs/heads/main", first)
    sync(place, PLAIN[10:] + beginners()[3:])
    assert held(place) == rewritten(place)


@pytest.mark.parametrize("junk", [None, b"", b"not json", b"[]", b'{"seq": "x"}'])
def test_a_manifest_that_somebody_spoilt_is_made_again(place: Pipeline, junk: bytes | None) -> None:
    """Without a readable manifest nobody knows what the files are: all are written anew."""
    sync(place, PLAIN[:260])
    theirs(place, {"things/manifest.json": junk, "things/records.jsonl": b'{"id":"a stray one"}\n'})
    sync(place, PLAIN)
    assert held(place) == rewritten(place) and place.verify()["equal"] is True


def test_a_repository_that_is_gone_is_made_again(place: Pipeline) -> None:
    """The folder was deleted: with the next change everything is pushed into a new one."""
    sync(place, PLAIN)
    shutil.rmtree(place.workspace.home.repository)
    sync(place, PLAIN[1:])
    assert held(place) == rewritten(place) and commits(place) == 1


def test_another_repository_gets_everything(place: Pipeline) -> None:
    """The address in the settings changed: the new place is filled as a whole."""
    sync(place, PLAIN)
    config = place.folder / "autosync.toml"
    config.write_text(config.read_text() + '[push]\nurl = "elsewhere.git"\nbranch = "data"\n')
    sync(place, PLAIN[1:])
    assert held(place) == rewritten(place)
    said = subprocess.run(
        ["git", "--git-dir", str(place.folder / "elsewhere.git"), "rev-list", "--count", "data"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == "1"


def test_a_commit_whose_cursor_was_not_kept_is_recognised(place: Pipeline) -> None:
    """The run died right after the commit; the next one finds it by its seq and root, a commit on top or not."""
    for cover in (False, True):
        ids = PLAIN[: 10 + cover]
        place.write([{"id": id} for id in ids])
        with place.workspace.database() as db:
            kept = db.execute("SELECT seq, info FROM consumer WHERE consumer = 'push'").fetchone()
        sha = place.run().pushed.sha
        count = commits(place)
        if cover:
            theirs(place, {"README.md": b"hello\n"})
        with place.workspace.database() as db:
            sql = "UPDATE consumer SET seq = ?, info = ?" if kept else "DELETE FROM consumer"
            db.execute(f"{sql} WHERE consumer = 'push'", kept or ())
        assert place.run().pushed.sha == sha
        assert commits(place) == count + cover


def test_a_push_that_dies_anywhere_makes_one_commit(place: Pipeline) -> None:
    """Before each write of the push in turn: run again, the change is committed once."""
    from flows.operations.push import push

    for writes in range(30):
        place.write([{"id": "a", "n": writes}])
        place.load()
        root = mirror_root(place)
        with dying(writes) as died:
            push(place.workspace, "things", "first", root)
        push(place.workspace, "things", "again", root)
        assert commits(place) == writes + 1
        assert held(place) == rewritten(place)
        if not died:
            return
    raise AssertionError("a push has fewer writes")


def mirror_root(place: Pipeline) -> str:
    from flows.operations.mirror import mirror

    return mirror(place.workspace, "things").root


def test_a_working_copy_is_not_pushed_into(place: Pipeline) -> None:
    """A folder that holds something else is left alone and told; what was to be pushed follows later."""
    place.workspace.home.path.mkdir()
    place.workspace.home.repository.mkdir()
    (place.workspace.home.repository / "thesis.txt").write_text("mine")
    with pytest.raises(Exception, match=r"repository\.git is not empty.*nothing in it was touched"):
        sync(place, ["a"])
    assert set(place.records()) == {"a"}
    shutil.rmtree(place.workspace.home.repository)
    assert place.run().pushed.sha and place.verify()["equal"] is True


def test_a_locked_branch_is_a_matter_of_time(place: Pipeline) -> None:
    """Another git holds the branch: told as something that passes; afterwards the push goes through."""
    sync(place, ["a"])
    lock = place.workspace.home.repository / "refs" / "heads" / "main.lock"
    lock.write_text("")
    with pytest.raises(RemoteError) as caught:
        sync(place, ["a", "b"])
    assert caught.value.retryable and not isinstance(caught.value, RemoteMoved)
    lock.unlink()
    assert place.run().pushed.sha and commits(place) == 2


def test_two_collections_share_a_branch(place: Pipeline) -> None:
    """Each has its folder; a full rewrite of one leaves the other alone."""
    config = place.folder / "autosync.toml"
    text = config.read_text()
    config.write_text(text + text.replace('"things"', '"others"').replace("things.json", "others.json"))
    place.write([{"id": "o"}], "others.json")
    sync(place, PLAIN[:200])
    place.run(source="others")
    sync(place, PLAIN)
    assert dict(open_remote(place.workspace).files("others"))["others/records.jsonl"] == b'{"id":"o"}\n'
    assert held(place) == rewritten(place) and place.verify()["equal"] is True
