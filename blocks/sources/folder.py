"""A source of many local files, in a folder or named by a glob: of them only those are read that changed.

Their stats say that nothing changed; else a file whose stat differs is read for its digest, and its rows are looked at
when that differs, too. A folder with one file is read as that file.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from io import BytesIO
from operator import itemgetter
from pathlib import Path
from typing import ClassVar

import msgspec
from xxhash import xxh3_128, xxh3_128_hexdigest

from autosync.change_detection import Block
from autosync.file_states import PAIR, PartState, Stat, compare, packed
from autosync.parsing import collector_paused
from autosync.row_hashes import raw_digests
from blocks.sources.file import look_at_file
from blocks.sources.file_access import digest_of, held_still, part_of, settled, text_of
from blocks.sources.json_rows import Part, read_open, read_part
from blocks.sources.listing import Listing, is_folder, list_folder
from blocks.sources.reader import Content, Fingerprint, Known, Previous, Reader, Reading, Unchanged

ROWS_AT_ONCE = 4096
FILES_AT_ONCE = 1000
SMALL = 1 << 20


class FolderFingerprint(Fingerprint, frozen=True, kw_only=True, omit_defaults=True):
    """Fingerprint of several files.

    Attributes:
        stat: A hash over their names, sizes, times of change and inodes.
        settled: Whether none is so new that a second write may hide.
        left_out: What was not looked at.
    """

    stat: str
    settled: bool
    left_out: list[str] = msgspec.field(default_factory=list)


class FolderReading(Reading):
    """Several files to read. What they show is noted by file while they are read.

    Args:
        parts: The files.
        stats: Their sizes, times and inodes, from before their digests were taken.
        states: What each file is now; its rows are empty when they must be read.
        before: By name, what the files were.
        records: Pointer to the records of a document.
        seed: Keys the hashes of rows.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        stats: Sequence[Stat],
        states: Sequence[PartState],
        before: Mapping[str, PartState],
        fingerprint: FolderFingerprint,
        records: str,
        seed: int,
    ) -> None:
        self._parts, self._stats, self._states, self._before = parts, stats, list(states), before
        self._fingerprint, self._records, self._seed = fingerprint, records, seed

    def blocks(self, known: Known) -> Iterator[Block]:
        """Blocks of the rows of files that must be read, in the order of the files; small ones are joined."""
        unread = self._unread(known)
        read = [n for n in range(len(self._parts)) if n not in unread]
        pieces = ((n, block) for n in read for block in self._pieces(n, known))
        while group := _some(pieces):
            yield self._joined(group)

    @collector_paused()  # as below
    def content(self) -> Content:
        """What they showed, and how what is kept of them must change."""
        digest = _joint_digest(self._states, self._seed)
        return Content(digest, self._fingerprint, files=compare(self._before, self._states))

    def _unread(self, known: Known) -> set[int]:
        """The files that needn't be read: their content is as it was, and all their rows are known."""
        same = [n for n, state in enumerate(self._states) if _same(state, self._before.get(state.name))]
        unread = set[int]()
        for first in range(0, len(same), FILES_AT_ONCE):
            some = same[first : first + FILES_AT_ONCE]
            taken = known.known([self._states[n].rows for n in some])
            unread.update(n for n, is_known in zip(some, taken, strict=True) if is_known)
        return unread

    def _pieces(self, n: int, known: Known) -> Iterator[Block]:
        """The blocks of one file; none when its content proves to be as it was."""
        state, part, stat = self._states[n], self._parts[n], self._stats[n]
        if state.digest:
            self._states[n] = msgspec.structs.replace(state, rows=b"")
            yield from held_still(part, stat, read_part(part, self._records))
            return
        text, before = text_of(part, stat), self._before.get(state.name)
        self._states[n] = state = msgspec.structs.replace(state, digest=xxh3_128_hexdigest(text, seed=self._seed))
        if before is not None and before.digest == state.digest and known.known([before.rows])[0]:
            self._states[n] = msgspec.structs.replace(state, rows=before.rows)
        else:
            yield from read_open(BytesIO(text), part, self._records)

    def _joined(self, group: list[tuple[int, Block]]) -> Block:
        """Blocks of several files as one, which costs less than each on its own; their hashes are noted by file."""
        rows = [row for _, block in group for row in block.rows]
        entries = raw_digests(rows, self._seed)
        hashes, ends = packed(entries), [0]
        for n, block in group:
            ends.append(ends[-1] + len(block.rows))
            taken = hashes[ends[-2] * PAIR.itemsize : ends[-1] * PAIR.itemsize]
            self._states[n] = msgspec.structs.replace(self._states[n], rows=self._states[n].rows + taken)
        return Block(rows, partial(_location, [block.where for _, block in group], ends), entries)


class FolderReader(Reader):
    """A source of the JSON files of a folder, or of the files that a glob names."""

    local: ClassVar[bool] = True

    @classmethod
    def reads(cls, location: str, base: Path) -> bool:
        """A glob, or a folder that is there."""
        return is_folder(location, base)

    def listing(self) -> Listing:
        """The files, with their facts."""
        return list_folder(self.source, self.context.base, self.context.own)

    @collector_paused()  # facts of thousands of files
    def look(self, previous: Previous) -> Unchanged | Reading:
        """A stat of each file; of those that may have changed a digest, of small ones not before they are read."""
        listing, at = self.listing(), time.time()
        if listing.is_single():
            return look_at_file(listing, at, self.source.records, self.context.base, previous)
        before, now = previous.as_kind(FolderFingerprint), _fingerprint(listing, at, previous.seed)
        if before and before.settled and before.stat == now.stat:
            return Unchanged(before if before.left_out == now.left_out else now)
        files, old, seed = listing.files(), previous.files(), previous.seed
        parts, stats = [part_of(name, self.context.base) for name in files], list(files.values())
        states = [_state(p, stat, at, seed, old.get(p.shown)) for p, stat in zip(parts, stats, strict=True)]
        is_read = all(state.digest for state in states)
        if is_read and previous.digest and _joint_digest(states, seed) == previous.digest:
            return Unchanged(now)
        return FolderReading(parts, stats, states, old, now, self.source.records, seed)


def _fingerprint(listing: Listing, at: float, seed: int) -> FolderFingerprint:
    """The fingerprint of a listing.

    Args:
        at: When it was made, in Unix seconds.
        seed: Keys the hash of what many files show.
    """
    stat = xxh3_128_hexdigest(msgspec.msgpack.encode(listing.folders), seed=seed)
    newest = max((max(folder.stats, key=itemgetter(1)) for folder in listing.folders), key=itemgetter(1))
    return FolderFingerprint(stat=stat, settled=settled(newest, at), left_out=listing.left_out)


def _state(part: Part, stat: Stat, at: float, seed: int, old: PartState | None) -> PartState:
    """What a file is now. If it may have changed it is read, a small one later: until then it has no digest.

    Its rows are as they were, or not known yet.
    """
    if old is not None and old.stat == stat:
        return old
    digest = digest_of(part, seed) if stat[0] > SMALL else ""
    rows = old.rows if old is not None and old.digest == digest else b""
    return PartState(part.shown, stat if settled(stat, at) else None, digest, rows)


def _same(state: PartState, before: PartState | None) -> bool:
    return state is before or (before is not None and state.digest == before.digest)


def _some(pieces: Iterator[tuple[int, Block]]) -> list[tuple[int, Block]]:
    """The next pieces of the files, with so many rows together that a block is worth its cost."""
    group, rows = list[tuple[int, Block]](), 0
    for piece in pieces:
        group.append(piece)
        rows += len(piece[1].rows)
        if rows >= ROWS_AT_ONCE:
            break
    return group


def _location(wheres: Sequence[Callable[[int], str]], ends: Sequence[int], n: int) -> str:
    """Where the n-th row of a joined block stands."""
    block = bisect_right(ends, n) - 1
    return wheres[block](n - ends[block])


def _joint_digest(states: Sequence[PartState], seed: int) -> str:
    """One digest over the names and the digests of all files."""
    return xxh3_128(msgspec.json.encode([(state.name, state.digest) for state in states]), seed=seed).hexdigest()
