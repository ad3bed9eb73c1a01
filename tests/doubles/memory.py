"""The ports in memory, for tests of what uses them. They pass the same contract suites as the real ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from autosync.errors import RemoteMoved
from autosync.ports import Commit, Head, Notice


@dataclass
class MemoryRemote:
    """A branch whose commits are whole snapshots."""

    address: str = "memory"
    commits: list[tuple[str, Commit, dict[str, bytes]]] = field(default_factory=list)

    def head(self) -> Head | None:
        if not self.commits:
            return None
        sha, commit, _ = self.commits[-1]
        return Head(sha, commit.text.rstrip("\n"), dict(commit.trailers), float(int(commit.time)))

    def history(self, path: str) -> Iterator[Head]:
        before = [{}, *(files for _, _, files in self.commits)]
        for (sha, commit, files), earlier in reversed(list(zip(self.commits, before, strict=False))):
            if files.get(path) != earlier.get(path):
                yield Head(sha, commit.text.rstrip("\n"), dict(commit.trailers), float(int(commit.time)))

    def find(self, trailer: str, value: str) -> str | None:
        near = reversed(self.commits[-100:])
        return next((sha for sha, commit, _ in near if (trailer, value) in commit.trailers), None)

    def commit(self, commit: Commit, *, parent: str | None) -> str:
        tip = self.commits[-1][0] if self.commits else None
        if tip != parent:
            raise RemoteMoved(f"The branch stands at {tip}")
        before = dict(self.commits[-1][2]) if self.commits else {}
        folders = tuple(folder.strip("/") + "/" for folder in commit.replace)
        files = {path: data for path, data in before.items() if not path.startswith(folders)}
        changes = dict(commit.files)
        files |= {path: data for path, data in changes.items() if data is not None}
        gone = {path for path, data in changes.items() if data is None}
        sha = hashlib.sha1(f"{parent}{commit.text}{commit.time}".encode(), usedforsecurity=False).hexdigest()
        self.commits.append((sha, commit, {path: data for path, data in files.items() if path not in gone}))
        return sha

    def read(self, path: str) -> bytes | None:
        return self._files().get(path)

    def files(self, under: str, at: str = "") -> Iterator[tuple[str, bytes]]:
        folder = under.strip("/") + "/" if under.strip("/") else ""
        found = next((files for sha, _, files in self.commits if sha == at), self._files())
        yield from sorted((path, data) for path, data in found.items() if path.startswith(folder))

    def link(self, sha: str) -> str:
        return f"memory:{sha}"

    def _files(self) -> dict[str, bytes]:
        return self.commits[-1][2] if self.commits else {}


@dataclass
class MemoryNotifier:
    """Collects notices; raises `fails` instead while that is set."""

    name: str = "memory"
    sent: list[Notice] = field(default_factory=list)
    fails: Exception | None = None

    def send(self, notice: Notice) -> None:
        self.check()
        self.sent.append(notice)

    def check(self) -> None:
        if self.fails:
            raise self.fails
