"""The GitHub double against GitHub's published description, and what only GitHub's API asks for.

`tests/doubles/github_openapi.json` holds the operations in use out of that description: a route of the
double that isn't in it, or an answer that doesn't fit it, fails here.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped] # it comes without types

from autosync.errors import RemoteError, RemoteMoved, RemoteUnavailable
from autosync.ports import Commit, Remote
from blocks.repository.git import GitRepository
from tests.contract.conftest import commit, github
from tests.doubles.faults import Call, Fault, Reply
from tests.doubles.github_server import ROUTES, TOKEN, GitHubServer

DESCRIPTION = json.loads((Path(__file__).parent.parent / "doubles" / "github_openapi.json").read_text("utf-8"))


@pytest.fixture
def remote(server: GitHubServer) -> Iterator[Remote]:
    """The adapter over the double; afterwards every call and answer of the test is held against the description."""
    yield github(server).remote()
    for call, reply in server.replies:
        if call.path.startswith("/repos/"):
            assert _problems(call, reply) == []


def _operation(call: Call) -> dict[str, Any]:
    for name, operation in DESCRIPTION["operations"].items():
        method, path = name.split(" ")
        pattern = re.sub(r"\{(\w+)\}", lambda m: ".+" if m[1] in ("path", "ref") else "[^/]+", path)
        if method == call.method and re.fullmatch(pattern, call.path):
            return dict(operation)
    raise AssertionError(f"GitHub describes no {call.method} {call.path}")


def _problems(call: Call, reply: Reply) -> list[str]:
    operation = _operation(call)
    if reply.status in (401, 403, 429) or reply.status >= 500:  # described once for the whole API
        return []
    if str(reply.status) not in operation["responses"]:
        return [f"{call.method} {call.path} never answers {reply.status}"]
    checks = [(operation["responses"][str(reply.status)], reply.body)]
    if operation["request"] and call.body:
        checks.append((operation["request"], call.json))
    found = []
    for schema, value in checks:
        if schema is not None:
            whole = {**schema, "$defs": DESCRIPTION["$defs"]}
            found += [
                f"{call.path} {e.json_path}: {e.message[:200]}" for e in Draft202012Validator(whole).iter_errors(value)
            ]
    return found


def test_every_route_is_exercised_and_described(server: GitHubServer, remote: Remote) -> None:
    """One life of a repository uses every route of the double, each as GitHub describes it."""
    first = remote.commit(commit({"a.json": b"{}", "bin": b"\xff" * 10}, 1), parent=None)
    assert dict(remote.files("")) == {"a.json": b"{}", "bin": b"\xff" * 10}
    many: dict[str, bytes | None] = {f"d/{n:03}": b"%d" % n for n in range(120)}
    remote.commit(commit(many, 2), parent=first)
    assert remote.read("a.json") == b"{}"
    assert remote.read("none") is None
    assert len(list(remote.files("d"))) == 120
    assert remote.find("AutoSync-Seq", "1") == first
    with pytest.raises(RemoteMoved):
        remote.commit(commit({"x": b""}, 3), parent=first)
    aside = github(server, branch="aside").remote()
    aside.commit(commit({"x": b"1"}, 4), parent=None)
    assert {route[1] for route in ROUTES if not _used(route[1], server.calls)} == set()


def _used(pattern: str, calls: list[Call]) -> bool:
    return any(re.fullmatch(f"/repos/octo/records{pattern}", call.path) for call in calls)


def test_a_small_commit_takes_five_calls(server: GitHubServer, remote: Remote) -> None:
    """Reading the ref and its commit, one tree, one commit, one ref update: nothing more."""
    first = remote.commit(commit({"a": b"1", "b": b"2"}), parent=None)
    server.calls.clear()
    remote.commit(commit({"a": b"3", "b": None}, 2), parent=first)
    assert [call.method for call in server.calls] == ["GET", "GET", "POST", "POST", "PATCH"]


def test_no_request_is_too_large(server: GitHubServer, remote: Remote) -> None:
    """Much text goes in trees of at most 2 MB built on each other; large and binary files go as blobs."""
    files: dict[str, bytes | None] = {f"{n}.json": ("سلام" * 12_000).encode() for n in range(20)}
    files |= {"large.json": b"x" * 1_200_000, "binary": b"\xff\x00" * 1000}
    remote.commit(commit(files), parent=None)
    trees = [call for call in server.calls if call.path.endswith("/git/trees")]
    assert max(len(call.body) for call in trees) <= 2_100_000
    assert len(trees) > 2
    assert sum(call.path.endswith("/git/blobs") for call in server.calls) == 2
    assert dict(remote.files("")) == files


def test_files_are_sent_while_they_are_rendered(server: GitHubServer, remote: Remote) -> None:
    """Of a commit of any size no more than what one request takes is held: the first is sent before the rest exists."""
    rendered, at_request = list[str](), list[int]()

    def files() -> Iterator[tuple[str, bytes | None]]:
        for n in range(30):
            rendered.append(f"d/{n:02}")
            yield rendered[-1], b"%02d" % n + b"x" * 400_000

    server.faults.append(Fault("/git/trees", meanwhile=lambda: at_request.append(len(rendered)), times=99))
    remote.commit(Commit("many", (), files(), 1_700_000_000.0), parent=None)
    assert at_request == [5, 9, 13, 17, 21, 25, 29, 30]
    assert [path for path, _ in remote.files("d")] == rendered


def test_of_what_is_not_there_only_the_rest_is_deleted(server: GitHubServer, remote: Remote) -> None:
    """GitHub refuses a tree that deletes what isn't there: it is sent again without that, in as few calls."""
    first = remote.commit(commit({"a": b"1", "b": b"2", "c": b"3"}), parent=None)
    server.calls.clear()
    second = remote.commit(commit({"gone": None, "a": None, "c": b"4"}, 2), parent=first)
    assert dict(remote.files("")) == {"b": b"2", "c": b"4"}
    assert [call.method for call in server.calls if call.path.endswith("/git/trees")] == ["POST", "POST"]
    remote.commit(commit({"gone": None}, 3), parent=second)
    assert dict(remote.files("")) == {"b": b"2", "c": b"4"}


def test_a_file_beyond_the_limit_is_refused(server: GitHubServer, remote: Remote) -> None:
    """A file that GitHub can't take is refused with its name, and the branch stays."""
    first = remote.commit(commit({"a": b"1"}), parent=None)
    with pytest.raises(RemoteError, match=r"huge\.bin") as caught:
        remote.commit(commit({"huge.bin": bytes(40_000_001)}, 2), parent=first)
    assert not caught.value.retryable
    assert server.sha("main") == first


def test_a_full_rewrite_sends_only_what_differs(server: GitHubServer, remote: Remote) -> None:
    """Replacing a folder uploads no file that the branch already holds."""
    same: dict[str, bytes | None] = {f"d/{n}": b"same" * 1000 for n in range(5)}
    first = remote.commit(commit(same | {"d/old": b"x"}), parent=None)
    server.calls.clear()
    remote.commit(commit(same | {"d/new": b"n"}, 2, replace=("d",)), parent=first)
    (tree,) = [call.json["tree"] for call in server.calls if call.method == "POST" and "tree" in call.path]
    assert sorted(entry["path"] for entry in tree) == ["d/new", "d/old"]


def test_an_archive_that_leaves_files_out_is_completed(server: GitHubServer, remote: Remote) -> None:
    """`export-ignore` in .gitattributes hides files from archives, not from `files`."""
    files: dict[str, bytes | None] = {f"d/{n:03}": b"%d" % n for n in range(120)}
    files |= {".gitattributes": b"d/007 export-ignore\nd/008 export-subst\n", "d/008": b"$Format:%H$"}
    remote.commit(commit(files), parent=None)
    assert dict(remote.files("")) == files
    assert any("/archive/" in call.path for call in server.calls)


def test_the_first_commit_can_go_to_any_branch(server: GitHubServer) -> None:
    """In a repository without commits a branch other than the default one starts with ours alone."""
    sha = github(server, branch="records/live").remote().commit(commit({"a": b"1"}), parent=None)
    assert server.git("rev-list", "records/live").decode().split() == [sha]


LIMITS: list[tuple[int, dict[str, str], str, float]] = [
    (403, {"Retry-After": "30"}, "You have exceeded a secondary rate limit. Please wait.", 30),
    (429, {"Retry-After": "7"}, "Too many requests", 7),
    (403, {}, "You have exceeded a secondary rate limit and have been temporarily blocked", 60),
    (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "{in90}"}, "API rate limit exceeded for user", 90),
    (429, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "{in90}"}, "API rate limit exceeded for user", 90),
    (403, {"Retry-After": "{date90}"}, "You have exceeded a secondary rate limit. Please wait.", 90),
    (503, {"Retry-After": "20"}, "Service unavailable", 20),
]


@pytest.mark.parametrize("path", ["/git/trees", "/git/refs/"])
@pytest.mark.parametrize(("status", "headers", "message", "wait"), LIMITS)
def test_a_rate_limit_says_how_long_to_wait(
    server: GitHubServer, remote: Remote, path: str, status: int, headers: dict[str, str], message: str, wait: float
) -> None:
    """Each of GitHub's ways to say "later" becomes RemoteUnavailable with the seconds to wait."""
    first = remote.commit(commit({"a": b"1"}), parent=None)
    later = time.time() + 90
    sent = {
        name: value.format(in90=int(later), date90=formatdate(later, usegmt=True)) for name, value in headers.items()
    }
    server.faults.append(Fault(path, reply=Reply(status, {"message": message}, sent), times=9))
    with pytest.raises(RemoteUnavailable) as caught:
        remote.commit(commit({"a": b"2"}, 2), parent=first)
    assert caught.value.retry_after == pytest.approx(wait, abs=2)
    assert caught.value.what.startswith("GitHub asked to wait ")
    assert server.sha("main") == first and server.faults[0].times == 8, "asked once"


REFUSALS: list[tuple[str, int, str]] = [
    ("/git/trees", 403, "Contents: read and write"),
    ("/git/trees", 404, "repository's name"),
    ("/git/refs/", 422, "protects the branch"),
]


@pytest.mark.parametrize(("path", "status", "todo"), REFUSALS)
def test_a_refusal_says_what_to_do(server: GitHubServer, remote: Remote, path: str, status: int, todo: str) -> None:
    """What GitHub refuses for good is a RemoteError with the next step for a person, and nothing moved."""
    first = remote.commit(commit({"a": b"1"}), parent=None)
    server.faults.append(Fault(path, reply=Reply(status, {"message": "no", "documentation_url": ""})))
    with pytest.raises(RemoteError) as caught:
        remote.commit(commit({"a": b"2"}, 2), parent=first)
    assert not caught.value.retryable
    assert todo in str(caught.value)
    assert server.sha("main") == first


def test_a_repository_that_is_missing_is_told(server: GitHubServer) -> None:
    """A wrong repository name is no empty branch but an error."""
    block = github(server)
    block.repository = "octo/other"
    with pytest.raises(RemoteError, match="repository's name"):
        block.remote().head()


def test_a_silent_server_is_unavailable(server: GitHubServer) -> None:
    """An answer that takes longer than the timeout is RemoteUnavailable."""
    block = github(server)
    block.timeout = 1
    server.faults.append(Fault(delay=1.2))
    with pytest.raises(RemoteUnavailable, match="in time"):
        block.remote().head()


def test_half_an_answer_is_unavailable(server: GitHubServer, remote: Remote) -> None:
    """A page that is not GitHub's (a proxy's, a cut one) is RemoteUnavailable, not a crash."""
    remote.commit(commit({"a": b"1"}), parent=None)
    server.faults.append(Fault("/git/ref/", reply=Reply(200, b'{"object": {"sha": 7}}')))
    with pytest.raises(RemoteUnavailable):
        remote.head()
    server.replies.clear()


SHA = "1" * 40
PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>"
OTHERS: dict[str, bytes] = {
    "page": PAGE,
    "nothing": b"",
    "empty": b"{}",
    "null": b"null",
    "text": b'"moved"',
    "list": b"[]",
    "lists": b"[[]]",
    "cut": b'{"ref": "refs/heads/main", "object": {"sha": "1111',
    "branch": json.dumps({"ref": "refs/heads/other", "object": {"type": "commit", "sha": SHA}}).encode(),
    "tree": json.dumps({"sha": SHA, "tree": [], "truncated": False}).encode(),
    "commit": json.dumps({"sha": SHA, "message": "m", "tree": {"sha": SHA}, "parents": []}).encode(),
    "file": json.dumps({"sha": SHA, "type": "file", "path": "x", "encoding": "base64", "content": ""}).encode(),
    "no sha": b'{"sha": null, "ref": "refs/heads/main", "object": {"sha": null}}',
    "odd sha": b'{"sha": "", "ref": "refs/heads/main", "object": {"type": "commit", "sha": ""}}',
}
BETWEEN = "GitHub (or something in between)"
PUSH = [
    ("GET", "/git/ref/"),
    ("GET", "/git/commits/"),
    ("GET", "/git/trees/"),
    ("POST", "/git/blobs"),
    ("POST", "/git/trees"),
    ("POST", "/git/commits"),
    ("PATCH", "/git/refs/"),
]


@pytest.mark.parametrize(("method", "path"), PUSH)
def test_an_answer_that_is_not_what_was_asked_for_moves_nothing(server: GitHubServer, method: str, path: str) -> None:
    """At every call of a push, with success as status: a page, half an answer or another object is RemoteUnavailable;
    the branch stands, and the next try makes the one commit.
    """
    remote = github(server).remote()
    first = remote.commit(commit({"d/a": b"1", "d/old": b"1"}), parent=None)
    files: dict[str, bytes | None] = {"d/a": b"2", "d/binary": b"\xff"}
    for name, body in OTHERS.items():
        for status in (200, 201):
            fault = Fault(path, method, reply=Reply(status, body))
            server.faults.append(fault)
            with pytest.raises(RemoteUnavailable) as caught:
                remote.commit(commit(files, 2, replace=("d",)), parent=first)
            assert caught.value.what.startswith(f"{BETWEEN} answered with no "), (name, status)
            assert caught.value.kept == "the branch was not moved" and not isinstance(caught.value, RemoteMoved)
            assert server.sha("main") == first and fault.times == 0, (name, status)
    sha = remote.commit(commit(files, 2, replace=("d",)), parent=first)
    assert server.git("rev-list", "main").decode().split() == [sha, *server.git("rev-list", first).decode().split()]
    assert dict(remote.files("d")) == files


@pytest.mark.parametrize("branch", ["main", "aside"])
def test_a_moved_branch_is_recognised_behind_any_answer(server: GitHubServer, branch: str) -> None:
    """The branch moved (or was made) and something else answered: it is read again, and the commit counts as made."""
    github(server).remote().commit(commit({"a": b"1"}), parent=None)
    remote = github(server, branch=branch).remote()
    for seq, (name, body) in enumerate(OTHERS.items(), start=2):
        head = remote.head()
        server.faults.append(Fault("/git/refs", reply=Reply(200, body), after=True))
        server.calls.clear()
        sha = remote.commit(commit({"a": b"%d" % seq}, seq), parent=head.sha if head else None)
        assert server.sha(branch) == sha and server.faults[-1].times == 0, name
        assert sum("/git/refs" in call.path for call in server.calls) == 1, name


@pytest.mark.parametrize(("method", "path"), [("POST", "/git/refs"), ("PUT", "/contents/"), ("GET", "/branches")])
def test_a_new_branch_is_not_made_by_another_answer(server: GitHubServer, method: str, path: str) -> None:
    """The calls that only a first commit makes: what isn't their answer makes no branch, the next try does."""
    remote = github(server, branch="records").remote()
    for name, body in OTHERS.items():
        if (method, body) == ("GET", b"[]"):  # a repository without any branch answers so
            continue
        server.faults.append(Fault(path, method, reply=Reply(200 if method == "GET" else 201, body)))
        with pytest.raises(RemoteUnavailable) as caught:
            remote.commit(commit({"a": b"1"}), parent=None)
        assert caught.value.what.startswith(f"{BETWEEN} answered with no "), name
        assert not server.sha("records") and server.faults[-1].times == 0, name
    assert remote.commit(commit({"a": b"1"}), parent=None) == server.sha("records")


READS: list[tuple[str, Callable[[Remote], object]]] = [
    ("/git/ref/", lambda remote: remote.head()),
    ("/git/commits/", lambda remote: remote.head()),
    ("/contents/", lambda remote: remote.read("d/a")),
    ("/git/blobs/", lambda remote: list(remote.files("d"))),
    ("/git/trees/", lambda remote: list(remote.files("d"))),
    ("records/commits", lambda remote: remote.find("AutoSync-Seq", "1")),
    ("records/commits", lambda remote: list(remote.history("d/a"))),
]


@pytest.mark.parametrize(("path", "read"), READS)
def test_what_is_read_is_what_was_asked_for(server: GitHubServer, path: str, read: Callable[[Remote], object]) -> None:
    """No page and no other object counts as a file, as a missing file or as the end of a history."""
    remote = github(server).remote()
    remote.commit(commit({"d/a": b"1", "d/b": b"2"}), parent=None)
    wanted = read(remote)
    for name, body in OTHERS.items():
        if path.endswith("/commits") and body == b"[]":  # GitHub's own way to say that there are none
            continue
        server.faults.append(Fault(path, "GET", reply=Reply(200, body)))
        with pytest.raises(RemoteUnavailable) as caught:
            read(remote)
        assert caught.value.what.startswith(f"{BETWEEN} answered with no "), name
        assert server.faults[-1].times == 0
    assert read(remote) == wanted


@pytest.mark.parametrize("body", [PAGE, b"", b"{}"])
@pytest.mark.parametrize("status", [404, 409])
def test_only_github_says_that_something_is_missing(server: GitHubServer, status: int, body: bytes) -> None:
    """A 404 that isn't GitHub's makes no new branch, no new file and no empty history."""
    remote = github(server).remote()
    remote.commit(commit({"a": b"1"}), parent=None)
    for path, read in READS[:1] + READS[2:3] + READS[5:]:
        server.faults.append(Fault(path, "GET", reply=Reply(status, body)))
        with pytest.raises(RemoteUnavailable, match="answered with no"):
            read(remote)


def test_a_page_instead_of_an_archive_is_unavailable(server: GitHubServer) -> None:
    """Neither the link to the download nor the download itself may be something else."""
    remote = github(server).remote()
    remote.commit(commit({f"d/{n:03}": b"%d" % n for n in range(120)}), parent=None)
    for path in ("/tarball/", "/archive/"):
        server.faults.append(Fault(path, reply=Reply(200, PAGE)))
        with pytest.raises(RemoteUnavailable, match="answered with no"):
            list(remote.files("d"))
    assert len(list(remote.files("d"))) == 120


def test_a_redirect_to_another_host_is_unavailable(server: GitHubServer) -> None:
    """A log-in page elsewhere, for good (301) or for now (302), is nothing to follow and nothing to crash on."""
    remote = github(server).remote()
    for status in (301, 302):
        server.faults.append(Fault(reply=Reply(status, PAGE, {"Location": "https://login.example.org/"})))
        with pytest.raises(RemoteUnavailable):
            remote.head()


@pytest.mark.parametrize("empty", [True, False])
def test_a_first_commit_never_overwrites_a_branch_that_appears(server: GitHubServer, empty: bool) -> None:
    """Somebody makes the branch after it was read as missing, in an empty repository or not: their files stay."""
    other, theirs = GitRepository(server.path), commit({"theirs": b"1"}, 9)
    if not empty:
        github(server, branch="aside").remote().commit(commit({"x": b"x"}), parent=None)
        server.git("update-ref", "-d", "refs/heads/main")
    path = "/contents/" if empty else "/branches"
    server.faults.append(Fault(path, skip=not empty, meanwhile=lambda: other.commit(theirs, parent=None)))
    with pytest.raises(RemoteMoved):
        github(server).remote().commit(commit({"a": b"1"}), parent=None)
    assert dict(other.files(""))["theirs"] == b"1"


@pytest.mark.parametrize("make", [lambda s, p: github(s).remote(), lambda s, p: _over_http(s, p)])
def test_the_token_is_in_no_log(
    server: GitHubServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    make: Callable[[GitHubServer, Path], Remote],
) -> None:
    """Even at debug level no log line and no repr holds the token."""
    caplog.set_level(logging.DEBUG)
    remote = make(server, tmp_path / "cache")
    remote.commit(commit({"a": b"1"}), parent=None)
    assert TOKEN not in caplog.text + repr(remote) + remote.address


def _over_http(server: GitHubServer, cache: Path) -> Remote:
    return GitRepository(server.url.replace("://", f"://octo:{TOKEN}@") + f"/{server.name}.git", cache=cache)
