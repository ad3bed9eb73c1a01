"""The history of one file in a Git repository: every version that a branch had, oldest first.

The branch's own line is followed (`--first-parent`): what a merge brought counts when it was merged, so that
states of branches that were edited at the same time never alternate. A renamed file begins where it got its name.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from autosync.array_versions import ArrayReader
from autosync.change_detection import Block
from autosync.errors import ConfigError, RemoteError, SourceError
from autosync.suggestions import did_you_mean, or_else
from blocks.git_process import GitProcess, is_address, without_login
from blocks.sources.json_rows import LINES, Part, read_part

__all__ = ["FileHistory", "Version", "VersionRows", "open_history"]

KEPT = "everything; nothing was imported"
TIMEOUT = 3600.0
NO_FILE = {"tree": "a folder stands there", "commit": "a submodule stands there"}


class Version(NamedTuple):
    """What a commit made of the file.

    Attributes:
        sha: The commit.
        time: When it was committed, Unix seconds.
        data: The file's bytes; None when the commit removed it, or put something else in its place.
        problem: What stands there instead of a file; "" when it is a file or nothing.
    """

    sha: str
    time: int
    data: bytes | None
    problem: str = ""


class FileHistory(GitProcess):
    """The versions of one file.

    Args:
        folder: The Git folder.
        path: The file, from the repository's root.
        branch: A branch, tag or commit; the one that is checked out (HEAD) when empty.
        url: The address that the folder is a copy of.

    Raises:
        ConfigError: No such branch, no commit, or the branch never had the file.
        RemoteError: The repository can't be read.
    """

    def __init__(self, folder: Path, path: str, branch: str = "", *, url: str = "", login: str = "") -> None:
        super().__init__(folder, url, login, timeout=TIMEOUT, kept=KEPT)
        self.path = path.removeprefix("./")
        if not self.path or self.path.startswith("/") or {"\n", "\0"} & set(path):
            raise self._wrong(
                f"{path!r} can't be a file's path", "write it from the repository's root, as in data/a.json"
            )
        self.head = self._commit(branch or "HEAD")
        self._commits = self._list()

    def versions(self) -> Iterator[Version]:
        """Every version of the file, oldest first. A commit that left the same bytes is none.

        Raises:
            RemoteError: The repository is damaged.
        """
        before = object()
        with closing(self._objects(f"{sha}:{self.path}" for _, sha in self._commits)) as objects:
            for (time, sha), found in zip(self._commits, objects, strict=True):
                data = found.data if found and found.kind == "blob" else None
                problem = NO_FILE.get(found.kind, "") if found else self._instead(sha)
                if (data, problem) != before:
                    yield Version(sha, int(time), data, problem)
                before = data, problem

    @property
    def _pathspec(self) -> str:
        return f":(top,literal){self.path}"

    def _list(self) -> list[list[str]]:
        """Time and hash of each commit that changed the file, oldest first."""
        listed = self._git("rev-list", "--first-parent", "--reverse", "--timestamp", self.head, "--", self._pathspec)
        if not listed:
            names = self._git("ls-tree", "-r", "--full-tree", "--name-only", "-z", self.head).decode("utf-8", "replace")
            todo = "see the names: git ls-tree -r --name-only HEAD"
            raise self._wrong(f"there is no file {self.path} in its history", self._suggest(self.path, names, todo))
        return [line.split() for line in listed.decode().splitlines()]

    def _commit(self, branch: str) -> str:
        done = self._run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{branch}^{{commit}}")
        if done.returncode:
            what = "it has no commit yet" if branch == "HEAD" else f"it has no branch, tag or commit {branch!r}"
            names = self._git("for-each-ref", "--format=%(refname:short)%00").decode("utf-8", "replace")
            raise self._wrong(what, self._suggest(branch, names, "see what there is: git branch --all"))
        return done.stdout.decode().strip()

    def _instead(self, sha: str) -> str:
        """Why a commit has no object at the path: a submodule, or "" when nothing is there.

        Raises:
            RemoteError: The file is there, but not its content.
        """
        listed = self._git("--literal-pathspecs", "ls-tree", "--full-tree", sha, "--", self.path).decode(
            "utf-8", "replace"
        )
        if not listed:
            return ""
        kind = listed.split()[1]
        if kind in NO_FILE:
            return NO_FILE[kind]
        raise RemoteError(
            f"the repository lacks the content of {self.path} in commit {sha[:10]}",
            where=self.address,
            kept=KEPT,
            todo="fetch it, or run git fsck there",
        )

    def _suggest(self, name: str, names: str, todo: str) -> str:
        """What to do about an unknown name, where those that exist are separated by NUL."""
        question = did_you_mean(name, (other.strip() for other in names.split("\0")))
        return or_else(question, todo)

    def _wrong(self, what: str, todo: str) -> ConfigError:
        return ConfigError(what, where=f"{self.address}", kept=KEPT, todo=todo)


class VersionRows:
    """Reads the raw rows of versions, one after the other, as a source file of that name gives them.

    Args:
        history: Where the versions come from.
        pointer: Where the records are.
        scratch: A folder to put a version into while it is read.
        seed: Keys the rows' hashes.
    """

    def __init__(self, history: FileHistory, pointer: str, scratch: Path, seed: int) -> None:
        self._history, self._pointer, self._arrays = history, pointer, ArrayReader(seed)
        self._file = scratch / f"version{Path(history.path).suffix}"

    def blocks(self, version: Version) -> Iterator[Block]:
        """A version's rows; none when the file was removed.

        Raises:
            SourceError: This version is no file, not JSON, cut off, or has no array at the pointer.
        """
        shown = f"{version.sha[:10]}:{self._history.path}"
        if version.problem:
            raise SourceError(version.problem, where=shown, kept=KEPT, todo="nothing; this version is left out")
        if version.data is None:
            return
        if (
            not self._pointer
            and self._file.suffix not in LINES
            and (rows := self._arrays.read(version.data)) is not None
        ):
            yield Block(rows, lambda n: f"{shown}, /{n}", rows.entries)
            return
        self._file.unlink(missing_ok=True)  # a version that is still being read keeps its own file
        self._file.write_bytes(version.data)
        yield from read_part(Part(self._file, shown), self._pointer)


@contextmanager
def open_history(location: str, path: str, branch: str = "") -> Iterator[FileHistory]:
    """Open the history of a file.

    Args:
        location: A folder with a repository, bare or not, or an address, which is cloned to a temporary folder.

    Raises:
        ConfigError, RemoteError: As FileHistory does; the folder is no repository.
    """
    if not is_address(location):
        yield FileHistory(_git_folder(Path(location).expanduser().absolute()), path, branch)
        return
    with tempfile.TemporaryDirectory(prefix="autosync-clone-") as folder:
        url, login = without_login(location)
        _Clone(Path(folder), url, login, timeout=TIMEOUT, kept=KEPT).make(branch)
        yield FileHistory(Path(folder), path, url=url, login=login)


class _Clone(GitProcess):
    def make(self, branch: str) -> None:
        only = ["--branch", branch] if branch else []
        self._git(
            "clone",
            "--bare",
            "--quiet",
            "--single-branch",
            "--no-tags",
            *only,
            "--",
            self._url,
            str(self._path),
            anywhere=True,
        )


def _git_folder(folder: Path) -> Path:
    for place in (folder / ".git", folder):
        found = GitProcess(place, timeout=TIMEOUT, kept=KEPT)._run(
            "rev-parse", "--resolve-git-dir", str(place), anywhere=True
        )
        if not found.returncode:
            return Path(found.stdout.decode().rstrip("\n"))
    raise ConfigError(
        "this folder is no Git repository", where=str(folder), kept=KEPT, todo="name a repository's folder or address"
    )
