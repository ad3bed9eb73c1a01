"""Sifting an input: which rows are unchanged, new, updated, gone or refused. Decides; writes nothing itself.

Unchanged rows are recognised by a keyed hash of their raw bytes and never parsed. The others are
parsed, keyed, checked and compared with the stored hash of the record with their id.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from xxhash import xxh3_64_intdigest

from autosync.checks import compile_checks, unique_value
from autosync.errors import SourceError
from autosync.records import BadRecord, Document, NotUtf8, Pointer, digest, key_reader, parse
from autosync.seen import ENTRY, Entries, Recs, Seen, raw_digests
from autosync.settings import Source

Lookup = Callable[[Sequence[str]], Mapping[str, tuple[int, bytes | None]]]


class Block(NamedTuple):
    """A run of raw rows and how to name the n-th of them to people."""

    rows: Sequence[bytes]
    where: Callable[[int], str]


class Refusal(NamedTuple):
    """A row that was refused: where it stands, its id if it has one, why, and its raw text."""

    place: str
    id: str | None
    reason: str
    raw: bytes


class Writer(Protocol):
    """Takes the rows that will be written, in order."""

    def write(self, id: str, doc: bytes) -> None: ...


@dataclass
class Staged:
    """What sifting found out; row n of every array belongs to the n-th row given to the writer.

    Attributes:
        recs: The record's number, 0 for a new id; shape (staged,).
        levels: The keys' shard levels; shape (staged,), int8.
        born: Whether the record is new or comes back after a delete; shape (staged,), bool.
        hashes: 16 bytes a row, joined.
        entries: Raw hash of each staged row (rec not yet filled in); shape (staged,).
        known: Entries that stay as they are: unchanged rows; shape (unchanged,).
        deletes: Records that the snapshot no longer has.
        skip: Positions among the staged rows that must not be written (refused late).
    """

    recs: Recs
    levels: np.ndarray[tuple[int], np.dtype[np.int8]]
    born: np.ndarray[tuple[int], np.dtype[np.bool_]]
    hashes: bytes
    entries: Entries
    known: Entries
    deletes: Recs
    skip: frozenset[int] = frozenset()
    fields: list[tuple[str, ...]] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    rows: int = 0
    repeated: int = 0
    deletes_withheld: bool = False

    @property
    def inserted(self) -> int:
        return int(self.born.sum()) - sum(1 for n in self.skip if self.born[n])

    @property
    def updated(self) -> int:
        return len(self.recs) - len(self.skip) - self.inserted


class Sifter:
    """Takes blocks of raw rows, then says what the batch does.

    Args:
        source: Key, mode and checks.
        seen: What the source showed last time.
        lookup: Given ids, their (rec, stored hash); the hash is None for a deleted record.
        writer: Receives each row that will be written.
    """

    def __init__(self, source: Source, seen: Seen, lookup: Lookup, writer: Writer) -> None:
        self.source, self.seen, self.lookup, self.writer = source, seen, lookup, writer
        self.key = key_reader(source.keys)
        self.checks = compile_checks(source.expect)
        self.uniques = [(text, Pointer(text)) for text in source.expect.unique]
        self.hit = np.zeros(len(seen.entries), dtype=bool)
        self.refused: list[Refusal] = []
        self.recs, self.levels, self.born, self.hashes = array("q"), array("b"), bytearray(), bytearray()
        self.key_hashes = array("Q")
        self.entries: list[Entries] = []
        self.same: list[Entries] = []
        self.places: list[tuple[int, Callable[[int], str], array[int]]] = []
        self.values: dict[str, dict[int, str]] = {text: {} for text, _ in self.uniques}
        self.fields: dict[tuple[str, ...], None] = {}
        self.shapes: set[tuple[str, ...]] = set()
        self.rows = 0
        self.repeated = 0

    def block(self, block: Block) -> None:
        """Sift one block of rows.

        Raises:
            SourceError: The input's encoding is wrong, so that nothing of it can be trusted.
        """
        wanted = raw_digests(block.rows, self.seen.seed)
        places = self.seen.find(wanted)
        found = places[places >= 0]
        self.repeated += len(found) - len(np.unique(found)) + int(self.hit[np.unique(found)].sum())
        self.hit[found] = True
        self.rows += len(found)
        if len(found) < len(block.rows):
            self._parse(block, np.flatnonzero(places < 0).tolist(), wanted)

    def _parse(self, block: Block, misses: list[int], wanted: Entries) -> None:
        key, checks, good = self.key, self.checks, list[tuple[int, str, Document, bytes]]()
        for n in misses:
            raw = block.rows[n]
            id = None
            try:
                value, doc = parse(raw)
                id = key(value)
                if checks is not None and (problems := checks(value)):
                    raise BadRecord("; ".join(problems))
            except NotUtf8 as problem:
                raise SourceError(
                    f"the source is not encoded in UTF-8: {problem}",
                    where=block.where(n),
                    kept="everything; nothing was taken from this input",
                    todo="save it as UTF-8",
                ) from None
            except BadRecord as problem:
                if raw.strip():
                    self.rows += 1
                    self.refused.append(Refusal(block.where(n), id, str(problem), raw))
                continue
            good.append((n, id, value, doc))
        self.rows += len(good)
        self._stage(block, good, wanted)

    def _stage(self, block: Block, good: list[tuple[int, str, Document, bytes]], wanted: Entries) -> None:
        stored = self.lookup([id for _, id, _, _ in good])
        kept, same, same_recs = array("q"), array("q"), array("q")
        for n, id, value, doc in good:
            hashed = digest(doc)
            rec, old = stored.get(id, (0, None))
            if old == hashed:
                same.append(n)
                same_recs.append(rec)
                continue
            self.writer.write(id, doc)
            key_hash = xxh3_64_intdigest(id.encode())
            position = len(self.recs)
            kept.append(n)
            self.recs.append(rec)
            self.key_hashes.append(key_hash)
            self.levels.append((key_hash & -key_hash).bit_length() - 1 if key_hash else 64)
            self.hashes += hashed
            self.born.append(old is None)
            shape = tuple(value)
            if shape not in self.shapes or dict in map(type, value.values()):
                self._note_fields(shape, value)
            for text, pointer in self.uniques:
                if (unique := unique_value(pointer, value)) is not None:
                    self.values[text][position] = unique
        self.entries.append(wanted[np.frombuffer(kept, dtype=np.int64)] if kept else wanted[:0])
        self.places.append((len(kept), block.where, kept))
        if same:
            rows = wanted[np.frombuffer(same, dtype=np.int64)]
            rows["rec"] = np.frombuffer(same_recs, dtype=np.int64)
            self.same.append(rows)

    def _note_fields(self, shape: tuple[str, ...], value: Document) -> None:
        self.shapes.add(shape)
        for name, item in value.items():
            if isinstance(item, dict) and item:
                self.fields.update(dict.fromkeys((name, inner) for inner in item))
            else:
                self.fields.setdefault((name,))

    def place(self, position: int) -> str:
        """Where the row at a staged position stands in the input."""
        for count, where, kept in self.places:
            if position < count:
                return where(kept[position])
            position -= count
        raise IndexError(position)

    def finish(
        self,
        read: Callable[[Iterable[int]], Mapping[int, tuple[str, bytes]]],
        live: Callable[[], Recs],
        holders: Callable[[str, Sequence[str]], Mapping[str, tuple[int, str]]],
    ) -> Staged:
        """Settle what needs the whole input: repeated keys, uniqueness, deletes.

        Args:
            read: Staged positions -> their (id, canonical bytes).
            live: The numbers of all live records of the collection.
            holders: Pointer, values -> value -> (rec, id) of the live record that has it.
        """
        known = (
            np.concatenate([self.seen.entries[self.hit], *self.same]) if len(self.hit) or self.same else _no_entries()
        )
        recs = np.array(self.recs, dtype=np.int64)
        skip = self._clashing_keys(recs, known["rec"], read)
        skip |= self._clashing_values(recs, skip, holders, read)
        unidentified = sum(1 for refusal in self.refused if refusal.id is None)
        deletes = np.zeros(0, dtype=np.int64)
        if self.source.mode == "snapshot" and not unidentified and self.rows:
            protected = [rec for rec, _ in self.lookup(self._refused_ids()).values()]
            staying = np.concatenate([known["rec"], recs, np.array(protected, dtype=np.int64)])
            deletes = np.setdiff1d(live(), staying)
        return Staged(
            recs=recs,
            levels=np.array(self.levels, dtype=np.int8),
            born=np.frombuffer(self.born, dtype=np.bool_),
            hashes=bytes(self.hashes),
            entries=np.concatenate(self.entries) if self.entries else _no_entries(),
            known=known,
            deletes=deletes,
            skip=frozenset(skip),
            fields=list(self.fields),
            refused=self.refused,
            rows=self.rows,
            repeated=self.repeated,
            deletes_withheld=bool(unidentified) and self.source.mode == "snapshot",
        )

    def _refused_ids(self) -> list[str]:
        return [refusal.id for refusal in self.refused if refusal.id is not None]

    def _refuse(
        self, positions: Mapping[int, str], read: Callable[[Iterable[int]], Mapping[int, tuple[str, bytes]]]
    ) -> set[int]:
        rows = read(positions) if positions else {}
        for position, reason in positions.items():
            id, doc = rows[position]
            self.refused.append(Refusal(self.place(position), id, reason, doc))
        return set(positions)

    def _clashing_keys(
        self, recs: Recs, known: Recs, read: Callable[[Iterable[int]], Mapping[int, tuple[str, bytes]]]
    ) -> set[int]:
        """Equal rows with one key count once; different rows with one key are all refused."""
        hashes = np.array(self.key_hashes, dtype=np.uint64)
        refused_hashes = [xxh3_64_intdigest(id.encode()) for id in self._refused_ids()]
        _, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
        suspects = counts[inverse] > 1
        suspects |= np.isin(hashes, np.array(refused_hashes, dtype=np.uint64))
        taken = (recs > 0) & np.isin(recs, known)
        positions = np.flatnonzero(suspects | taken).tolist()
        if not positions:
            return set()
        refused_ids = set(self._refused_ids())
        groups: dict[str, list[int]] = {}
        rows = read(positions)
        for position in positions:
            groups.setdefault(rows[position][0], []).append(position)
        repeats, clashes = set[int](), dict[int, str]()
        for id, group in groups.items():
            docs = {rows[position][1] for position in group}
            if len(docs) > 1 or id in refused_ids or taken[group[0]]:
                places = ", ".join(self.place(position) for position in group[:5])
                clashes |= dict.fromkeys(
                    group, f"the key {id!r} stands more than once with different content: {places}"
                )
            else:
                repeats.update(group[1:])
        self.repeated += len(repeats)
        return repeats | self._refuse(clashes, read)

    def _clashing_values(
        self,
        recs: Recs,
        skip: set[int],
        holders: Callable[[str, Sequence[str]], Mapping[str, tuple[int, str]]],
        read: Callable[[Iterable[int]], Mapping[int, tuple[str, bytes]]],
    ) -> set[int]:
        clashes: dict[int, str] = {}
        rewritten = set(recs[recs > 0].tolist())
        for text, values in self.values.items():
            users: dict[str, list[int]] = {}
            for position, value in values.items():
                if position not in skip:
                    users.setdefault(value, []).append(position)
            held = holders(text, list(users)) if users else {}
            for value, positions in users.items():
                holder = held.get(value)
                if len(positions) > 1:
                    clashes |= dict.fromkeys(positions, f"{text} must be unique; {value} stands {len(positions)} times")
                elif holder is not None and holder[0] not in rewritten:
                    clashes[positions[0]] = f"{text} must be unique; {value} belongs to {holder[1]!r}"
        return self._refuse(clashes, read)


def _no_entries() -> Entries:
    return np.zeros(0, dtype=ENTRY)
