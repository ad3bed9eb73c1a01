"""What the files of a folder showed last time, so that files which didn't change needn't be read.

The rows of such a file count as seen only when all their hashes are among the source's seen entries: those
decide, a file's state only says which hashes it had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from autosync.row_hashes import ENTRY, Entries

Stat = tuple[int, int, int]
PAIR = np.dtype([("hi", "<u8"), ("lo", "<u8")])


class PartState(msgspec.Struct, frozen=True):
    """One file as it was.

    Attributes:
        name: As people know it.
        stat: Size, time of change and inode; None when it was so new that a later write may hide.
        digest: Of its content.
        rows: The keyed hashes of its raw rows in order, from `packed`.
    """

    name: str
    stat: Stat | None
    digest: str
    rows: bytes


class PartChanges(msgspec.Struct, frozen=True):
    """How what is kept of a source's files must change: states to write, names to drop."""

    write: list[PartState] = []
    drop: list[str] = []


def compare(before: Mapping[str, PartState], now: Sequence[PartState]) -> PartChanges:
    """What to write and drop so that `before` becomes `now`."""
    names = {state.name for state in now}
    write = [state for state in now if before.get(state.name) is not state]
    return PartChanges(write, sorted(before.keys() - names))


def packed(entries: Entries) -> bytes:
    """The hashes of entries, PAIR.itemsize bytes each."""
    pairs = np.empty(len(entries), dtype=PAIR)
    pairs["hi"], pairs["lo"] = entries["hi"], entries["lo"]
    return pairs.tobytes()


def unpacked(rows: bytes) -> Entries:
    """Entries with rec 0 from the bytes of `packed`."""
    pairs = np.frombuffer(rows, dtype=PAIR)
    entries = np.zeros(len(pairs), dtype=ENTRY)
    entries["hi"], entries["lo"] = pairs["hi"], pairs["lo"]
    return entries
