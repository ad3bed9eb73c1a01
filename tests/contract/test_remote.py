"""The contract of a Remote, for every implementation."""

from __future__ import annotations

import logging
import subprocess
import threading
from pathlib import Path

import pytest

from autosync.errors import RemoteError, RemoteMoved, RemoteUnavailable
from blocks.repository.git import GitRepository
from blocks.store.shard_files import all_files
from tests.contract.conftest import Place, commit, github, push_store
from tests.doubles.faults import Fault, Reply
from tests.doubles.github_server import GitHubServer
from tests.pipeline import Pipeline

NAMES = [
    "a/plain.json",
    "سند/گزارش.json",
    "with space & 'quotes'.json",
    "日本/ファイル.json",
    "emoji/🙂.json",
    "z%20+#?.json",
]


def test_a_new_branch_has_no_head(place: Place) -> None:
    """A repository without any commit has no head, no files and no commit to find."""
    assert place.remote.head() is None
    assert place.remote.read("a.json") is None
    assert place.remote.find("AutoSync-Seq", "1") is None
    assert list(place.remote.files("")) == []


def test_the_first_commit_makes_the_branch(place: Place) -> None:
    """The first commit, on no parent, becomes the head with its message and trailers."""
    sha = place.remote.commit(commit({"a.json": b"{}"}, 7), parent=None)
    head = place.remote.head()
    assert head is not None and head.sha == sha
    assert head.trailers == {"AutoSync-Seq": "7", "AutoSync-Run": "run-7"}
    assert head.message.startswith("Sync tickets\n\n1 files\n\n")
    assert place.everything() == {"a.json": b"{}"}


def test_any_bytes_come_back_equal(place: Place) -> None:
    """Empty, binary, large, unusual line ends: a file reads back byte for byte."""
    files: dict[str, bytes | None] = {
        "empty": b"",
        "binary": bytes(range(256)) * 10,
        "crlf": b"a\r\nb\r\n",
        "large.json": b'{"a": "\xd8\xb3"}\n' * 90_000,
        "no-end": "بدون پایان".encode(),
    }
    place.put(files)
    assert place.everything() == files
    assert place.remote.read("large.json") == files["large.json"]
    assert place.remote.read("empty") == b""


@pytest.mark.parametrize("name", NAMES)
def test_any_printable_name_works(place: Place, name: str) -> None:
    """A path in any script, with spaces and signs, is written, read and deleted."""
    place.put({name: b"1", "keep": b"2"})
    assert place.remote.read(name) == b"1"
    place.put({name: None}, 2)
    assert place.everything() == {"keep": b"2"}


def test_a_commit_changes_only_what_it_names(place: Place) -> None:
    """Files that a commit doesn't name stay; named ones are replaced, added or deleted together."""
    place.put({"a/1.json": b"1", "a/2.json": b"2", "b/3.json": b"3"})
    place.put({"a/1.json": b"one", "a/2.json": None, "c/4.json": b"4"}, 2)
    assert place.everything() == {"a/1.json": b"one", "b/3.json": b"3", "c/4.json": b"4"}


def test_deleting_what_is_not_there_is_no_error(place: Place) -> None:
    """A deletion that was already done by somebody else doesn't stop the commit."""
    place.put({"a": b"1"})
    place.put({"gone": None, "b": b"2"}, 2)
    assert place.everything() == {"a": b"1", "b": b"2"}


def test_a_file_may_become_a_folder(place: Place) -> None:
    """A name that changes from file to folder, and back, needs one commit each."""
    place.put({"a": b"file", "b": b"x"})
    place.put({"a": None, "a/b": b"inside"}, 2)
    assert place.everything() == {"a/b": b"inside", "b": b"x"}
    place.put({"a/b": None, "a": b"file"}, 3)
    assert place.everything() == {"a": b"file", "b": b"x"}


def test_replace_rewrites_a_folder(place: Place) -> None:
    """A replaced folder holds exactly the named files afterwards; other folders are left alone."""
    place.put({"data/1": b"1", "data/sub/2": b"2", "data2/3": b"3", "README": b"r"})
    place.put({"data/1": b"1", "data/new": b"n"}, 2, replace=("data",))
    assert place.everything() == {"data/1": b"1", "data/new": b"n", "data2/3": b"3", "README": b"r"}


def test_replace_makes_way_for_new_names(place: Place) -> None:
    """In a replaced folder files become folders and folders files, whatever the order in which they are named."""
    place.put({"data/a": b"a", "data/b/1": b"1", "data/b/2": b"2", "data/z": b"z", "other/a": b"o"})
    place.put({"data/0": b"0", "data/a/x": b"x", "data/b": b"b", "data/z/1/2": b"z"}, 2, replace=("data",))
    wanted = {"data/0": b"0", "data/a/x": b"x", "data/b": b"b", "data/z/1/2": b"z", "other/a": b"o"}
    assert place.everything() == wanted


def test_files_come_below_a_folder_in_path_order(place: Place) -> None:
    """`files` gives one folder's files, not those of a folder whose name merely starts alike."""
    place.put({f"data/{name}": name.encode() for name in ("b", "a/z", "a.json", "c")} | {"data2/x": b"x"})
    assert [path for path, _ in place.remote.files("data")] == ["data/a.json", "data/a/z", "data/b", "data/c"]
    assert list(place.remote.files("nothing")) == []


def test_many_files_in_one_commit(place: Place) -> None:
    """A commit of more files than are read one by one stays one commit, and reads back whole."""
    files: dict[str, bytes | None] = {f"d/{n:04}.json": b'{"n": %d}\n' % n for n in range(150)}
    place.put(files)
    assert place.everything() == files


def filled(folder: Path, ids: range, name: str = "things", note: str = "") -> Pipeline:
    """A home whose store holds these records of a collection."""
    folder.mkdir(exist_ok=True)
    store = Pipeline(folder)
    store.configure(name=name, guard={"max_delete": 1.0})
    store.write([{"id": f"k{n:05}", "note": f"{note}سلام"} for n in ids])
    store.load(source=name)
    return store


def rendered(store: Pipeline) -> dict[str, bytes]:
    """Every file of the store's collection, below its folder."""
    with store.workspace.database(read_only=True) as db:
        records = db.execute("SELECT records FROM collection").fetchone()[0]
        return {f"things/{path}": data for path, data in all_files(db, 1, records)}


def test_the_files_that_a_store_renders(place: Place, tmp_path: Path) -> None:
    """The store's own streams: all files of a first push, then those that changes touched (boundaries went and came),
    then all again when there is another layout; other folders are left alone.
    """
    place.put({"README": b"r"})
    for ids, note in ((range(1000), ""), (range(40, 1030), ""), (range(40, 300), "x"), (range(100), "x")):
        store = filled(tmp_path, ids, note=note)
        sha, _ = push_store(store, place.remote)
        files = place.everything()
        assert files.pop("README") == b"r" and files.pop("things/manifest.json")
        assert files == rendered(store)
        head = place.remote.head()
        assert head is not None and head.sha == sha


def test_a_full_rewrite_renders_each_record_once(place: Place, tmp_path: Path) -> None:
    """Twice the records are twice the work in the store, for a first push and for one over what is there already."""
    steps = []
    for n in (1, 2):
        store = filled(tmp_path / str(n), range(n * 1000), f"c{n}")
        _, first = push_store(store, place.remote, f"c{n}")
        with store.workspace.database() as db:
            db.execute("DELETE FROM consumer")
        place.put({f"c{n}/manifest.json": b"spoilt"}, 10 + n)
        _, again = push_store(store, place.remote, f"c{n}")
        steps.append((first, again))
    assert all(1.5 < two / one < 2.5 for one, two in zip(*steps, strict=True)), steps


def test_a_moved_branch_is_refused(place: Place) -> None:
    """A commit on an older parent raises RemoteMoved and changes nothing."""
    first = place.put({"a": b"1"})
    second = place.other.commit(commit({"b": b"theirs"}, 2), parent=first)
    with pytest.raises(RemoteMoved):
        place.remote.commit(commit({"a": b"mine"}, 3), parent=first)
    head = place.remote.head()
    assert head is not None and head.sha == second
    assert place.everything() == {"a": b"1", "b": b"theirs"}


def test_a_branch_that_appeared_is_refused(place: Place) -> None:
    """A first commit raises RemoteMoved when somebody else made the first one."""
    place.put({"a": b"1"})
    with pytest.raises(RemoteMoved):
        place.remote.commit(commit({"b": b"2"}, 2), parent=None)
    assert place.everything() == {"a": b"1"}


def test_a_vanished_parent_is_refused(place: Place) -> None:
    """A commit on a parent that the repository doesn't have raises RemoteMoved."""
    with pytest.raises(RemoteMoved):
        place.remote.commit(commit({"b": b"2"}), parent="1" * 40)
    assert place.remote.head() is None


def test_a_commit_is_found_by_its_trailer(place: Place) -> None:
    """A trailer's exact value finds its commit, among commits of others too."""
    shas = [place.put({"a": str(n).encode()}, n) for n in (1, 2, 12)]
    assert place.remote.find("AutoSync-Seq", "2") == shas[1]
    assert place.remote.find("AutoSync-Seq", "12") == shas[2]
    assert place.remote.find("AutoSync-Seq", "3") is None
    assert place.remote.find("AutoSync", "2") is None


def test_the_history_of_a_path_and_its_files_then(place: Place) -> None:
    """The commits that changed a path, newest first, with trailers and times; the files as each left them."""
    assert list(place.remote.history("a/m.json")) == []
    parent, shas = None, list[str]()
    for seq in range(1, 131):  # more than one page of answers
        files: dict[str, bytes | None] = {f"{'a' if seq % 2 else 'b'}/m.json": b"%d" % seq}
        shas.append(parent := place.remote.commit(commit(files, seq), parent=parent))
    found = list(place.remote.history("a/m.json"))
    assert [one.sha for one in found] == shas[::-1][1::2]
    assert [one.trailers["AutoSync-Seq"] for one in found] == [str(seq) for seq in range(129, 0, -2)]
    assert [one.time for one in found] == [float(1_700_000_000 + seq) for seq in range(129, 0, -2)]
    assert list(place.remote.files("a", shas[6])) == [("a/m.json", b"7")]
    assert list(place.remote.files("", shas[1])) == [("a/m.json", b"1"), ("b/m.json", b"2")]


def test_a_link_names_the_commit(place: Place) -> None:
    """What is shown to people names the commit."""
    sha = place.put({"a": b"1"})
    assert sha in place.remote.link(sha)


def test_a_clone_shows_the_commits(place: Place, tmp_path: Path) -> None:
    """`git clone` of the repository holds every file, the author, the time and the trailers."""
    if place.path is None:
        pytest.skip("there is no repository behind it")
    files: dict[str, bytes | None] = {"سند/1.json": "سلام\n".encode(), "b": b"\x00\xff"}
    place.put(files)
    place.put({"c": b"3"}, 2)
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(place.path), str(clone)], check=True)
    there = {
        str(p.relative_to(clone)): p.read_bytes() for p in clone.rglob("*") if p.is_file() and ".git" not in p.parts
    }
    form = "%an|%ae|%ct|%(trailers:key=AutoSync-Seq,valueonly,separator=)"
    shown = subprocess.run(["git", "-C", str(clone), "log", "-1", f"--format={form}"], capture_output=True, check=True)
    assert there == files | {"c": b"3"}
    assert shown.stdout.decode().strip() == "AutoSync|autosync@localhost|1700000002|2"
    subprocess.run(["git", "-C", str(place.path), "fsck", "--strict", "--no-dangling"], check=True, capture_output=True)


@pytest.mark.parametrize("name", ["", "/etc/x", "a/../b", ".git/config", "a//b", "x\0y", "\ud800"])
def test_impossible_names_are_refused(place: Place, name: str) -> None:
    """A name that would leave the repository, or that Git can't hold, refuses the whole commit."""
    if place.kind == "memory":
        pytest.skip("memory holds any name")
    place.put({"a": b"1"})
    with pytest.raises(RemoteError, match="can't be the name"):
        place.put({"b": b"2", name: b"x"}, 2)
    assert place.everything() == {"a": b"1"}


def test_of_two_at_once_one_wins(place: Place) -> None:
    """Two writers on the same parent: one commit is made, the other gets RemoteMoved."""
    first = place.put({"a": b"1"})
    remotes, outcomes = [place.remote, place.other], list[str]()

    def write(number: int) -> None:
        try:
            outcomes.append(remotes[number].commit(commit({f"w{number}": b"x"}, 10 + number), parent=first))
        except RemoteUnavailable:
            outcomes.append("refused")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("refused") == 1
    assert len(place.everything()) == 2


REF = r"/git/refs(/heads/main)?$|git-receive-pack$"


@pytest.fixture
def far(place: Place) -> GitHubServer:
    """The server of the implementations that have one, with a first commit."""
    if place.server is None:
        pytest.skip("nothing to go wrong on the way")
    place.put({"a": b"1"})
    return place.server


def test_a_lost_reply_is_a_done_commit(place: Place, far: GitHubServer) -> None:
    """When the branch moved and only the answer was lost, the commit counts as made, once."""
    before = len(far.git("rev-list", "main").split())
    far.faults.append(Fault(REF, lost=True))
    sha = place.put({"a": b"2"}, 2)
    assert far.faults[0].times == 0
    assert far.sha("main") == sha
    assert len(far.git("rev-list", "main").split()) == before + 1


def test_an_unknown_outcome_is_recognised_later(place: Place, far: GitHubServer) -> None:
    """When the connection dies as the branch moves, the next run finds the commit by its trailer."""
    silence = Fault(dropped=True, times=99)
    far.faults.append(Fault(REF, lost=True, meanwhile=lambda: far.faults.append(silence)))
    parent = far.sha("main")
    with pytest.raises(RemoteUnavailable):
        place.remote.commit(commit({"a": b"2"}, 2), parent=parent)
    far.faults.clear()
    assert place.remote.find("AutoSync-Seq", "2") == far.sha("main") != parent


def test_somebody_else_in_the_last_moment(place: Place, far: GitHubServer) -> None:
    """A commit that lands between reading the branch and moving it stays; ours is refused."""
    parent = far.sha("main")
    theirs = commit({"theirs": b"x"}, 9)
    far.faults.append(Fault(REF, "", meanwhile=lambda: place.other.commit(theirs, parent=parent)))
    with pytest.raises(RemoteMoved):
        place.remote.commit(commit({"a": b"mine"}, 2), parent=parent)
    assert place.everything() == {"a": b"1", "theirs": b"x"}


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_failing_server_changes_nothing(place: Place, far: GitHubServer, status: int) -> None:
    """A 5xx answer is RemoteUnavailable, the branch stands where it stood, and the next try works."""
    parent = far.sha("main")
    far.faults.append(Fault(REF, reply=Reply(status, {"message": "Server Error"}), times=9))
    with pytest.raises(RemoteUnavailable) as caught:
        place.remote.commit(commit({"a": b"2"}, 2), parent=parent)
    assert not isinstance(caught.value, RemoteMoved)
    assert far.sha("main") == parent
    far.faults.clear()
    place.put({"a": b"2"}, 2)
    assert place.everything() == {"a": b"2"}


def test_a_refused_login_says_what_to_do(
    server: GitHubServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong token is a RemoteError that helps; the token is in no error, repr or log."""
    caplog.set_level(logging.DEBUG)
    address = server.url.replace("://", "://octo:wrong-secret@") + f"/{server.name}.git"
    block = github(server, token="wrong-secret")
    for remote in (block.remote(), GitRepository(address, cache=tmp_path / "cache")):
        with pytest.raises(RemoteError) as caught:
            remote.head()
        assert not caught.value.retryable
        assert caught.value.todo
        seen = f"{caught.value!s} {caught.value!r} {remote!r} {block!r} {remote.address} {caplog.text}"
        assert "wrong-secret" not in seen
