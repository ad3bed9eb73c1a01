"""A repository as a copy of a collection: each commit of AutoSync's that changed it is a state of its own."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from functools import cached_property
from typing import NamedTuple

import msgspec

from autosync.copies import newest_at, proof_of, proof_of_lines, proven
from autosync.errors import ConfigError, RemoteError
from autosync.ports import Head, PointInTime, Proof, Remote, Replaced
from autosync.records import BadRecord, line_ids_reader
from autosync.suggestions import did_you_mean


class _Facts(msgspec.Struct):
    """What is needed of a manifest in the repository."""

    key: list[str]
    seq: int | None = None


class _State(NamedTuple):
    """A collection as a commit has it: its key, and (id, canonical line) in key order."""

    commit: str
    key: list[str]
    rows: list[tuple[str, bytes]]


class RepositoryCopy:
    """A collection in a repository, with its commits as they were when it was first looked at.

    Args:
        known: Collections that may be meant when there is no commit of this one.
    """

    def __init__(self, remote: Remote, collection: str, known: Collection[str] = ()) -> None:
        self._remote, self._collection, self._known = remote, collection, known
        self._last: _State | None = None

    @property
    def key(self) -> list[str]:
        """The JSON pointers of its key."""
        return self._state(self.at(None)).key

    def points(self) -> Iterator[PointInTime]:
        """The commits that say which seq they hold."""
        return iter(self._points)

    def at(self, moment: int | float | None) -> PointInTime:
        """The newest commit whose state was stored by a moment."""
        if not self._points:
            what = f"the repository has no commit of {self._collection!r}"
            todo = did_you_mean(self._collection, self._known)
            raise ConfigError(what, where=self._remote.address, todo=todo)
        return newest_at(self._points, moment, f"the repository's history of {self._collection!r}")

    def rows(self, point: PointInTime) -> Iterator[tuple[str, bytes]]:
        """The records of a commit."""
        rows = self._state(point).rows
        return proven(rows, len(rows), point.root, self._where(point))

    def replaced(self) -> Iterator[Replaced]:
        """Nothing: Git keeps whole states."""
        return iter(())

    def prove(self, point: PointInTime | None = None) -> Proof | None:
        """The root at a point, or of the files at the branch's head, whoever committed them."""
        if point is not None:
            rows = list(self.rows(point))
            return proof_of(rows, len(rows), point.seq)
        where = f"repository, {self._collection}/"
        files = dict(self._remote.files(self._collection))
        if not files:
            return proof_of([], 0, None)
        try:
            facts = self._facts(files)
        except (KeyError, ValueError) as error:
            raise _not_ours(error, where) from None
        data = (data for path, data in files.items() if path.endswith(".jsonl"))
        lines = (line for each in data for line in each.removesuffix(b"\n").split(b"\n") if line)
        return proof_of_lines(facts.key, lines, facts.seq, where)

    @cached_property
    def _points(self) -> list[PointInTime]:
        return [
            PointInTime(
                seq=int(head.trailers["AutoSync-Seq"]),
                time=stored_at(head),
                root=head.trailers.get("AutoSync-Root", ""),
                commit=head.sha,
            )
            for head in self._remote.history(f"{self._collection}/manifest.json")
            if head.trailers.get("AutoSync-Seq", "").isdecimal()
        ]

    def _state(self, point: PointInTime) -> _State:
        """What a commit holds; that which was read last is remembered, for its files travel far."""
        if self._last is None or self._last.commit != point.commit:
            files = dict(self._remote.files(self._collection, point.commit))
            try:
                key = self._facts(files).key
                lines = b"".join(data for path, data in files.items() if path.endswith(".jsonl"))
                rows = sorted(zip(line_ids_reader(key)(lines), lines.splitlines(), strict=True))
            except (KeyError, ValueError, BadRecord) as error:
                raise _not_ours(error, self._where(point)) from None
            self._last = _State(point.commit, key, rows)
        return self._last

    def _facts(self, files: dict[str, bytes]) -> _Facts:
        return msgspec.json.decode(files[f"{self._collection}/manifest.json"], type=_Facts)

    def _where(self, point: PointInTime) -> str:
        return f"{self._remote.address}, commit {point.commit[:12]}"


def _not_ours(error: Exception, where: str) -> RemoteError:
    return RemoteError(f"a file there is not as AutoSync wrote it: {error}", where=where)


def stored_at(commit: Head) -> float:
    """When a commit's state was stored; to the second where the commit doesn't say it."""
    text = commit.trailers.get("AutoSync-Time", "")
    return float(text) if re.fullmatch(r"-?\d+\.\d+", text, re.ASCII) else commit.time
