"""What a source showed last time: keyed 128-bit hashes of raw rows, so that unchanged rows are never parsed.

The state is right only together with what produced it, so it is stored with the records, in the
same transaction, under a version that changes with the source's rules (see `rules_version`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import msgspec
import numpy as np
import numpy.typing as npt
from xxhash import xxh3_128_digest

from autosync.records import CANONICAL_VERSION
from autosync.settings import Source

SEEN_VERSION = 1
BUCKETS = 256
ENTRY = np.dtype([("hi", "<u8"), ("lo", "<u8"), ("rec", "<i8")])

Entries = npt.NDArray[np.void]
Recs = npt.NDArray[np.int64]


def rules_version(source: Source) -> str:
    """Changes when anything changes that decides how a raw row becomes a record, or whether it is refused."""
    facts = [SEEN_VERSION, CANONICAL_VERSION, source.into, source.records, source.keys, source.mode, source.expect]
    return sha256(msgspec.json.encode(facts, order="sorted")).hexdigest()


def raw_digests(rows: Sequence[bytes], seed: int) -> Entries:
    """Keyed 128-bit hashes of raw rows as entries with rec 0, in the rows' order."""
    joined = b"".join([xxh3_128_digest(row, seed) for row in rows])
    pairs = np.frombuffer(joined, dtype=">u8").reshape(-1, 2)
    entries = np.zeros(len(rows), dtype=ENTRY)
    entries["hi"], entries["lo"] = pairs[:, 0], pairs[:, 1]
    return entries


def merge(parts: Sequence[Entries]) -> Entries:
    """Entries of several parts in the order of their hashes, equal hashes once. Sorted parts cost little."""
    entries = np.concatenate(parts)
    entries = entries[np.argsort(entries["hi"], kind="stable")]
    same = (entries["hi"][1:] == entries["hi"][:-1]) & (entries["lo"][1:] == entries["lo"][:-1])
    return entries[np.concatenate([[True], ~same])] if same.any() else entries


@dataclass(frozen=True)
class Seen:
    """Sorted entries (hash -> rec) of one source, and the seed that keys the hash."""

    entries: Entries
    seed: int

    @cached_property
    def _halves(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
        """The hashes' halves, each in one piece of memory: searching strided fields would copy them each time."""
        return np.ascontiguousarray(self.entries["hi"]), np.ascontiguousarray(self.entries["lo"])

    def find(self, wanted: Entries) -> npt.NDArray[np.int64]:
        """The position of each wanted hash among the entries, -1 where it is absent; shape (len(wanted),)."""
        places = np.full(len(wanted), -1, dtype=np.int64)
        if not len(self.entries):
            return places
        hi, lo = self._halves
        wanted_hi, wanted_lo = np.ascontiguousarray(wanted["hi"]), np.ascontiguousarray(wanted["lo"])
        order, at = np.argsort(wanted_hi), np.empty(len(wanted), dtype=np.int64)
        at[order] = np.searchsorted(hi, wanted_hi[order])  # in order, so that memory is read once
        open_rows = np.arange(len(wanted))
        while len(open_rows):
            inside = at[open_rows] < len(hi)
            open_rows = open_rows[inside]
            same_hi = hi[at[open_rows]] == wanted_hi[open_rows]
            open_rows = open_rows[same_hi]
            equal = lo[at[open_rows]] == wanted_lo[open_rows]
            places[open_rows[equal]] = at[open_rows[equal]]
            open_rows = open_rows[~equal]
            at[open_rows] += 1
        return places


def buckets(entries: Entries) -> list[bytes]:
    """Sorted entries cut by the top byte of their hash, as stored: a small change rewrites little."""
    bounds = np.searchsorted(entries["hi"], np.arange(1, BUCKETS, dtype=np.uint64) << np.uint64(56))
    return [part.tobytes() for part in np.split(entries, bounds)]


def join(parts: Sequence[bytes]) -> Entries:
    """Entries from stored buckets in order."""
    return np.frombuffer(b"".join(parts), dtype=ENTRY)
