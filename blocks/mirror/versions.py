"""The mirror's version files: what each update replaced, and merging those that retention no longer keeps apart.

    versions/TO.jsonl   a header, then [id, content before or null] of every record that changed in (from, to], by id

The header proves itself and the lines by their hashes. Files of older releases have no proof and are read as they are.

Going back from a seq, the file named like it leads to its header's `from`. A merged file has the `from` of its first
part and the name of its last, and takes that one's place in one step; the others are then passed over, and deleted.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from operator import itemgetter
from pathlib import Path

import msgspec

from autosync.errors import MirrorDamaged
from autosync.retention import Point, kept, portions, spans
from autosync.settings import Retention
from blocks.mirror.files import Header, Manifest, read_manifest, seal, version_file, write_file
from blocks.store.history import Changes

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
        MirrorDamaged: It is missing, can't be read, or isn't what its proof says.
    """
    with _explained(path), path.open("rb") as lines:
        header = _header.decode(lines.readline())
    if header.sha256 and header != seal(header):
        raise _altered(path)
    return header


def read_changes(path: Path) -> Iterator[Change]:
    """(id, content before as raw JSON) of a version file, by id; they are proven when the last one was given.

    Raises:
        MirrorDamaged: It is missing, can't be read, or isn't what its proof says.
    """
    with _explained(path), path.open("rb") as lines:
        content, found = _header.decode(lines.readline()).content, sha256()
        for line in lines:
            found.update(line)
            yield _change.decode(line)
    if content and found.hexdigest() != content:
        raise _altered(path)


def _altered(path: Path) -> MirrorDamaged:
    return _damaged("a version file is not what it was when it was written", path)


def _damaged(what: str, path: Path) -> MirrorDamaged:
    return MirrorDamaged(
        what, where=str(path), kept="the database and the states after it", todo="run: autosync verify --repair"
    )


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _damaged(f"a version file is missing: {error.strerror}", path) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _damaged(f"a version file is damaged: {error}", path) from None


def read_version(folder: Path, seq: int, since: int | None = None) -> Version:
    """The version file that leads back from a seq; its lines are not proven yet.

    Args:
        since: The manifest's; files of later seqs must have a proof.

    Raises:
        MirrorDamaged: It is missing or damaged.
    """
    path = version_file(folder, seq)
    header = read_header(path)
    unproven = not (header.sha256 and header.content) and since is not None and seq > since
    if header.to != seq or header.from_ >= seq or unproven:
        raise _altered(path)
    return Version(path, header)


def chain(folder: Path, seq: int, since: int | None = None) -> list[Version]:
    """The version files that lead back from a seq, newest first, as far as they can be read; see `read_version`."""
    found = list[Version]()
    with suppress(MirrorDamaged):
        while True:
            found.append(read_version(folder, seq, since))
            seq = found[-1].header.from_
    return found


def proven_since(folder: Path, seq: int) -> int:
    """The seq that version files with a proof lead back to from a seq."""
    proven = chain(folder, seq, 0)
    return proven[-1].header.from_ if proven else seq


def write_version(folder: Path, header: Header, changes: Changes) -> None:
    """Write the version file that leads back over some changes.

    Raises:
        StoreError: It can't be written.
    """
    lines = [
        msgspec.json.encode([id, None if before is None else msgspec.Raw(before)]) + b"\n"
        for id, (_, before) in sorted(changes.items())
    ]
    write_file(version_file(folder, header.to), _whole(header, lambda: lines))


def _whole(header: Header, lines: Callable[[], Iterable[bytes]]) -> Iterator[bytes]:
    """A version file with its proofs; the lines are taken twice."""
    content = sha256()
    for line in lines():
        content.update(line)
    yield msgspec.json.encode(_sealed(header, content.hexdigest())) + b"\n"
    yield from lines()


def _sealed(header: Header, content: str) -> Header:
    return seal(msgspec.structs.replace(header, content=content))


def _reachable(folder: Path) -> tuple[Manifest | None, list[Version]]:
    """The manifest and the version files that lead back from the mirror as it is, newest first; none while the
    manifest is damaged.
    """
    try:
        manifest = read_manifest(folder)
    except MirrorDamaged:
        return None, []
    return manifest, chain(folder, manifest.seq, manifest.since) if manifest else []


def plan(folder: Path, rule: Retention, now: float, keep: frozenset[int]) -> Removed:
    """What `compact` would remove."""
    total = Removed()
    for span in _spans(folder, rule, now, keep):
        left = {"": len(msgspec.json.encode(_sealed(_header_of(span), sha256().hexdigest()))) + 1}
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
    manifest, versions = _reachable(folder)
    if manifest is None or not versions:
        return []
    versions.reverse()
    oldest = versions[0].header
    points = [Point(oldest.from_, oldest.from_time), *(Point(one.header.to, one.header.time) for one in versions)]
    # Files without a proof are not merged with others: their merger must not get one.
    apart = {seq for one in versions if not one.header.content for seq in (one.header.from_, one.header.to)}
    found = spans(((one.header.to, one) for one in versions), keep | kept(points, rule, now) | apart)
    return [span for span in found if len(span) > 1]


def _size(span: Sequence[Version]) -> int:
    return sum(version.path.stat().st_size for version in span)


def _header_of(span: Sequence[Version]) -> Header:
    first, last = span[0].header, span[-1].header
    return msgspec.structs.replace(first, to=last.to, time=last.time)


def _line(id: str, before: msgspec.Raw) -> bytes:
    return msgspec.json.encode((id, before)) + b"\n"


def _merged(span: Sequence[Version]) -> Iterator[bytes]:
    """The lines of the file that does in one step what consecutive files, oldest first, do one after the other."""
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
        write_file(span[-1].path, _whole(_header_of(span), partial(_merged, span)))
        for version in span[:-1]:
            version.path.unlink(missing_ok=True)
    return Version(span[-1].path, read_header(span[-1].path))


def _sweep(folder: Path) -> None:
    """Delete what a dead compaction left: files that a merged one stands for, and files that were not finished."""
    _, versions = _reachable(folder)
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
