"""Shards: where files of the mirror and the repository begin, and what their roots are.

In key order a shard begins at each record whose key hash has enough trailing zero bits.
That depends on the keys alone: the same records give the same shards and the same root,
whatever the order in which they arrived (history independence).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from hashlib import blake2b, sha256
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest

LAYOUT_VERSION = 1
ONE_FILE_BELOW = 256
MIRROR_BITS = 14
REPO_MIN_BITS = 4
REPO_MAX_FILES = 50_000
FANOUT_ABOVE = 1000
HEAD_NAME = "_first"
ONE_FILE_NAME = "records"


class Shard(NamedTuple):
    """One mirror file: its first boundary key ("" for the head), records, bytes and SHA-256 in hex."""

    start: str
    records: int
    bytes: int
    sha256: str


def level(key: str) -> int:
    """Trailing zero bits of the key's 64-bit XXH3 (0 to 64): 2^-n of all keys have level >= n."""
    value = xxh3_64_intdigest(key.encode())
    return (value & -value).bit_length() - 1 if value else 64


def levels(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int8]:
    """The levels of many keys, given their 64-bit XXH3."""
    lowest = hashes & (~hashes + np.uint64(1))
    return np.where(hashes == 0, 64, np.frexp(lowest.astype(np.float64))[1] - 1).astype(np.int8)


class Layout(NamedTuple):
    """How a collection is cut into files: the level that begins one (None for one file), and fan-out folders or not."""

    bits: int | None
    fan: bool = False


def mirror_layout(records: int) -> Layout:
    """The mirror's layout: few large files; one file below ONE_FILE_BELOW records."""
    return Layout(None if records < ONE_FILE_BELOW else MIRROR_BITS)


def repo_layout(records: int) -> Layout:
    """The repository's layout: small files, but at most about REPO_MAX_FILES of them; one file below ONE_FILE_BELOW."""
    if records < ONE_FILE_BELOW:
        return Layout(None)
    bits = REPO_MIN_BITS
    while records >> bits > REPO_MAX_FILES:
        bits += 1
    return Layout(bits, records >> bits > FANOUT_ABOVE)


def split(lines: Iterable[tuple[str, bytes]], bits: int | None) -> Iterator[tuple[str, list[bytes]]]:
    """Cut (id, line) pairs in key order into shards of (start key, lines)."""
    start, held = "", list[bytes]()
    for key, line in lines:
        if bits is not None and level(key) >= bits:
            if held:
                yield start, held
            start, held = key, []
        held.append(line)
    if held:
        yield start, held


def body(lines: Iterable[bytes]) -> bytes:
    """A shard's bytes: one canonical record a line."""
    joined = b"\n".join(lines)
    return joined + b"\n" if joined else b""


def shard_of(start: str, data: bytes) -> Shard:
    """Describe a shard's bytes."""
    return Shard(start, data.count(b"\n"), len(data), sha256(data).hexdigest())


class Passing:
    """Describes a shard's bytes while they pass, piece by piece."""

    def __init__(self) -> None:
        self._records, self._bytes, self._sha256 = 0, 0, sha256()

    def through(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The same pieces, counted and hashed."""
        for piece in pieces:
            self._records += piece.count(b"\n")
            self._bytes += len(piece)
            self._sha256.update(piece)
            yield piece

    def shard(self, start: str) -> Shard:
        """What has passed, as the shard that begins at a key."""
        return Shard(start, self._records, self._bytes, self._sha256.hexdigest())


def root(shards: Iterable[Shard]) -> str:
    """The root of a collection: SHA-256 (hex) over the SHA-256 digests of its mirror shards in key order."""
    total = sha256()
    for shard in shards:
        total.update(bytes.fromhex(shard.sha256))
    return total.hexdigest()


def root_of(lines: Iterable[tuple[str, bytes]], records: int) -> str:
    """The root recomputed from all (id, canonical line) pairs in key order."""
    return root(shard_of(start, body(held)) for start, held in split(lines, mirror_layout(records).bits))


def find(starts: list[str], key: str) -> int:
    """The position of the shard that holds a key, given the shards' start keys in order."""
    return max(bisect_right(starts, key) - 1, 0)


def file_name(start: str, layout: Layout) -> str:
    """The file that begins at a boundary key ("" for the head), relative to the collection's folder.

    The name shows the key, percent-encoded and cut, with a short hash so that names that differ
    only in case stay apart on every file system; fan-out folders keep directories small.
    """
    if layout.bits is None:
        return f"{ONE_FILE_NAME}.jsonl"
    if not start:
        return f"{HEAD_NAME}.jsonl"
    tag = blake2b(start.encode(), digest_size=4).hexdigest()
    folder = f"{tag[:2]}/" if layout.fan else ""
    return f"{folder}{quote(start, safe='')[:80]}~{tag}.jsonl"
