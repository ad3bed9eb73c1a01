"""Reading one version of a JSON array after another, each by what differs from the one before.

Bytes that are as they were are neither parsed nor hashed again. Where an element's text differs, both versions stand
behind an element. From there the new text is read up to where the old one goes on with a whole element that it also
has; what lies between must be whole elements itself, so that both stand behind an element again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import msgspec
import numpy as np
import numpy.typing as npt

from autosync.row_hashes import ENTRY, PLAIN, Entries, raw_digests

ANCHORS, REACH = 8, 16
FIRST_LOOK, MOST_LOOK = 1 << 10, 1 << 16

_decode_rows = msgspec.json.Decoder(list[msgspec.Raw]).decode
BROKEN = (msgspec.DecodeError, RecursionError, UnicodeError)
Offsets = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ArrayRows(Sequence[bytes]):
    """The elements of an array: its text, where each begins and ends in it, and their keyed hashes (rec 0)."""

    text: bytes
    starts: Offsets
    ends: Offsets
    entries: Entries

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, n: int) -> bytes: ...
    @overload
    def __getitem__(self, n: slice) -> list[bytes]: ...
    def __getitem__(self, n: int | slice) -> bytes | list[bytes]:
        if isinstance(n, slice):
            return [self[one] for one in range(*n.indices(len(self)))]
        return self.text[self.starts[n] : self.ends[n]]


class ArrayReader:
    """Reads versions in their order.

    Args:
        seed: Keys the hashes.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._last: ArrayRows | None = None

    def read(self, text: bytes) -> ArrayRows | None:
        """The elements of a document that is an array; None when it is none, or not JSON."""
        if not text.startswith(b"["):
            return None
        found = self._differing(text) if self._last else None
        if found is None:
            try:
                found = _joined(text, [_fresh(text, 1, len(text))], self._seed)
            except BROKEN:
                return None
        self._last = found
        return found

    def _differing(self, text: bytes) -> ArrayRows | None:
        assert self._last is not None
        try:
            return _joined(text, list(_Differences(self._last, text).runs()), self._seed)
        except BROKEN:  # perhaps only an element that looked like one that was expected
            return None


class Run(NamedTuple):
    """Consecutive elements: where they begin and end, and either the hashes that are known or the rows to hash."""

    starts: Offsets
    ends: Offsets
    entries: Entries | None
    rows: list[bytes]


def _fresh(text: bytes, first: int, end: int) -> Run:
    """The elements in a part of the text that begins behind `[` or behind an element, and ends with one or with `]`."""
    before = b"[" if first == 1 else b"[0"
    part = text[first:end]
    rows = [bytes(row) for row in _decode_rows(before + part + (b"" if end == len(text) else b"]"))[len(before) - 1 :]]
    if first == 1 and end < len(text) and not rows:
        raise msgspec.DecodeError("a comma stands before the first element")
    starts, ends, at = list[int](), list[int](), first
    for row in rows:
        at = text.index(row, at)  # only white space and a comma stand before it
        starts.append(at)
        at += len(row)
        ends.append(at)
    return Run(np.array(starts, dtype=np.int64), np.array(ends, dtype=np.int64), None, rows)


def _joined(text: bytes, runs: list[Run], seed: int) -> ArrayRows:
    fresh = raw_digests([row for run in runs for row in run.rows], seed).view(PLAIN)
    parts, at = list[npt.NDArray[np.void]](), 0
    for run in runs:
        parts.append(fresh[at : at + len(run.rows)] if run.entries is None else run.entries.view(PLAIN))
        at += len(run.rows)
    starts, ends = np.concatenate([run.starts for run in runs]), np.concatenate([run.ends for run in runs])
    return ArrayRows(text, starts, ends, np.concatenate(parts).view(ENTRY))


class _Differences:
    """Goes through an old array and a new text side by side."""

    def __init__(self, old: ArrayRows, text: bytes) -> None:
        self.old, self.text = old, text
        self.bytes = np.frombuffer(old.text, dtype=np.uint8), np.frombuffer(text, dtype=np.uint8)

    def runs(self) -> Iterator[Run]:
        """Runs of elements of the new text: those that are as they were, and those between."""
        old, text = self.old, self.text
        row, there, here = 0, 0, 0  # the next old element; where both stand
        while True:
            same = self._same(there, here)
            if there + same == len(old.text) and here + same == len(text):
                yield self._kept(row, len(old), here - there)
                return
            # An element is whole when the byte behind it is as it was, too.
            stop = max(int(old.ends.searchsorted(there + same)), row)
            yield self._kept(row, stop, here - there)
            first = int(old.ends[stop - 1]) + here - there if stop else 1
            row, end = self._anchor(stop, first)
            yield _fresh(text, first, end)
            if end == len(text):
                return
            there, here = int(old.ends[row - 1]), end

    def _kept(self, first: int, stop: int, moved: int) -> Run:
        old = self.old
        return Run(old.starts[first:stop] + moved, old.ends[first:stop] + moved, old.entries[first:stop], [])

    def _anchor(self, row: int, first: int) -> tuple[int, int]:
        """The next old element that the new text has soon, and where what stands before it begins; else both ends."""
        ends, last = self.old.ends, min(row + 1 + ANCHORS, len(self.old))
        reach = first + REACH * int(ends[last - 1] - self.old.starts[row]) if last > row + 1 else 0
        for after in range(row + 1, last):
            found = self.text.find(self.old.text[ends[after - 1] : ends[after]], first, reach)
            if found >= 0:
                return after, found
        return len(self.old), len(self.text)

    def _same(self, there: int, here: int) -> int:
        """How many bytes from there and from here on are equal."""
        before, now = self.bytes
        most, at, look = min(len(before) - there, len(now) - here), 0, FIRST_LOOK
        while at < most:
            size = min(look, most - at)
            if not self.text.startswith(before[there + at : there + at + size].data, here + at):
                differs = before[there + at : there + at + size] != now[here + at : here + at + size]
                return at + int(differs.argmax())
            at, look = at + size, min(2 * look, MOST_LOOK)
        return most
