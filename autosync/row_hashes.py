"""What a source showed last time: keyed 128-bit hashes of raw rows, so that unchanged rows are never parsed.

The state is right only together with what produced it, so it is stored with the records, in the
same transaction, under a version that changes with the source's rules (see `rules_version`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from hashlib import sha256
from itertools import repeat

import msgspec
import numpy as np
import numpy.typing as npt
from xxhash import xxh3_128_digest

from autosync.records import CANONICAL_VERSION
from autosync.settings import Source

SEEN_VERSION = 2
BUCKETS = 256
FEW, SMALL = 16, 1 << 16  # halving is faster for few hashes, and in a table that fits a processor's cache
ENTRY = np.dtype([("hi", "<u8"), ("lo", "<u8"), ("rec", "<i8")])
PLAIN = np.dtype((np.void, ENTRY.itemsize))  # to join records, NumPy compares their fields one by one

Row = bytes | msgspec.Raw
Entries = npt.NDArray[np.void]
Recs = npt.NDArray[np.int64]


def rules_version(source: Source) -> str:
    """Changes when anything changes that decides how a raw row becomes a record, or whether it is refused."""
    facts = [SEEN_VERSION, CANONICAL_VERSION, source.into, source.records, source.keys, source.mode, source.expect]
    return sha256(msgspec.json.encode(facts, order="sorted")).hexdigest()


def raw_digests(rows: Sequence[Row], seed: int) -> Entries:
    """Keyed 128-bit hashes of raw rows as entries with rec 0, in the rows' order."""
    joined = b"".join(map(xxh3_128_digest, rows, repeat(seed)))
    pairs = np.frombuffer(joined, dtype=">u8").reshape(-1, 2)
    entries = np.zeros(len(rows), dtype=ENTRY)
    entries["hi"], entries["lo"] = pairs[:, 0], pairs[:, 1]
    return entries


def merge(parts: Sequence[Entries]) -> Entries:
    """Entries in the order of their hashes, of equal ones that of the first part. Sorted parts cost little."""
    filled = [part for part in parts if len(part)] or [parts[0]]
    entries = filled[0] if len(filled) == 1 else np.concatenate([part.view(PLAIN) for part in filled]).view(ENTRY)
    entries = entries.take(np.argsort(entries["hi"], kind="stable"))  # which takes sorted parts as they are
    twins = entries["hi"][1:] == entries["hi"][:-1]
    if not twins.any():
        return entries
    among = np.flatnonzero(np.append(twins, False) | np.append(False, twins))
    alike = entries[among]
    entries[among] = alike.take(np.lexsort((alike["lo"], alike["hi"])))
    same = twins & (entries["lo"][1:] == entries["lo"][:-1])
    once: Entries = entries[np.append(True, ~same)]
    return once


class RowHashes:
    """What one source showed: hash -> rec, in the order of the hashes.

    Args:
        parts: Sorted entries of consecutive ranges of hashes, as stored; one is held at a time.
        seed: Keys the hash.
        size: How many entries they have together, at most; counted when None.

    Attributes:
        rec: The records' numbers; shape (rows seen,).
    """

    def __init__(self, parts: Iterable[bytes], seed: int, size: int | None = None) -> None:
        self.seed, self._asked = seed, 0
        if size is None:
            parts = list(parts)
            size = sum(map(len, parts)) // ENTRY.itemsize
        # Halves of the hashes apart: searching fields of entries would copy them each time.
        self._hi, self._lo = np.empty(size, dtype=np.uint64), np.empty(size, dtype=np.uint64)
        self.rec: Recs = np.empty(size, dtype=np.int64)
        first = 0
        for part in parts:
            entries = np.frombuffer(part, dtype=ENTRY)
            taken = slice(first, first + len(entries))
            self._hi[taken], self._lo[taken], self.rec[taken] = entries["hi"], entries["lo"], entries["rec"]
            first += len(entries)
        self._hi, self._lo, self.rec = self._hi[:first], self._lo[:first], self.rec[:first]

    def __len__(self) -> int:
        return len(self.rec)

    def find(self, wanted: Entries) -> npt.NDArray[np.int64]:
        """The position of each wanted hash among the entries, -1 where it is absent; shape (len(wanted),)."""
        places = np.full(len(wanted), -1, dtype=np.int64)
        if not len(self):
            return places
        hi, lo = np.ascontiguousarray(wanted["hi"]), np.ascontiguousarray(wanted["lo"])
        self._asked += len(wanted)
        cheap = len(self) < SMALL or FEW * self._asked < len(self)
        at = np.searchsorted(self._hi, hi) if cheap else self._begins[self._leading(hi)]
        open_rows = np.arange(len(wanted))
        while len(open_rows):
            here = at[open_rows]
            if here.max() >= len(self):
                open_rows = open_rows[here < len(self)]
                here = at[open_rows]
            found = self._hi[here]
            equal = (found == hi[open_rows]) & (self._lo[here] == lo[open_rows])
            places[open_rows[equal]] = here[equal]
            open_rows = open_rows[~equal & (found <= hi[open_rows])]
            at[open_rows] += 1
        return places

    @cached_property
    def _begins(self) -> npt.NDArray[np.intp]:
        """Where the hashes begin that have the same leading bits."""
        first = self._hi[0] + (np.arange(self._last + 1, dtype=np.uint64) << self._shift)
        begins: npt.NDArray[np.intp] = np.searchsorted(self._hi, first)
        return begins

    def _leading(self, hi: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """The leading bits of hashes within the range of the entries': so many that one or two entries share them."""
        leading: npt.NDArray[np.uint64] = np.minimum((hi - self._hi[0]) >> self._shift, np.uint64(self._last))
        return leading.astype(np.int64)

    @cached_property
    def _shift(self) -> np.uint64:
        spread = int(self._hi[-1]) - int(self._hi[0])
        return np.uint64(max(spread.bit_length() - len(self).bit_length() + 1, 0))

    @cached_property
    def _last(self) -> int:
        return int((self._hi[-1] - self._hi[0]) >> self._shift)

    def entries(self, places: npt.NDArray[np.int64]) -> Entries:
        """The entries at positions."""
        taken = np.empty(len(places), dtype=ENTRY)
        taken["hi"], taken["lo"], taken["rec"] = self._hi[places], self._lo[places], self.rec[places]
        return taken


def in_buckets(entries: Entries) -> list[Entries]:
    """Sorted entries cut by the top byte of their hash, as they are stored: a small change rewrites little."""
    tops = np.arange(1, BUCKETS, dtype=np.uint64) << np.uint64(56)
    return np.split(entries, np.searchsorted(entries["hi"], tops))


def update_bucket(data: bytes, lost: Entries, fresh: Entries) -> bytes:
    """A stored bucket without entries that are lost and with fresh ones; both sorted, and of this bucket."""
    keep = np.ones(len(data) // ENTRY.itemsize, dtype=bool)
    places = RowHashes([data], 0).find(lost)
    keep[places[places >= 0]] = False
    return merge([np.frombuffer(data, dtype=ENTRY)[keep], fresh]).tobytes()
