"""Change detection: which rows of an input are unchanged, new, updated, gone or refused. Decides; writes nothing.

Unchanged rows are recognised by a keyed hash of their raw bytes and never parsed. The others are
parsed, keyed, checked and compared with the stored hash of the record with their id.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import NamedTuple, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_digest

from autosync import conflicts as clashes
from autosync.errors import SourceError
from autosync.fields import inner_fields
from autosync.file_states import PAIR, unpacked
from autosync.parsing import PARSED_AT_ONCE, Parsed, Parser, RefusedRow, RowParser
from autosync.row_hashes import ENTRY, Entries, Recs, Row, RowHashes, raw_digests
from autosync.settings import Source
from autosync.shards import levels

MOST_WAITING = 8

Read = Callable[[Iterable[int]], Mapping[int, tuple[str, bytes]]]
Lookup = Callable[[Sequence[str]], Mapping[str, tuple[int, bytes | None]]]


class Block(NamedTuple):
    """A run of raw rows, how to name the n-th of them to people, and their hashes if those are known already."""

    rows: Sequence[Row]
    where: Callable[[int], str]
    entries: Entries | None = None


class Refusal(NamedTuple):
    """A row that was refused: where it stands, its id if it has one, why, and its raw text."""

    place: str
    id: str | None
    reason: str
    raw: bytes


class Writer(Protocol):
    """Takes the rows that will be written, in order: their ids and their canonical forms, both with one a line."""

    def write(self, ids: bytes, docs: bytes) -> None: ...


class Waiting(NamedTuple):
    """Rows that were given to the parser: how to name them, their positions, hashes and bytes, and the answer."""

    where: Callable[[int], str]
    places: npt.NDArray[np.int64]
    entries: Entries
    rows: list[bytes]
    answer: Callable[[], Parsed]


@dataclass
class Staged:
    """What change detection found; row n of every array belongs to the n-th row given to the writer.

    Attributes:
        recs: The record's number, 0 for a new id; shape (staged,).
        levels: The keys' shard levels; shape (staged,), int8.
        born: Whether the record is new or comes back after a delete; shape (staged,), bool.
        entries: Raw hash of each staged row (rec not yet filled in); shape (staged,).
        same: Entries of rows that only look different from what is stored; shape (same,).
        lost: Entries of rows that the source no longer shows; shape (lost,).
        unchanged: How many rows were seen before or only look different.
        deletes: Records that the snapshot no longer has.
        skip: Positions among the staged rows that must not be written (refused late).
    """

    recs: Recs
    levels: npt.NDArray[np.int8]
    born: npt.NDArray[np.bool_]
    entries: Entries
    same: Entries
    lost: Entries
    unchanged: int
    deletes: Recs
    skip: frozenset[int] = frozenset()
    fields: list[tuple[str, ...]] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    rows: int = 0
    repeated: int = 0
    deletes_withheld: bool = False

    def each_taken(self, lines: int) -> bool:
        """Whether each of so many lines is a record of its own: none refused, repeated or blank."""
        return not self.refused and not self.skip and self.unchanged + len(self.recs) == lines and not self.repeated

    @property
    def inserted(self) -> int:
        return int(self.born.sum()) - sum(1 for n in self.skip if self.born[n])

    @property
    def updated(self) -> int:
        return len(self.recs) - len(self.skip) - self.inserted


class ChangeDetector:
    """Takes blocks of raw rows, then says what the batch does.

    Args:
        source: Key, mode and checks.
        seen: What the source showed last time.
        lookup: Given ids, their (rec, stored canonical form); the form is None for a deleted record.
        writer: Receives each row that will be written.
        parser: Parses the rows; here and now when None.
    """

    def __init__(
        self, source: Source, seen: RowHashes, lookup: Lookup, writer: Writer, parser: Parser | None = None
    ) -> None:
        self.source, self.seen, self.lookup, self.writer = source, seen, lookup, writer
        self.parser = parser or RowParser(source)
        self.hit = np.zeros(len(seen), dtype=bool)
        self.waiting: deque[Waiting] = deque()
        self.refused: list[Refusal] = []
        self.recs, self.born = array("q"), bytearray()
        self.key_hashes = array("Q")
        self.entries: list[Entries] = []
        self.same: list[Entries] = []
        self.places: list[tuple[int, Callable[[int], str], npt.NDArray[np.int64]]] = []
        self.values: dict[str, dict[int, str]] = {text: {} for text in source.expect.unique}
        self.fields: dict[tuple[str, ...], None] = {}
        self.rows = self.hits = self.repeated = 0

    def block(self, block: Block) -> None:
        """Detect changes in one block of rows.

        Raises:
            SourceError: The input's encoding is wrong, so that nothing of it can be trusted.
        """
        wanted = raw_digests(block.rows, self.seen.seed) if block.entries is None else block.entries
        places = self.seen.find(wanted)
        self._hit(places[places >= 0])
        misses = np.flatnonzero(places < 0)
        all_new = len(misses) == len(places)
        for first in range(0, len(misses), PARSED_AT_ONCE):
            some = misses[first : first + PARSED_AT_ONCE]
            chosen = block.rows[first : first + len(some)] if all_new else [block.rows[n] for n in some.tolist()]
            rows = list(map(bytes, chosen))
            self.waiting.append(Waiting(block.where, some, wanted.take(some), rows, self.parser.submit(rows)))
            if len(self.waiting) > MOST_WAITING:
                self._stage(self.waiting.popleft())

    def known_lines(self, lines: int) -> bool:
        """Take all rows that were seen last time, if they are so many; whether they were taken.

        For a snapshot to which rows were added behind those that it had, each of which was taken.
        """
        if self.source.mode != "snapshot" or len(self.seen) != lines:
            return False
        self._hit(np.arange(lines))
        return True

    def known(self, parts: Sequence[bytes]) -> list[bool]:
        """Take parts of the input that are as they were by the packed hashes of their rows.

        Returns:
            For each part whether all its rows were seen; the others were not taken and must be read.
        """
        places = self.seen.find(unpacked(b"".join(parts)))
        sizes = np.array([len(part) // PAIR.itemsize for part in parts], dtype=np.int64)
        missing = np.concatenate([[0], np.cumsum(places < 0)])
        ends = np.concatenate([[0], np.cumsum(sizes)])
        whole = missing[ends[1:]] == missing[ends[:-1]]
        self._hit(places[np.repeat(whole, sizes)])
        return [bool(one) for one in whole]

    def _hit(self, places: npt.NDArray[np.int64]) -> None:
        self.hit[places] = True
        self.rows += len(places)
        self.hits += len(places)

    def _refuse_rows(self, waiting: Waiting, refused: list[RefusedRow]) -> None:
        for row, id, reason, not_utf8 in map(msgspec.structs.astuple, refused):
            raw, where = waiting.rows[row], waiting.where(int(waiting.places[row]))
            if not_utf8:
                raise SourceError(
                    f"the source is not encoded in UTF-8: {reason}",
                    where=where,
                    kept="everything; nothing was taken from this input",
                    todo="save it as UTF-8",
                ) from None
            if raw.strip():
                self.rows += 1
                self.refused.append(Refusal(where, id, reason, raw))

    def _stage(self, waiting: Waiting) -> None:
        """Compare parsed rows with what the store has, and stage those that are new or differ."""
        parsed, places, entries = waiting.answer(), waiting.places, waiting.entries
        self._refuse_rows(waiting, parsed.refused)
        if parsed.rows is not None:
            places, entries = places[parsed.rows], entries.take(parsed.rows)
        self.rows += len(places)
        if stored := self.lookup(parsed.ids.decode().split("\n")[:-1]):
            found = [stored.get(id, (0, None)) for id in parsed.ids.decode().split("\n")[:-1]]
            differs = [old[1] != doc for old, doc in zip(found, parsed.docs.splitlines(), strict=True)]
            self._note_same(entries, found, ~np.array(differs, dtype=bool))
            if not all(differs):
                kept = np.flatnonzero(differs)
                parsed, places, entries = _only(parsed, differs), places[kept], entries.take(kept)
            self.recs.extend([rec for rec, _ in compress(found, differs)])
            self.born += bytes([doc is None for _, doc in compress(found, differs)])
        else:
            self.recs.frombytes(bytes(8 * len(places)))
            self.born += b"\x01" * len(places)
        self._note_uniques(parsed.uniques)
        hashes = b"".join(map(xxh3_64_digest, parsed.ids.splitlines()))
        self.key_hashes.frombytes(np.frombuffer(hashes, dtype=">u8").astype(np.uint64).tobytes())
        self.writer.write(parsed.ids, parsed.docs)
        self.entries.append(entries)
        self.places.append((len(places), waiting.where, places))
        self.fields |= dict.fromkeys(parsed.fields)

    def _note_same(self, entries: Entries, found: list[tuple[int, bytes | None]], same: npt.NDArray[np.bool_]) -> None:
        """Rows that only look different: their raw hash is remembered, nothing is written."""
        if same.any():
            rows = entries[same]
            rows["rec"] = [rec for rec, _ in compress(found, same)]
            self.same.append(rows)

    def _note_uniques(self, uniques: list[list[str | None]]) -> None:
        first = len(self.key_hashes)
        for noted, values in zip(self.values.values(), uniques, strict=True):
            noted.update((n, value) for n, value in enumerate(values, first) if value is not None)

    def place(self, position: int) -> str:
        """Where the row at a staged position stands in the input."""
        for count, where, kept in self.places:
            if position < count:
                return where(int(kept[position]))
            position -= count
        raise IndexError(position)

    def finish(
        self,
        read: Read,
        live: Callable[[], Recs],
        records: int,
        holders: Callable[[str, Sequence[str]], Mapping[str, tuple[int, str]]],
    ) -> Staged:
        """Settle what needs the whole input: repeated keys, uniqueness, deletes.

        Args:
            read: Staged positions -> their (id, canonical bytes).
            live: The numbers of all live records of the collection.
            records: How many they are.
            holders: Pointer, values -> value -> (rec, id) of the live record that has it.
        """
        while self.waiting:
            self._stage(self.waiting.popleft())
        self.repeated += self.hits - int(self.hit.sum())
        recs = np.array(self.recs, dtype=np.int64)
        same = _joined(self.same)
        protected = [rec for rec, doc in self.lookup(self._refused_ids()).values() if doc is not None]
        shown = self._shown(same, [0, int(recs.max(initial=0)), *protected])
        skip = self._settle_keys((recs > 0) & shown[recs], read)
        shown[protected] = True
        shown[recs] = True
        unidentified = sum(1 for refusal in self.refused if refusal.id is None)
        deletes = np.zeros(0, dtype=np.int64)
        if self.source.mode == "snapshot" and not unidentified:
            deletes = self._gone(shown, recs, records, live)
        held = {text: holders(text, list(set(values.values()))) for text, values in self.values.items() if values}
        skip |= self._refuse(clashes.of_values(self.values, held, recs, skip, set(deletes.tolist())), read)
        lost = ~self.hit if self.source.mode == "snapshot" else ~self.hit & shown[self.seen.rec]
        return Staged(
            recs=recs,
            levels=levels(np.array(self.key_hashes, dtype=np.uint64)),
            born=np.frombuffer(self.born, dtype=np.bool_),
            entries=_joined(self.entries),
            same=same,
            lost=self.seen.entries(np.flatnonzero(lost)),
            unchanged=int(self.hit.sum()) + len(same),
            deletes=deletes,
            skip=frozenset(skip),
            fields=inner_fields(self.fields),
            refused=self.refused,
            rows=self.rows,
            repeated=self.repeated,
            deletes_withheld=bool(unidentified) and self.source.mode == "snapshot",
        )

    def _shown(self, same: Entries, others: list[int]) -> npt.NDArray[np.bool_]:
        """By number, whether a record's row is as it was; long enough to be asked for `others` too."""
        top = max(int(self.seen.rec.max(initial=0)), int(same["rec"].max(initial=0)), *others)
        shown = np.zeros(top + 1, dtype=bool)
        shown[self.seen.rec[self.hit]] = True
        shown[same["rec"]] = True
        return shown

    def _gone(self, shown: npt.NDArray[np.bool_], recs: Recs, records: int, live: Callable[[], Recs]) -> Recs:
        """Live records that the snapshot has no row for. Those of rows that were seen last time and not now are
        found among the seen entries; only when they don't account for all records, every record is looked at.
        Number 0, of new ids, is no record.
        """
        back = _distinct(recs[np.frombuffer(self.born, dtype=np.bool_) & (recs > 0)], len(shown))
        seen = self.seen.rec
        gone = _distinct(seen[~self.hit & ~shown[seen]], len(shown))  # one in two spellings has two entries
        if int(shown[1:].sum()) - len(back) + len(gone) == records:
            return gone
        return np.setdiff1d(live(), np.flatnonzero(shown))

    def _refused_ids(self) -> list[str]:
        return [refusal.id for refusal in self.refused if refusal.id is not None]

    def _refuse(self, positions: Mapping[int, str], read: Read) -> set[int]:
        rows = read(positions) if positions else {}
        for position, reason in positions.items():
            id, doc = rows[position]
            self.refused.append(Refusal(self.place(position), id, reason, doc))
        return set(positions)

    def _settle_keys(self, taken: npt.NDArray[np.bool_], read: Read) -> set[int]:
        """Positions that must not be written: repetitions, and rows refused for their key."""
        refused_ids = set(self._refused_ids())
        positions = clashes.suspects(np.array(self.key_hashes, dtype=np.uint64), refused_ids, taken)
        if not positions:
            return set()
        repeats, clashing = clashes.of_keys(read(positions), refused_ids, taken, self.place)
        self.repeated += len(repeats)
        return repeats | self._refuse(clashing, read)


def _distinct(recs: Recs, end: int) -> Recs:
    """Numbers below an end, sorted, each once. `np.unique` would load all of numpy.ma."""
    among = np.zeros(end, dtype=bool)
    among[recs] = True
    return np.flatnonzero(among)


def _joined(parts: list[Entries]) -> Entries:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=ENTRY)


def _only(parsed: Parsed, keep: list[bool]) -> Parsed:
    return Parsed(
        None,
        b"".join(compress(parsed.ids.splitlines(keepends=True), keep)),
        b"".join(compress(parsed.docs.splitlines(keepends=True), keep)),
        [list(compress(values, keep)) for values in parsed.uniques],
        parsed.fields,
        [],
    )
