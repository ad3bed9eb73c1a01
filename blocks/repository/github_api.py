"""GitHub's Git Data API, one call a method.

A call has succeeded when its answer is what was asked for: the status that GitHub describes, the shape, and the very
object (its sha, the branch's name, the tree and parents of a commit). Whatever else comes back with a status below 400
(a proxy's page, a log-in page, half an answer, another object) is RemoteUnavailable, and so is a "not found" that isn't
in GitHub's own form. PyGithub's objects would take such answers: theirs is an attribute that is None.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Annotated, Any, NamedTuple, TypeVar
from urllib.parse import quote

import msgspec
import requests
from github.Requester import Requester

from autosync.errors import RemoteError, RemoteUnavailable
from autosync.policy import asked_wait
from blocks.repository.git import KEPT

__all__ = ["Entry", "GitHubApi", "GitHubRefused", "blob_sha", "network_errors"]

T = TypeVar("T")
Sha = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$")]
Entry = dict[str, str | None]
PER_PAGE = 100
LIMITED = 60.0  # what GitHub wants after a limit that it gives no time for


class GitHubRefused(RemoteError):
    """GitHub's own "no" to a call, with the HTTP status."""

    def __init__(self, status: int, what: str, *, where: str, todo: str) -> None:
        super().__init__(what, where=where, kept=KEPT, todo=todo)
        self.status = status


class Named(msgspec.Struct, frozen=True):
    """Anything that answers with its sha: a blob, the target of a ref, the tree or a parent of a commit."""

    sha: Sha


class Ref(msgspec.Struct, frozen=True):
    """A branch: its full name and the commit that it stands at."""

    ref: str
    object: Named


class Branch(msgspec.Struct, frozen=True):
    """A branch as the list of branches names it."""

    name: str


class Person(msgspec.Struct, frozen=True):
    """Who committed, and when."""

    date: datetime | None = None


class Content(msgspec.Struct, frozen=True):
    """What a commit says."""

    message: str
    committer: Person | None = None

    @property
    def time(self) -> float:
        """Unix seconds; 0 when GitHub doesn't tell."""
        return self.committer.date.timestamp() if self.committer and self.committer.date else 0.0


class GitCommit(Content, frozen=True, kw_only=True):
    """A commit object."""

    sha: Sha
    tree: Named
    parents: list[Named]


class ListedCommit(msgspec.Struct, frozen=True):
    """A commit of a branch's history."""

    sha: Sha
    commit: Content


class TreeEntry(msgspec.Struct, frozen=True):
    """A file or folder of a tree."""

    path: str
    mode: str
    type: str
    sha: Sha


class Tree(msgspec.Struct, frozen=True):
    """A tree object; `truncated` when it has too many entries for one answer."""

    sha: Sha
    tree: list[TreeEntry]
    truncated: bool = False


class Blob(msgspec.Struct, frozen=True):
    """A file's content."""

    sha: Sha
    content: str
    encoding: str

    @property
    def data(self) -> bytes | None:
        """The bytes; None when they are not those of the sha."""
        try:
            data = base64.b64decode(self.content)
        except binascii.Error:
            return None
        return data if self.encoding == "base64" and blob_sha(data) == self.sha else None


class FileContent(msgspec.Struct, frozen=True):
    """A path at a commit; a large file comes without its content."""

    type: str
    path: str
    sha: Sha
    content: str | None = None
    encoding: str | None = None


class FileCommit(Named, frozen=True):
    """The commit that the contents API makes of a file."""

    parents: list[Named] = []


class NewFile(msgspec.Struct, frozen=True):
    """The answer to a file made through the contents API."""

    content: FileContent
    commit: FileCommit


class Problem(msgspec.Struct, frozen=True):
    """The form of GitHub's error answers."""

    message: str


class Answer(NamedTuple):
    """An HTTP answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: str

    @property
    def message(self) -> str | None:
        """What GitHub says in an error; None when this is not GitHub's form."""
        try:
            return msgspec.json.decode(self.body, type=Problem).message
        except msgspec.DecodeError:
            return None

    @property
    def missing(self) -> bool:
        """Whether GitHub says that it isn't there (404), or that the repository has no commit at all (409)."""
        text = self.message
        return text is not None and (self.status == 404 or (self.status == 409 and "empty" in text.lower()))


class GitHubApi:
    """The calls on one repository; `where` is its page, for people."""

    def __init__(self, requester: Requester, repository: str, where: str) -> None:
        self._requester, self._path, self._where = requester, f"/repos/{repository}", where

    def ref(self, branch: str) -> str | None:
        """The commit that a branch stands at; None when it or every commit is missing."""
        name = f"refs/heads/{branch}"
        ref = self._look(f"/git/ref/heads/{quote(branch)}", Ref, f"branch {branch}", lambda ref: ref.ref == name)
        return ref.object.sha if ref else None

    def has_branches(self) -> bool:
        """Whether there is any commit. Raises RemoteError when there is no such repository."""
        answer = self._exchange("GET", "/branches", query={"per_page": "1"})
        return bool(self._read(answer, list[Branch], "list of branches"))

    def move_ref(self, branch: str, sha: str) -> None:
        """Move a branch forward to a commit; GitHub refuses to lose commits."""
        path, body = f"/git/refs/heads/{quote(branch)}", {"sha": sha, "force": False}
        self._read(self._exchange("PATCH", path, body), Ref, "moved branch", _stands_at(branch, sha))

    def create_ref(self, branch: str, sha: str) -> None:
        """Make a branch that stands at a commit."""
        answer = self._exchange("POST", "/git/refs", {"ref": f"refs/heads/{branch}", "sha": sha})
        self._read(answer, Ref, "new branch", _stands_at(branch, sha), status=201)

    def commit(self, sha: str) -> GitCommit:
        """A commit."""
        return self._read(self._exchange("GET", f"/git/commits/{sha}"), GitCommit, "commit", lambda c: c.sha == sha)

    def create_commit(self, text: str, tree: str, parents: list[str], author: tuple[str, str], time: float) -> str:
        """Make a commit of a tree."""
        who = dict(zip(("name", "email"), author, strict=True))
        who["date"] = datetime.fromtimestamp(int(time), UTC).isoformat()
        body = {"message": text, "tree": tree, "parents": parents, "author": who, "committer": who}

        def right(commit: GitCommit) -> bool:
            return commit.tree.sha == tree and [parent.sha for parent in commit.parents] == parents

        return self._read(self._exchange("POST", "/git/commits", body), GitCommit, "new commit", right, status=201).sha

    def tree(self, sha: str, *, recursive: bool = False) -> Tree:
        """A folder's entries, or everything below it."""
        answer = self._exchange("GET", f"/git/trees/{sha}", query={"recursive": "1"} if recursive else {})
        return self._read(answer, Tree, "tree", lambda tree: tree.sha == sha)

    def listing(self, tree: str, under: str) -> dict[str, str]:
        """Path -> blob sha of the regular files of a tree below a folder (all of them for "")."""
        prefix = ""
        for name in PurePosixPath(under).parts:
            entry = next((entry for entry in self.tree(tree).tree if entry.path == name), None)
            if entry is None or entry.type != "tree":
                return {}
            prefix, tree = f"{prefix}{name}/", entry.sha
        return dict(self._walk(tree, prefix))

    def _walk(self, sha: str, prefix: str) -> Iterator[tuple[str, str]]:
        whole = self.tree(sha, recursive=True)
        cut = whole.truncated  # more than 100,000 entries: folder by folder then
        for entry in self.tree(sha).tree if cut else whole.tree:
            if entry.type == "blob" and entry.mode in ("100644", "100755"):
                yield prefix + entry.path, entry.sha
            elif cut and entry.type == "tree":
                yield from self._walk(entry.sha, f"{prefix}{entry.path}/")

    def create_tree(self, entries: list[Entry], base: str | None) -> str:
        """Make a tree out of an older one and what changes."""
        body = {"tree": entries} | ({"base_tree": base} if base else {})
        writes = any("content" in entry or entry.get("sha") for entry in entries)
        answer = self._exchange("POST", "/git/trees", body)
        return self._read(answer, Tree, "new tree", lambda tree: bool(tree.tree) or not writes, status=201).sha

    def blob(self, sha: str) -> bytes:
        """A file's content by its sha."""
        answer = self._exchange("GET", f"/git/blobs/{sha}")
        blob = self._read(answer, Blob, "file content", lambda blob: blob.sha == sha and blob.data is not None)
        return blob.data or b""

    def create_blob(self, data: bytes) -> str:
        """Send a file's content."""
        body, sha = {"content": base64.b64encode(data).decode(), "encoding": "base64"}, blob_sha(data)
        return self._read(
            self._exchange("POST", "/git/blobs", body), Named, "new blob", lambda blob: blob.sha == sha, status=201
        ).sha

    def file(self, path: str, branch: str) -> bytes | None:
        """A regular file at a branch's head, or None."""

        def right(answer: FileContent | list[FileContent]) -> bool:
            if isinstance(answer, list):  # a folder
                return bool(answer) and all(entry.path.startswith(f"{path}/") for entry in answer)
            return answer.path == path

        shape: Any = FileContent | list[FileContent]
        found = self._look(f"/contents/{quote(path)}", shape, f"file {path}", right, {"ref": branch})
        if not isinstance(found, FileContent) or found.type != "file":
            return None
        inline = Blob(found.sha, found.content or "", found.encoding or "").data
        return self.blob(found.sha) if inline is None else inline

    def create_file(self, path: str, text: str, message: str) -> FileCommit:
        """Commit a new file to the default branch: what a repository without any commit takes first."""
        body = {"message": message, "content": base64.b64encode(text.encode()).decode()}
        answer = self._exchange("PUT", f"/contents/{quote(path)}", body)
        return self._read(answer, NewFile, "first commit", lambda new: new.content.path == path, status=201).commit

    def commits(self, branch: str, path: str = "") -> Iterator[ListedCommit]:
        """A branch's commits (those that changed a path), newest first, page by page; none when it is missing."""
        page, more = 0, True
        while more:
            page += 1
            query = {"sha": branch, "per_page": str(PER_PAGE), "page": str(page)} | ({"path": path} if path else {})
            answer = self._exchange("GET", "/commits", query=query)
            if answer.missing:
                return
            yield from self._read(answer, list[ListedCommit], "list of commits")
            more = 'rel="next"' in answer.headers.get("link", "")

    def archive(self, sha: str) -> str:
        """The address to download a commit's files from."""
        answer = self._exchange("GET", f"/tarball/{sha}")
        if answer.status != 302 or "location" not in answer.headers:
            raise self._error(answer, "archive")
        return answer.headers["location"]

    def _look(
        self, path: str, shape: type[T], noun: str, right: Callable[[T], bool], query: dict[str, str] | None = None
    ) -> T | None:
        answer = self._exchange("GET", path, query=query or {})
        return None if answer.missing else self._read(answer, shape, noun, right)

    def _exchange(
        self, verb: str, path: str, body: Mapping[str, Any] | None = None, query: dict[str, str] | None = None
    ) -> Answer:
        with network_errors(self._where):
            return Answer(*self._requester.requestJson(verb, self._path + path, parameters=query, input=body))

    def _read(
        self,
        answer: Answer,
        shape: type[T],
        noun: str,
        right: Callable[[T], bool] = lambda content: True,  # noqa: ARG005  # any content of that shape
        *,
        status: int = 200,
    ) -> T:
        """The answer's content, once it is what was asked for."""
        try:
            content = msgspec.json.decode(answer.body, type=shape) if answer.status == status else None
        except msgspec.DecodeError:  # of another shape, or no JSON
            content = None
        if content is None or not right(content):
            raise self._error(answer, noun)
        return content

    def _error(self, answer: Answer, noun: str) -> RemoteError:
        """An answer as an error that says what to do."""
        status, message = answer.status, answer.message
        what = f"GitHub says: {message} ({status})"
        if (wait := _wait(answer)) is not None:
            what = f"GitHub asked to wait {wait:,.0f} s: {message or 'no reason given'} ({status})"
            return RemoteUnavailable(
                what, where=self._where, kept=KEPT, todo="nothing; it goes on later", retry_after=wait
            )
        if status < 400 or message is None:
            return RemoteUnavailable(
                f"GitHub (or something in between) answered with no {noun} (status {status})",
                where=self._where,
                kept=KEPT,
                todo="it is tried again; if it stays so, see what answers there: base_url, a proxy, a log-in page",
            )
        if status >= 500 or status in (408, 409):
            return RemoteUnavailable(what, where=self._where, kept=KEPT, todo="wait and run again")
        todo = {
            401: "make a new token that may write the repository's contents and put it into the block",
            403: "give the token the permission 'Contents: read and write' for this repository",
            404: "check the repository's name, and that the token may see it",
            422: "see whether a rule protects the branch, or push to another one",
        }.get(status, "look at GitHub's answer")
        return GitHubRefused(status, what, where=self._where, todo=todo)


def blob_sha(data: bytes) -> str:
    """The name that Git gives a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@contextmanager
def network_errors(where: str) -> Iterator[None]:
    """What goes wrong on the way as our errors."""
    try:
        yield
    except requests.exceptions.SSLError:
        raise RemoteError("GitHub's certificate is not trusted", where=where, kept=KEPT) from None
    except (
        requests.RequestException,
        RuntimeError,
        ValueError,
    ) as error:  # PyGithub: a redirect elsewhere, bad headers
        kind = "in time" if isinstance(error, requests.Timeout) else f"as it should ({type(error).__name__})"
        raise RemoteUnavailable(
            f"GitHub did not answer {kind}", where=where, kept=KEPT, todo="check the network, then run again"
        ) from None


def _stands_at(branch: str, sha: str) -> Callable[[Ref], bool]:
    return lambda ref: ref.ref == f"refs/heads/{branch}" and ref.object.sha == sha


def _wait(answer: Answer) -> float | None:
    """The seconds that GitHub asks to wait for, or None when this is no rate limit and no pause."""
    asked = asked_wait(answer.headers, now=time.time())
    if answer.status in (403, 429):
        limited = answer.status == 429 or Requester.isRateLimitError(answer.message or "")
        return LIMITED if asked is None and limited else asked
    return asked if answer.status >= 500 and "retry-after" in answer.headers else None
