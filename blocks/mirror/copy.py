"""The mirror as a copy of a collection: its newest state, and every one that its version files lead back to."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from autosync.copies import newest_at, proof_of, proof_of_lines, proven
from autosync.errors import MirrorDamaged
from autosync.ports import PointInTime, Proof, Replaced
from autosync.records import line_ids_reader
from autosync.suggestions import did_you_mean, or_else
from blocks.mirror.files import MANIFEST, Manifest, Target, read_manifest
from blocks.mirror.update import lines, read_shard
from blocks.mirror.versions import Version, chain, read_changes, read_version


class MirrorCopy:
    """The mirror in a folder, as its manifest was when it was first looked at."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def key(self) -> list[str]:
        """The JSON pointers of its key."""
        return self._manifest.key

    def points(self) -> Iterator[PointInTime]:
        """The state now, and those that the version files lead back to."""
        return iter(()) if self._read is None else self._points()

    def at(self, moment: int | float | None) -> PointInTime:
        """The newest state that was mirrored by a moment."""
        return newest_at(self._points(), moment, f"the mirror of {self._folder.name!r}")

    def rows(self, point: PointInTime) -> Iterator[tuple[str, bytes]]:
        """The records at a point; every file that is needed is proven by its hash before its rows are given."""
        rows, records = self._rows_at(point.seq), point.records
        return proven(rows, self._manifest.records if records is None else records, point.root, str(self._folder))

    def replaced(self) -> Iterator[Replaced]:
        """What each version file replaced; files of older releases have no proof."""
        for version in self._versions:
            yield Replaced(_before(version), _replaced(version), bool(version.header.content))
        since, seq = self._manifest.since, self._oldest
        if since is not None and seq > since:
            read_version(self._folder, seq, since)

    def prove(self, point: PointInTime | None = None) -> Proof | None:
        """The root at a point, or of the files as they are, whatever the manifest says of them."""
        if self._read is None:
            return None
        if point is None:
            now = lines(self._folder, self._manifest)
            return proof_of_lines(self.key, now, self._manifest.seq, str(self._folder))
        rows = list(self.rows(point))
        return proof_of(rows, len(rows), point.seq)

    @cached_property
    def _read(self) -> Manifest | None:
        return read_manifest(self._folder)

    @property
    def _manifest(self) -> Manifest:
        if self._read is None:
            mirrors = sorted(path.parent.name for path in self._folder.parent.glob(f"*/{MANIFEST}"))
            todo = or_else(did_you_mean(self._folder.name, mirrors), "take another copy: --from")
            raise MirrorDamaged("there is no mirror", where=str(self._folder), todo=todo)
        return self._read

    def _points(self) -> Iterator[PointInTime]:
        now = self._manifest
        yield PointInTime(now.seq, now.time, now.root, now.records)
        yield from map(_before, self._versions)

    @cached_property
    def _versions(self) -> list[Version]:
        """Newest first, as far as they can be read."""
        return chain(self._folder, self._manifest.seq, self._manifest.since)

    @property
    def _oldest(self) -> int:
        return self._versions[-1].header.from_ if self._versions else self._manifest.seq

    def _rows_at(self, seq: int) -> Iterator[tuple[str, bytes]]:
        before: dict[str, bytes | None] = {}  # of several versions the oldest one counts
        for version in self._versions:
            if version.header.from_ >= seq:
                before |= _replaced(version)
        ids, ids_of = sorted(before), line_ids_reader(self.key)
        target = Target(self._folder, 0, self._manifest.collection, tuple(self.key))
        shards = self._manifest.shards
        bounds = [0, *(bisect_left(ids, shard.start) for shard in shards[1:]), len(ids)]
        for shard, (first, end) in zip(shards, pairwise(bounds), strict=True):
            data = read_shard(target, shard, self._manifest.records)
            rows: dict[str, bytes | None] = dict(zip(ids_of(data), data.splitlines(), strict=True))
            rows |= {id: before[id] for id in ids[first:end]}
            yield from ((id, line) for id, line in sorted(rows.items()) if line is not None)
        if not shards:
            yield from ((id, line) for id in ids if (line := before[id]) is not None)


def _before(version: Version) -> PointInTime:
    """The state that a version file leads back to."""
    header = version.header
    return PointInTime(header.from_, header.from_time, header.root, header.records)


def _replaced(version: Version) -> dict[str, bytes | None]:
    rows = ((id, bytes(line)) for id, line in read_changes(version.path))
    return {id: None if line == b"null" else line for id, line in rows}
