"""The mirror's version files: what each update replaced, and merging those that retention no longer keeps apart.

    versions/TO.jsonl   a header, then [id, content before or null] of every record that changed in (from, to], by id

Going back from a seq, the file named like it leads to its header's `from`. A merged file has the `from` of its first
part and the name of its last, and takes that one's place in one step; the others are then passed over, and deleted.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import msgspec

from autosync.errors import MirrorDamaged
from autosync.retention import Point, kept, portions, spans
from autosync.settings import Retention
from blocks.mirror import Header, read_manifest, version_file, write_file

FILES_AT_ONCE = 64


@dataclass(frozen=True)
class Version:
    """A version file."""

    path: Path
    header: Header


@dataclass(frozen=True)
class Removed:
    """What merging removes: files, bytes. Files that could not be read, and were left alone with those beside them."""

    files: int = 0
    bytes: int = 0
    damaged: tuple[str, ...] = ()

    def __add__(self, other: Removed) -> Removed:
        return Removed(self.files + other.files, self.bytes + other.bytes, self.damaged + other.damaged)


Change = tuple[str, msgspec.Raw]
_header = msgspec.json.Decoder(Header)
_change = msgspec.json.Decoder(Change)


def read_header(path: Path) -> Header:
    """The header of a version file.

    Raises:
        MirrorDamaged: It is missing or can't be read.
    """
    with _explained(path), path.open("rb") as lines:
        return _header.decode(lines.readline())


def read_changes(path: Path) -> Iterator[Change]:
    """(id, content before as raw JSON) of a version file, by id.

    Raises:
        MirrorDamaged: It is missing or can't be read.
    """
    with _explained(path), path.open("rb") as lines:
        lines.readline()
        for line in lines:
            yield _change.decode(line)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MirrorDamaged(f"a version file is missing: {error.strerror}", where=str(path)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MirrorDamaged(f"a version file is damaged: {error}", where=str(path)) from None


def chain(folder: Path, seq: int) -> list[Version]:
    """The version files that lead back from a seq, newest first, as far as they can be read."""
    found = list[Version]()
    with suppress(MirrorDamaged):
        while True:
            path = version_file(folder, seq)
            header = read_header(path)
            if header.to != seq or header.from_ >= seq:
                break
            found.append(Version(path, header))
            seq = header.from_
    return found


def _reachable(folder: Path) -> list[Version]:
    """The version files that lead back from the mirror as it is, newest first; none while its manifest is damaged."""
    try:
        manifest = read_manifest(folder)
    except MirrorDamaged:
        return []
    return chain(folder, manifest.seq) if manifest else []


def plan(folder: Path, rule: Retention, now: float, keep: frozenset[int]) -> Removed:
    """What `compact` would remove."""
    total = Removed()
    for span in _spans(folder, rule, now, keep):
        left = {"": len(_header_of(span))}
        try:
            for version in span:
                for id, before in read_changes(version.path):
                    left.setdefault(id, len(_line(id, before)))
        except MirrorDamaged as error:
            total += Removed(damaged=(error.where,))
        else:
            total += Removed(len(span) - 1, _size(span) - sum(left.values()))
    return total


def compact(folder: Path, rule: Retention, now: float, keep: frozenset[int]) -> Removed:
    """Merge the version files of a mirror between the moments that the rule keeps.

    Args:
        keep: Seqs that stay moments to go back to whatever the rule says: those of the store.

    Raises:
        StoreError: A file can't be written; history is as before.
    """
    _sweep(folder)
    total = Removed()
    for span in _spans(folder, rule, now, keep):
        before = _size(span)
        try:
            last = _merge(span)
        except MirrorDamaged as error:
            total += Removed(damaged=(error.where,))
        else:
            total += Removed(len(span) - 1, before - _size([last]))
    _sweep(folder)
    return total


def _spans(folder: Path, rule: Retention, now: float, keep: frozenset[int]) -> list[list[Version]]:
    """The version files that are to become one, where there are several, oldest first."""
    versions = _reachable(folder)[::-1]
    if not versions:
        return []
    oldest = versions[0].header
    points = [Point(oldest.from_, oldest.from_time), *(Point(one.header.to, one.header.time) for one in versions)]
    found = spans(((one.header.to, one) for one in versions), keep | kept(points, rule, now))
    return [span for span in found if len(span) > 1]


def _size(span: Sequence[Version]) -> int:
    return sum(version.path.stat().st_size for version in span)


def _header_of(span: Sequence[Version]) -> bytes:
    first, last = span[0].header, span[-1].header
    return msgspec.json.encode(msgspec.structs.replace(first, to=last.to, time=last.time)) + b"\n"


def _line(id: str, before: msgspec.Raw) -> bytes:
    return msgspec.json.encode((id, before)) + b"\n"


def _merged(span: Sequence[Version]) -> Iterator[bytes]:
    """The lines of the file that does in one step what consecutive files, oldest first, do one after the other."""
    yield _header_of(span)
    previous = None
    for id, before in heapq.merge(*(read_changes(version.path) for version in span), key=itemgetter(0)):
        if id != previous:  # of several contents before, the earliest: that of the oldest file
            yield _line(id, before)
        previous = id


def _merge(span: list[Version]) -> Version:
    """Make one version file of several, few at a time. A crash in between leaves a chain that leads as far back."""
    while len(span) > 1:
        span = [_merge_few(few) for few in portions(span, lambda _: 1, FILES_AT_ONCE)]
    return span[0]


def _merge_few(span: list[Version]) -> Version:
    if len(span) > 1:
        write_file(span[-1].path, _merged(span))
        for version in span[:-1]:
            version.path.unlink(missing_ok=True)
    return Version(span[-1].path, read_header(span[-1].path))


def _sweep(folder: Path) -> None:
    """Delete what a dead compaction left: files that a merged one stands for, and files that were not finished."""
    versions = _reachable(folder)
    if not versions:
        return
    needed, oldest, newest = (
        {version.path.name for version in versions},
        versions[-1].header.from_,
        versions[0].header.to,
    )
    for path in (folder / "versions").iterdir():
        name = path.name.removesuffix(".jsonl")
        covered = name.isdecimal() and oldest < int(name) <= newest and path.name not in needed
        if covered or path.name.endswith(".tmp"):
            path.unlink(missing_ok=True)
