"""Going back in a mirror: a collection as it was at any point that its version files lead to."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from autosync.errors import MirrorDamaged
from autosync.records import line_ids_reader
from autosync.suggestions import did_you_mean, or_else
from blocks.mirror.files import Manifest, Target, read_manifest
from blocks.mirror.update import read_shard
from blocks.mirror.versions import Version, chain, read_changes, read_version


class MirrorPoint(NamedTuple):
    """A point that a mirror leads to: seq, time (Unix seconds), root and records then."""

    seq: int
    time: float
    root: str
    records: int


class MirrorHistory:
    """The mirror in a folder with the version files that lead back from it.

    Raises:
        MirrorDamaged: There is no manifest, or it can't be read.
    """

    def __init__(self, folder: Path) -> None:
        manifest = read_manifest(folder)
        if manifest is None:
            question = did_you_mean(
                folder.name, sorted(path.parent.name for path in folder.parent.glob("*/manifest.json"))
            )
            todo = "restore from another place"
            raise MirrorDamaged("there is no mirror", where=str(folder), todo=or_else(question, todo))
        self._folder, self._manifest = folder, manifest
        self._versions = chain(folder, manifest.seq, manifest.since)

    @property
    def manifest(self) -> Manifest:
        """The newest point's manifest."""
        return self._manifest

    def points(self) -> list[MirrorPoint]:
        """Every point that can be had, newest first."""
        now = self._manifest
        headers = [version.header for version in self._versions]
        before = [MirrorPoint(one.from_, one.from_time, one.root, one.records) for one in headers]
        return [MirrorPoint(now.seq, now.time, now.root, now.records), *before]

    def at(self, point: MirrorPoint) -> Iterator[tuple[str, bytes]]:
        """(id, canonical line) of every record at a point, in key order.

        Raises:
            MirrorDamaged: A file that is needed is missing or not what the manifest says.
        """
        before: dict[str, bytes | None] = {}  # of several versions the oldest one counts
        for version in self._versions:
            if version.header.from_ >= point.seq:
                before |= _replaced(version)
        ids, ids_of = sorted(before), line_ids_reader(self._manifest.key)
        target = Target(self._folder, 0, self._manifest.collection, tuple(self._manifest.key))
        shards = self._manifest.shards
        bounds = [0, *(bisect_left(ids, shard.start) for shard in shards[1:]), len(ids)]
        for shard, (first, end) in zip(shards, pairwise(bounds), strict=True):
            data = read_shard(target, shard, self._manifest.records)
            rows: dict[str, bytes | None] = dict(zip(ids_of(data), data.splitlines(), strict=True))
            rows |= {id: before[id] for id in ids[first:end]}
            yield from ((id, line) for id, line in sorted(rows.items()) if line is not None)
        if not shards:
            yield from ((id, line) for id in ids if (line := before[id]) is not None)

    def replaced(self) -> Iterator[dict[str, bytes | None]]:
        """What each version replaced, newest first: id -> canonical line before, None for one that was not there.

        Raises:
            MirrorDamaged: One is not what its proof says.
        """
        return map(_replaced, self._versions)

    def proven(self) -> list[bool]:
        """Whether each version has a proof, newest first: files of older releases have none."""
        return [bool(version.header.content) for version in self._versions]

    def damage(self) -> MirrorDamaged | None:
        """What keeps the versions from leading back as far as they should."""
        since, seq = self._manifest.since, self.points()[-1].seq
        if since is None or seq <= since:
            return None
        try:
            read_version(self._folder, seq, since)
        except MirrorDamaged as error:
            return error
        return None


def _replaced(version: Version) -> dict[str, bytes | None]:
    rows = ((id, bytes(line)) for id, line in read_changes(version.path))
    return {id: None if line == b"null" else line for id, line in rows}
