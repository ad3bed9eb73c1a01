"""A GitHub repository as the place to push to, through GitHub's Git Data API.

A commit is one tree built from `base_tree` in requests of at most 2 MB, one commit object and one ref
update with force=False. Nothing can be seen before that last call, and only it can move the branch.
"""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterator
from itertools import islice

import requests
from github import Auth, Github
from prefect.blocks.core import Block
from pydantic import Field, HttpUrl, SecretStr

from autosync.errors import RemoteError, RemoteMoved, RemoteUnavailable
from autosync.ports import Commit, Head
from blocks.repository.git import FOUND_LATER, KEPT, LOOK_BACK, UNSURE, check_path, trailers_of
from blocks.repository.github_api import Content, GitHubApi, blob_sha, network_errors
from blocks.repository.github_tree import TreeWriter

__all__ = ["GitHubRemote", "GitHubRepository"]

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
        listed = sorted(self._api.listing(self._api.commit(sha).tree.sha, under.strip("/")).items()) if sha else []
        archive = self._archive(sha) if sha and len(listed) > SINGLE_READS else iter(())
        name, data = next(archive, ("", b""))
        for path, blob in listed:
            while name and name < path:
                name, data = next(archive, ("", b""))
            # An archive can leave out or alter files (.gitattributes): what is not equal is read singly.
            yield path, data if name == path and blob_sha(data) == blob else self._api.blob(blob)

    def commit(self, commit: Commit, *, parent: str | None) -> str:
        """Make one commit on top of `parent` and move the branch to it, or nothing at all."""
        for folder in filter(None, commit.replace):
            check_path(folder)
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
        replaced = dict[str, str]()
        for folder in commit.replace if base else ():
            replaced |= self._api.listing(base or "", folder.strip("/"))
        tree = TreeWriter(self._api, base, replaced)
        for path, data in commit.files:
            check_path(path)
            tree.change(path, data)
        return tree.finish()

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
