"""A GitHub repository as the place to push to, through GitHub's Git Data API.

A commit is one tree built from `base_tree` in requests of at most 2 MB, one commit object and one ref
update with force=False. Nothing can be seen before that last call, and only it can move the branch.
"""

from __future__ import annotations

import base64
import hashlib
import json
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import PurePosixPath
from typing import TypeVar

import requests
from github import (
    Auth,
    BadAttributeException,
    Github,
    GithubException,
    InputGitAuthor,
    InputGitTreeElement,
    RateLimitExceededException,
)
from github.ContentFile import ContentFile
from github.GitCommit import GitCommit
from github.GitRef import GitRef
from github.GitTree import GitTree
from github.Repository import Repository
from prefect.blocks.core import Block
from pydantic import Field, HttpUrl, SecretStr

from autosync.errors import RemoteError, RemoteMoved, RemoteUnavailable
from autosync.ports import Commit, Head
from blocks.repository.git import FOUND_LATER, KEPT, UNSURE, check_path, trailers_of

__all__ = ["GitHubRemote", "GitHubRepository"]

REQUEST_BYTES = 2_000_000  # GitHub fails somewhat above 2.5 MB
INLINE_BYTES = 1_000_000
BLOB_BYTES = 40_000_000
SINGLE_READS = 100  # from here on one archive is cheaper than a call for each file
T = TypeVar("T")


class GitHubRepository(Block):
    """One branch of a GitHub repository.

    Attributes:
        repository: Owner and name, as in `octo/records`.
        token: A token that may write the repository's contents.
        branch: The branch to push to; it is made by the first commit.
        base_url: The API's address; another one for GitHub Enterprise.
        author: The name that commits carry.
        author_email: The email address that commits carry.
        timeout: Seconds to wait for an answer.
        pause: Seconds between two writes, as GitHub asks for.

    Example:
        ```python
        from blocks.repository.github import GitHubRepository

        repository = GitHubRepository.load("BLOCK_NAME")
        print(repository.remote().head())
        ```
    """

    _block_type_name = "AutoSync GitHub Repository"
    _block_type_slug = "autosync-github-repository"
    _description = "The GitHub repository that AutoSync commits changed records to."
    _documentation_url = HttpUrl("https://docs.github.com/en/rest/git")
    _logo_url = HttpUrl(
        "https://cdn.sanity.io/images/3ugk85nk/production/41971cfecfea5f79ff334164f06ecb34d1038dd4-250x250.png"
    )

    repository: str = Field(pattern=r"^[\w.-]+/[\w.-]+$", description="Owner and name, as in octo/records.")
    token: SecretStr = Field(description="A token that may read and write the repository's contents.")
    branch: str = Field(default="main", pattern=r"^[\w./-]+$", description="The branch to push to.")
    base_url: str = Field(default="https://api.github.com", description="The API's address; Enterprise has its own.")
    author: str = Field(default="AutoSync", description="The name that commits carry.")
    author_email: str = Field(default="autosync@localhost", description="The email address that commits carry.")
    timeout: int = Field(default=30, gt=0, description="Seconds to wait for an answer.")
    pause: float = Field(default=1.0, ge=0, description="Seconds between two writes; GitHub asks for one.")

    def remote(self) -> GitHubRemote:
        """The branch as a place to commit to; no call is made yet."""
        client = Github(
            auth=Auth.Token(self.token.get_secret_value()),
            base_url=self.base_url.rstrip("/"),
            timeout=self.timeout,
            retry=None,  # a ref update whose reply was lost must be looked at, not sent again
            per_page=100,
            seconds_between_requests=self.pause / 4,
            seconds_between_writes=self.pause,
        )
        page = self.base_url.rstrip("/").removesuffix("/api/v3").replace("://api.github.com", "://github.com")
        repo = Repository(client.requester, {}, {"url": f"/repos/{self.repository}"}, completed=True)
        return GitHubRemote(repo, f"{page}/{self.repository}", self.branch, (self.author, self.author_email))


class GitHubRemote:
    """Takes one atomic commit at a time on one branch."""

    def __init__(self, repo: Repository, address: str, branch: str, author: tuple[str, str]) -> None:
        self._repo, self._address, self.branch, self._author = repo, address, branch, author

    def __repr__(self) -> str:
        return f"GitHubRemote({self._address!r}, branch={self.branch!r})"

    @property
    def address(self) -> str:
        """The repository's page."""
        return self._address

    def link(self, sha: str) -> str:
        """The commit's page."""
        return f"{self._address}/commit/{sha}"

    def head(self) -> Head | None:
        """The branch's newest commit, or None when the branch doesn't exist yet."""
        with self._errors():
            tip = self._tip()
            return _head(tip.sha, tip) if tip else None

    def history(self, path: str) -> Iterator[Head]:
        """The branch's commits that changed a path, newest first."""
        check_path(path)
        with self._errors():
            if self._ref():
                for found in self._repo.get_commits(sha=self.branch, path=path):
                    yield _head(found.sha, found.commit)

    def find(self, trailer: str, value: str) -> str | None:
        """The newest commit, among the last 100, that carries this trailer line."""
        with self._errors():
            page = _unless_missing(lambda: self._repo.get_commits(sha=self.branch).get_page(0)) or []
            return next((c.sha for c in page if trailers_of(c.commit.message).get(trailer) == value), None)

    def read(self, path: str) -> bytes | None:
        """A file at the branch's head, or None."""
        check_path(path)
        with self._errors():
            found = _unless_missing(lambda: self._repo.get_contents(path, ref=self.branch))
            if not isinstance(found, ContentFile) or found.type != "file":
                return None
            return found.decoded_content if found.encoding == "base64" else self._blob(found.sha)

    def files(self, under: str, at: str = "") -> Iterator[tuple[str, bytes]]:
        """Every regular file below a folder at the branch's head or a commit (all of them for ""), in path order."""
        with self._errors():
            tip = self._repo.get_git_commit(at) if at else self._tip()
            listed = sorted(self._list(tip.tree, under.strip("/")).items()) if tip else []
            archive = self._archive(tip.sha) if tip and len(listed) > SINGLE_READS else iter(())
            name, data = next(archive, ("", b""))
            for path, sha in listed:
                while name and name < path:
                    name, data = next(archive, ("", b""))
                # An archive can leave out or alter files (.gitattributes): what is not equal is read singly.
                yield path, data if name == path and _blob_sha(data) == sha else self._blob(sha)

    def commit(self, commit: Commit, *, parent: str | None) -> str:
        """Make one commit on top of `parent` and move the branch to it, or nothing at all."""
        for path in (*commit.files, *filter(None, commit.replace)):
            check_path(path)
        with self._errors():
            ref = self._ref()
            if (ref.object.sha if ref else None) != parent:
                raise self._moved(ref)
            if ref is None:
                ref = self._begin()
            base = self._repo.get_git_commit(ref.object.sha) if ref else None
            tree = self._tree(commit, base.tree if base and parent else None)
            who = InputGitAuthor(*self._author, datetime.fromtimestamp(int(commit.time), UTC).isoformat())
            made = self._repo.create_git_commit(commit.text, tree, [base] if base else [], who, who)
            self._move(ref, made.sha)
            return made.sha

    def _ref(self) -> GitRef | None:
        """The branch; None when it or every commit is missing, an error when the repository is."""
        ref = _unless_missing(lambda: self._repo.get_git_ref(f"heads/{self.branch}"))
        if ref is None:
            self._repo.get_branches().get_page(0)
        return ref

    def _tip(self) -> GitCommit | None:
        ref = self._ref()
        return self._repo.get_git_commit(ref.object.sha) if ref else None

    def _begin(self) -> GitRef | None:
        """Give a repository without any commit its first one: before it, GitHub takes no trees at all."""
        if not self._repo.get_branches().get_page(0):
            self._repo.create_file(".autosync", "Start the repository\n", "AutoSync commits to this repository.\n")
        return self._ref()

    def _move(self, ref: GitRef | None, sha: str) -> None:
        try:
            if ref:
                ref.edit(sha, force=False)
            else:
                self._repo.create_git_ref(f"refs/heads/{self.branch}", sha)
        except (GithubException, requests.RequestException) as error:
            if isinstance(error, GithubException) and _wait(error) is not None:
                raise  # not done, for sure, and asking again would only add to the limit
            try:
                now = self._ref()  # the reply may be all that was lost
            except (GithubException, requests.RequestException):
                raise RemoteUnavailable(UNSURE, where=self._address, kept=FOUND_LATER, todo="run again later") from None
            if now and now.object.sha == sha:
                return
            if (now.object.sha if now else None) != (ref.object.sha if ref else None):
                raise self._moved(now) from None
            raise

    def _moved(self, ref: GitRef | None) -> RemoteMoved:
        return RemoteMoved(
            f"The branch {self.branch} stands at {ref.object.sha[:12] if ref else 'no commit'}, not where it was read",
            where=self._address,
            kept="the other commit, and the changes still to be pushed",
            todo="read the branch again and repeat; AutoSync does this by itself",
        )

    def _tree(self, commit: Commit, base: GitTree | None) -> GitTree:
        files = dict(commit.files)
        there: dict[str, str] = {}
        for folder in commit.replace:
            there |= self._list(base, folder.strip("/")) if base else {}
        files |= {path: None for path in there if path not in files}
        same = {path for path, data in files.items() if data is not None and there.get(path) == _blob_sha(data)}
        try:
            return self._post_trees((p for p in files.items() if p[0] not in same), base)
        except GithubException as error:
            if error.status != 422 or None not in files.values() or base is None:
                raise
            existing = self._list(base, "")  # GitHub refuses to delete what isn't there
            wanted = (p for p in files.items() if p[0] not in same and (p[1] is not None or p[0] in existing))
            return self._post_trees(wanted, base)

    def _post_trees(self, files: Iterable[tuple[str, bytes | None]], base: GitTree | None) -> GitTree:
        """Deletions go first: in one request with a file of a deleted folder's name they would contradict it."""
        tree, waiting, size = base, list[InputGitTreeElement](), 0
        changed = sorted(files, key=lambda item: item[1] is not None)
        for number, (path, data) in enumerate(changed):
            if base is None and data is None:
                continue
            element, cost = self._element(path, data)
            turned = number and data is not None and changed[number - 1][1] is None
            if waiting and (size + cost > REQUEST_BYTES or (turned and _clash(changed))):
                tree, waiting, size = self._post_tree(waiting, tree), [], 0
            waiting.append(element)
            size += cost
        return tree if tree and not waiting else self._post_tree(waiting, tree)

    def _post_tree(self, elements: list[InputGitTreeElement], base: GitTree | None) -> GitTree:
        return self._repo.create_git_tree(elements, base) if base else self._repo.create_git_tree(elements)

    def _element(self, path: str, data: bytes | None) -> tuple[InputGitTreeElement, int]:
        """One tree entry and about how many bytes of a request it takes."""
        cost = len(json.dumps(path)) + 120
        if data is None:
            return InputGitTreeElement(path, "100644", "blob", sha=None), cost
        if len(data) > BLOB_BYTES:
            raise RemoteError(
                f"{path} has {len(data):,} bytes; GitHub takes {BLOB_BYTES:,}", kept=KEPT, todo="split it"
            )
        text = _text(data) if len(data) <= INLINE_BYTES else None
        inline = len(json.dumps(text)) if text is not None else 0
        if text is None or inline + cost > REQUEST_BYTES:
            blob = self._repo.create_git_blob(base64.b64encode(data).decode(), "base64")
            return InputGitTreeElement(path, "100644", "blob", sha=blob.sha), cost
        return InputGitTreeElement(path, "100644", "blob", content=text), inline + cost

    def _list(self, tree: GitTree, under: str) -> dict[str, str]:
        """Path -> blob sha of the regular files below a folder."""
        prefix = ""
        for part in PurePosixPath(under).parts:
            found = [entry for entry in self._repo.get_git_tree(tree.sha).tree if entry.path == part]
            if not found or found[0].type != "tree":
                return {}
            prefix, tree = f"{prefix}{part}/", self._repo.get_git_tree(found[0].sha)
        return dict(self._walk(tree.sha, prefix))

    def _walk(self, sha: str, prefix: str) -> Iterator[tuple[str, str]]:
        whole = self._repo.get_git_tree(sha, recursive=True)
        cut = whole.truncated  # more than 100,000 entries: folder by folder then
        for entry in self._repo.get_git_tree(sha).tree if cut else whole.tree:
            if entry.type == "blob" and entry.mode in ("100644", "100755"):
                yield prefix + entry.path, entry.sha
            elif cut and entry.type == "tree":
                yield from self._walk(entry.sha, f"{prefix}{entry.path}/")

    def _blob(self, sha: str) -> bytes:
        return base64.b64decode(self._repo.get_git_blob(sha).content)

    def _archive(self, sha: str) -> Iterator[tuple[str, bytes]]:
        """Every regular file of a commit out of one download, in path order."""
        with tempfile.TemporaryFile() as copy:
            with requests.get(self._repo.get_archive_link("tarball", sha), stream=True, timeout=60) as response:
                response.raise_for_status()
                copy.writelines(response.iter_content(1 << 20))
            copy.seek(0)
            with tarfile.open(fileobj=copy, mode="r|gz") as tar:
                for member in tar:
                    if content := tar.extractfile(member) if member.isreg() else None:
                        yield member.name.partition("/")[2], content.read()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except GithubException as error:
            raise _explained(error, self._address) from None
        except requests.exceptions.SSLError:
            raise RemoteError("GitHub's certificate is not trusted", where=self._address, kept=KEPT) from None
        except (requests.RequestException, BadAttributeException, tarfile.TarError, EOFError) as error:
            kind = "in time" if isinstance(error, requests.Timeout) else f"as it should ({type(error).__name__})"
            raise RemoteUnavailable(
                f"GitHub did not answer {kind}",
                where=self._address,
                kept=KEPT,
                todo="check the network, then run again",
            ) from None


def _head(sha: str, commit: GitCommit) -> Head:
    return Head(sha, commit.message, trailers_of(commit.message), commit.committer.date.timestamp())


def _unless_missing(call: Callable[[], T]) -> T | None:
    """What the call returns, or None for what isn't there (404) or a repository without any commit (409)."""
    try:
        return call()
    except GithubException as error:
        if error.status == 404 or (error.status == 409 and "empty" in _said(error).lower()):
            return None
        raise


def _said(error: GithubException) -> str:
    data = error.data if isinstance(error.data, dict) else {}
    return str(data.get("message") or f"status {error.status}")


def _explained(error: GithubException, where: str) -> RemoteError:
    """GitHub's answer as an error that says what to do."""
    status, what = error.status, f"GitHub says: {_said(error)} ({error.status})"
    if (wait := _wait(error)) is not None:
        return RemoteUnavailable(what, where=where, kept=KEPT, todo="nothing; it goes on later", retry_after=wait)
    if status >= 500 or status in (408, 409):
        return RemoteUnavailable(what, where=where, kept=KEPT, todo="wait and run again")
    todo = {
        401: "make a new token that may write the repository's contents and put it into the block",
        403: "give the token the permission 'Contents: read and write' for this repository",
        404: "check the repository's name, and that the token may see it",
        422: "see whether a rule protects the branch, or push to another one",
    }.get(status, "look at GitHub's answer")
    return RemoteError(what, where=where, kept=KEPT, todo=todo)


def _wait(error: GithubException) -> float | None:
    """The seconds that GitHub asks to wait for, or None when this is no rate limit."""
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    spent = headers.get("x-ratelimit-remaining") == "0"
    if error.status not in (403, 429) or not (
        error.status == 429 or spent or "retry-after" in headers or isinstance(error, RateLimitExceededException)
    ):
        return None
    if headers.get("retry-after", "").isdigit():
        return float(headers["retry-after"])
    if spent and headers.get("x-ratelimit-reset", "").isdigit():
        now = parsedate_to_datetime(headers["date"]).timestamp() if "date" in headers else time.time()
        return max(1.0, float(headers["x-ratelimit-reset"]) - now)
    return 60.0


def _clash(changed: Iterable[tuple[str, bytes | None]]) -> bool:
    """Whether a deleted file's name is a folder of a written one, or the other way round."""
    names: dict[bool, set[str]] = {True: set(), False: set()}
    for path, data in changed:
        names[data is None].add(path)
    above = {gone: {str(p) for path in paths for p in PurePosixPath(path).parents} for gone, paths in names.items()}
    return bool(names[True] & above[False] or names[False] & above[True])


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _blob_sha(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
