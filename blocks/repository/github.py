"""A GitHub repository as the place to push to, through GitHub's Git Data API.

A commit is one tree built from `base_tree` in requests of at most 2 MB, one commit object and one ref
update with force=False. Nothing can be seen before that last call, and only it can move the branch.
"""

from __future__ import annotations

import json
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import PurePosixPath

import requests
from github import Auth, Github
from prefect.blocks.core import Block
from pydantic import Field, HttpUrl, SecretStr

from autosync.errors import RemoteError, RemoteMoved, RemoteUnavailable
from autosync.ports import Commit, Head
from blocks.repository.git import FOUND_LATER, KEPT, LOOK_BACK, UNSURE, check_path, trailers_of
from blocks.repository.github_api import Content, Entry, GitHubApi, GitHubRefused, blob_sha, network_errors

__all__ = ["GitHubRemote", "GitHubRepository"]

REQUEST_BYTES = 2_000_000  # GitHub fails somewhat above 2.5 MB
INLINE_BYTES = 1_000_000
BLOB_BYTES = 40_000_000
SINGLE_READS = 100  # from here on one archive is cheaper than a call for each file


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
        api = GitHubApi(client.requester, self.repository, f"{page}/{self.repository}")
        return GitHubRemote(api, f"{page}/{self.repository}", self.branch, (self.author, self.author_email))


class GitHubRemote:
    """Takes one atomic commit at a time on one branch."""

    def __init__(self, api: GitHubApi, address: str, branch: str, author: tuple[str, str]) -> None:
        self._api, self._address, self.branch, self._author = api, address, branch, author

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
        sha = self._ref()
        return _head(sha, self._api.commit(sha)) if sha else None

    def history(self, path: str) -> Iterator[Head]:
        """The branch's commits that changed a path, newest first."""
        check_path(path)
        if self._ref():
            for listed in self._api.commits(self.branch, path):
                yield _head(listed.sha, listed.commit)

    def find(self, trailer: str, value: str) -> str | None:
        """The newest commit, among the last 100, that carries this trailer line."""
        newest = islice(self._api.commits(self.branch), LOOK_BACK)
        return next((c.sha for c in newest if trailers_of(c.commit.message).get(trailer) == value), None)

    def read(self, path: str) -> bytes | None:
        """A file at the branch's head, or None."""
        check_path(path)
        return self._api.file(path, self.branch)

    def files(self, under: str, at: str = "") -> Iterator[tuple[str, bytes]]:
        """Every regular file below a folder at the branch's head or a commit (all of them for ""), in path order."""
        sha = at or self._ref()
        listed = sorted(self._list(self._api.commit(sha).tree.sha, under.strip("/")).items()) if sha else []
        archive = self._archive(sha) if sha and len(listed) > SINGLE_READS else iter(())
        name, data = next(archive, ("", b""))
        for path, blob in listed:
            while name and name < path:
                name, data = next(archive, ("", b""))
            # An archive can leave out or alter files (.gitattributes): what is not equal is read singly.
            yield path, data if name == path and blob_sha(data) == blob else self._api.blob(blob)

    def commit(self, commit: Commit, *, parent: str | None) -> str:
        """Make one commit on top of `parent` and move the branch to it, or nothing at all."""
        for path in (*commit.files, *filter(None, commit.replace)):
            check_path(path)
        tip = self._ref()
        if tip != parent:
            raise self._moved(tip)
        if tip is None:
            tip = self._begin()
        tree = self._tree(commit, self._api.commit(parent).tree.sha if parent else None)
        sha = self._api.create_commit(commit.text, tree, [tip] if tip else [], self._author, commit.time)
        self._move(tip, sha)
        return sha

    def _ref(self) -> str | None:
        """The branch's commit; None when it or every commit is missing, an error when the repository is."""
        sha = self._api.ref(self.branch)
        if sha is None:
            self._api.has_branches()
        return sha

    def _begin(self) -> str | None:
        """Give a repository without any commit its first one: before it, GitHub takes no trees at all."""
        if self._api.has_branches():
            return None
        text = "AutoSync commits to this repository.\n"
        first = self._api.create_file(".autosync", text, "Start the repository\n")
        tip = self._ref()
        if first.parents or tip not in (None, first.sha):  # somebody else's came in between
            raise self._moved(tip)
        return tip

    def _move(self, tip: str | None, sha: str) -> None:
        """Move the branch; after any answer but the right one it is read again, and that decides."""
        try:
            if tip:
                self._api.move_ref(self.branch, sha)
            else:
                self._api.create_ref(self.branch, sha)
        except RemoteError as error:
            if isinstance(error, RemoteUnavailable) and error.retry_after is not None:
                raise  # not done, for sure, and asking again would only add to the limit
            try:
                now = self._ref()  # the reply may be all that was lost
            except RemoteError:
                raise RemoteUnavailable(UNSURE, where=self._address, kept=FOUND_LATER, todo="run again later") from None
            if now == sha:
                return
            if now != tip:
                raise self._moved(now) from None
            raise

    def _moved(self, tip: str | None) -> RemoteMoved:
        return RemoteMoved(
            f"The branch {self.branch} stands at {tip[:12] if tip else 'no commit'}, not where it was read",
            where=self._address,
            kept="the other commit, and the changes still to be pushed",
            todo="read the branch again and repeat; AutoSync does this by itself",
        )

    def _tree(self, commit: Commit, base: str | None) -> str:
        files = dict(commit.files)
        there: dict[str, str] = {}
        for folder in commit.replace:
            there |= self._list(base, folder.strip("/")) if base else {}
        files |= {path: None for path in there if path not in files}
        same = {path for path, data in files.items() if data is not None and there.get(path) == blob_sha(data)}
        try:
            return self._post_trees((p for p in files.items() if p[0] not in same), base)
        except GitHubRefused as error:
            if error.status != 422 or None not in files.values() or base is None:
                raise
            existing = self._list(base, "")  # GitHub refuses to delete what isn't there
            wanted = (p for p in files.items() if p[0] not in same and (p[1] is not None or p[0] in existing))
            return self._post_trees(wanted, base)

    def _post_trees(self, files: Iterable[tuple[str, bytes | None]], base: str | None) -> str:
        """Deletions go first: in one request with a file of a deleted folder's name they would contradict it."""
        tree, waiting, size = base, list[Entry](), 0
        changed = sorted(files, key=lambda item: item[1] is not None)
        for number, (path, data) in enumerate(changed):
            if base is None and data is None:
                continue
            element, cost = self._element(path, data)
            turned = number and data is not None and changed[number - 1][1] is None
            if waiting and (size + cost > REQUEST_BYTES or (turned and _clash(changed))):
                tree, waiting, size = self._api.create_tree(waiting, tree), [], 0
            waiting.append(element)
            size += cost
        return tree if tree and not waiting else self._api.create_tree(waiting, tree)

    def _element(self, path: str, data: bytes | None) -> tuple[Entry, int]:
        """One tree entry and about how many bytes of a request it takes."""
        entry: Entry = {"path": path, "mode": "100644", "type": "blob"}
        cost = len(json.dumps(path)) + 120
        if data is None:
            return {**entry, "sha": None}, cost
        if len(data) > BLOB_BYTES:
            raise RemoteError(
                f"{path} has {len(data):,} bytes; GitHub takes {BLOB_BYTES:,}", kept=KEPT, todo="split it"
            )
        text = _text(data) if len(data) <= INLINE_BYTES else None
        inline = len(json.dumps(text)) if text is not None else 0
        if text is None or inline + cost > REQUEST_BYTES:
            return {**entry, "sha": self._api.create_blob(data)}, cost
        return {**entry, "content": text}, inline + cost

    def _list(self, tree: str, under: str) -> dict[str, str]:
        """Path -> blob sha of the regular files below a folder."""
        prefix = ""
        for name in PurePosixPath(under).parts:
            entry = next((entry for entry in self._api.tree(tree).tree if entry.path == name), None)
            if entry is None or entry.type != "tree":
                return {}
            prefix, tree = f"{prefix}{name}/", entry.sha
        return dict(self._walk(tree, prefix))

    def _walk(self, sha: str, prefix: str) -> Iterator[tuple[str, str]]:
        whole = self._api.tree(sha, recursive=True)
        cut = whole.truncated  # more than 100,000 entries: folder by folder then
        for entry in self._api.tree(sha).tree if cut else whole.tree:
            if entry.type == "blob" and entry.mode in ("100644", "100755"):
                yield prefix + entry.path, entry.sha
            elif cut and entry.type == "tree":
                yield from self._walk(entry.sha, f"{prefix}{entry.path}/")

    def _archive(self, sha: str) -> Iterator[tuple[str, bytes]]:
        """Every regular file of a commit out of one download, in path order."""
        address = self._api.archive(sha)
        with tempfile.TemporaryFile() as copy:
            with network_errors(self._address), requests.get(address, stream=True, timeout=60) as response:
                response.raise_for_status()
                copy.writelines(response.iter_content(1 << 20))
            copy.seek(0)
            try:
                with tarfile.open(fileobj=copy, mode="r|gz") as tar:
                    for member in tar:
                        if content := tar.extractfile(member) if member.isreg() else None:
                            yield member.name.partition("/")[2], content.read()
            except (tarfile.TarError, EOFError):
                raise RemoteUnavailable(
                    "GitHub (or something in between) answered with no whole archive",
                    where=self._address,
                    kept=KEPT,
                    todo="it is tried again",
                ) from None


def _head(sha: str, commit: Content) -> Head:
    return Head(sha, commit.message, trailers_of(commit.message), commit.time)


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
