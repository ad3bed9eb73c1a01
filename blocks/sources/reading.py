"""Opening a source: file, folder or glob of JSON files, or HTTP(S) address, to be read as blocks of raw rows.

It costs a `stat` (a conditional request over HTTP) when nothing changed, else one read for the digest; of a
folder only the files that changed are read.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import msgspec
from xxhash import xxh3_128, xxh3_128_hexdigest

from autosync.change_detection import Block
from autosync.errors import SourceError, SourceUnavailable
from autosync.file_states import PAIR, PartChanges, PartState, Stat, compare, packed
from autosync.parsing import collector_paused
from autosync.row_hashes import raw_digests
from autosync.settings import Source
from blocks.sources.files import (
    Fingerprint,
    digest_of,
    digests,
    find_parts,
    part_of,
    settled,
    stat_of,
)
from blocks.sources.json_rows import KEPT, LINES, Part, read_lines, read_open, read_part
from blocks.sources.own_folders import OwnFolder
from blocks.sources.walk import unreadable

ROWS_AT_ONCE = 4096
PARTS_AT_ONCE = 1000
SMALL = 1 << 20

Known = Callable[[Sequence[bytes]], Sequence[bool]]


def nothing_known(rows: Sequence[bytes]) -> list[bool]:
    """Of all parts, that they must be read."""
    return [False] * len(rows)


class Grown(NamedTuple):
    """The part of a JSON Lines file that is as it was last time: bytes from its begin, and lines."""

    size: int
    lines: int


@dataclass(frozen=True)
class Input:
    """An input to read.

    Attributes:
        parts: Its files.
        fingerprint: What a cheap look compares next time.
        read: Identifies its content; "" while files of a folder were not read yet.
        records: Pointer to the records of a document.
        stats: The parts' sizes, times and inodes from before their digests were taken; empty for a download.
        seed: Keys the hashes of rows.
        states: Of several parts, what each is now; `rows` is empty for those that must be read.
        before: By name, what the parts were.
        grown: Of a JSON Lines file to which lines were added, what stood there before; each line of it was taken.
    """

    parts: Sequence[Part]
    fingerprint: Fingerprint
    read: str
    records: str
    stats: Sequence[Stat] = ()
    seed: int = 0
    states: list[PartState] = field(default_factory=list)
    before: Mapping[str, PartState] = field(default_factory=dict)
    grown: Grown | None = None

    @property
    def is_lines(self) -> bool:
        """Whether it is one local JSON Lines file, which may grow."""
        return len(self.parts) == len(self.stats) == 1 and _is_lines(self.parts[0], self.records)

    def added(self) -> Iterator[Block]:
        """Blocks of the rows that were added to a file that has grown; errors as of `blocks`."""
        assert self.grown is not None
        yield from self._read(0, self.grown)

    def blocks(self, known: Known = nothing_known) -> Iterator[Block]:
        """Blocks of raw rows, in order; of several parts only what must be read.

        Args:
            known: Takes the rows of parts whose content is as it was by their hashes, and says for each part whether
                it could: else it is read.

        Raises:
            SourceError: Not JSON, truncated, nothing at the pointer.
            SourceUnavailable: A file changed while it was read.
        """
        if not self.states:
            for n in range(len(self.parts)):
                yield from self._read(n)
            return
        unread = self._unread(known)
        read = [n for n in range(len(self.parts)) if n not in unread]
        pieces = ((n, block) for n in read for block in self._pieces(n, known))
        while group := _some(pieces):
            yield self._joined(group)

    @property
    def digest(self) -> str:
        """Identifies the content, once all blocks were taken."""
        return self.read or _joint_digest(self.states, self.seed)

    def changes(self) -> PartChanges:
        """How what is kept of the parts must change, once all blocks were taken."""
        return compare(self.before, self.states)

    def _unread(self, known: Known) -> set[int]:
        """The parts that needn't be read: their content is as it was, and all their rows are known."""
        same = [n for n, state in enumerate(self.states) if _same(state, self.before.get(state.name))]
        unread = set[int]()
        for first in range(0, len(same), PARTS_AT_ONCE):
            some = same[first : first + PARTS_AT_ONCE]
            taken = known([self.states[n].rows for n in some])
            unread.update(n for n, done in zip(some, taken, strict=True) if done)
        return unread

    def _pieces(self, n: int, known: Known) -> Iterator[Block]:
        """The blocks of one of several parts; none when its content proves to be as it was."""
        state, part = self.states[n], self.parts[n]
        if state.digest:
            self.states[n] = msgspec.structs.replace(state, rows=b"")
            yield from self._read(n)
            return
        text, before = self._text(n), self.before.get(state.name)
        self.states[n] = state = msgspec.structs.replace(state, digest=xxh3_128_hexdigest(text, seed=self.seed))
        if before is not None and before.digest == state.digest and known([before.rows])[0]:
            self.states[n] = msgspec.structs.replace(state, rows=before.rows)
        else:
            yield from read_open(BytesIO(text), part, self.records)

    def _text(self, n: int) -> bytes:
        """A small file, read at once."""
        try:
            with open(self.parts[n].path, "rb", buffering=0) as handle:  # noqa: PTH123  # of thousands
                text = handle.read()
        except OSError as error:
            raise unreadable(self.parts[n].shown, error) from None
        self._refuse_changed(n)
        return text

    def _read(self, n: int, after: Grown | None = None) -> Iterator[Block]:
        part = self.parts[n]
        try:
            yield from read_part(part, self.records) if after is None else read_lines(part, *after)
        except OSError as error:
            raise unreadable(part.shown, error) from None
        except SourceError:  # what stood there while somebody wrote says nothing
            self._refuse_changed(n)
            raise
        self._refuse_changed(n)

    def _refuse_changed(self, n: int) -> None:
        if self.stats and stat_of(self.parts[n].path) != self.stats[n]:
            raise SourceUnavailable(
                "the file changed while it was read",
                where=self.parts[n].shown,
                kept=KEPT,
                todo="nothing; it is read again. Programs that write it should write another file and rename it",
            ) from None

    def _joined(self, group: list[tuple[int, Block]]) -> Block:
        """Blocks of several parts as one, which costs less than each on its own; their hashes are noted by part."""
        rows = [row for _, block in group for row in block.rows]
        entries = raw_digests(rows, self.seed)
        hashes, ends = packed(entries), [0]
        for n, block in group:
            ends.append(ends[-1] + len(block.rows))
            taken = hashes[ends[-2] * PAIR.itemsize : ends[-1] * PAIR.itemsize]
            self.states[n] = msgspec.structs.replace(self.states[n], rows=self.states[n].rows + taken)
        return Block(rows, partial(_place, [block.where for _, block in group], ends), entries)


def _same(state: PartState, before: PartState | None) -> bool:
    return state is before or (before is not None and state.digest == before.digest)


def _some(pieces: Iterator[tuple[int, Block]]) -> list[tuple[int, Block]]:
    group, rows = list[tuple[int, Block]](), 0
    for piece in pieces:
        group.append(piece)
        rows += len(piece[1].rows)
        if rows >= ROWS_AT_ONCE:
            break
    return group


def _place(wheres: Sequence[Callable[[int], str]], ends: Sequence[int], n: int) -> str:
    block = bisect_right(ends, n) - 1
    return wheres[block](n - ends[block])


def is_url(location: str) -> bool:
    """Whether a location is an HTTP(S) address."""
    return location.startswith(("http://", "https://"))


def _is_lines(part: Part, records: str) -> bool:
    return not records and str(part.path).endswith(LINES)


def _state(part: Part, stat: Stat, at: float, seed: int, old: PartState | None) -> PartState:
    """What a part is now. If it may have changed it is read, a small one later: until then it has no digest.

    Its rows are as they were, or not known yet.
    """
    if old is not None and old.stat == stat:
        return old
    digest = digest_of(part, seed) if stat[0] > SMALL else ""
    rows = old.rows if old is not None and old.digest == digest else b""
    return PartState(part.shown, stat if settled(stat, at) else None, digest, rows)


@collector_paused()  # facts of thousands of files
def open_source(
    source: Source,
    base: Path,
    scratch: Path,
    previous: Fingerprint | None,
    digest: str,
    seed: int,
    headers: Mapping[str, str] | None = None,
    before: Callable[[], Mapping[str, PartState]] = dict,
    own: Sequence[OwnFolder] = (),
) -> Input | Fingerprint:
    """Look whether a source changed.

    Args:
        base: Folder that a relative location starts from.
        scratch: Folder for a downloaded body.
        previous: The fingerprint kept from last time; None to read in any case.
        digest: The content digest kept from last time.
        seed: The key of that digest.
        headers: Request headers for an address, such as Authorization.
        before: Gives what the files of a folder were last time, by name.
        own: The folders that AutoSync writes to, which are no input.

    Returns:
        The Input to read, or, when it is as it was, its present fingerprint.

    Raises:
        SourceError, SourceUnavailable: It can't be read.
        ConfigError: It lies in the home.
    """
    if is_url(source.location):
        return _open_address(source, scratch, previous, digest, seed, headers)
    looked, at = find_parts(source, base, own), time.time()
    fingerprint = looked.fingerprint(at, seed)
    if previous and previous.get("settled") and previous["stat"] == fingerprint["stat"]:
        return previous if looked.left_out == previous.get("left_out", []) else _carried(fingerprint, previous)
    found = looked.parts()
    parts, old, states = [part_of(shown, base) for shown in found], before(), list[PartState]()
    before_it, grown = _settled_lines(previous, parts, source.records), None
    if len(parts) == 1:
        begin, now = digests(parts[0], seed, before_it.size if before_it else 0)
        grown = before_it if begin == digest else None
    else:
        states = [_state(p, stat, at, seed, old.get(p.shown)) for p, stat in zip(parts, found.values(), strict=True)]
        now = _joint_digest(states, seed) if all(state.digest for state in states) else ""
    if previous is not None and now == digest:
        return _carried(fingerprint, previous)
    return Input(parts, fingerprint, now, source.records, list(found.values()), seed, states, old, grown)


def _carried(fingerprint: Fingerprint, previous: Fingerprint) -> Fingerprint:
    """A new fingerprint of the same content."""
    return fingerprint | ({"lines": previous["lines"]} if "lines" in previous else {})


def _settled_lines(previous: Fingerprint | None, parts: Sequence[Part], records: str) -> Grown | None:
    """What a JSON Lines file was last time, if every line of it was taken."""
    if not previous or "lines" not in previous or len(parts) != 1 or not _is_lines(parts[0], records):
        return None
    return Grown(previous["stat"][0], previous["lines"])


def _joint_digest(states: Sequence[PartState], seed: int) -> str:
    return xxh3_128(msgspec.json.encode([(state.name, state.digest) for state in states]), seed=seed).hexdigest()


def _open_address(
    source: Source,
    scratch: Path,
    previous: Fingerprint | None,
    digest: str,
    seed: int,
    headers: Mapping[str, str] | None,
) -> Input | Fingerprint:
    from blocks.sources.http import fetch

    fetched = fetch(source.location, scratch, previous or {}, timeout=source.timeout, headers=headers)
    if fetched is None:
        return previous or {}
    part, fingerprint = Part(str(fetched[0]), source.location), fetched[1]
    now = digest_of(part, seed)
    if previous is not None and now == digest:
        return fingerprint
    return Input([part], fingerprint, now, source.records)
