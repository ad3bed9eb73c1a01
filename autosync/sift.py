"""Sifting an input: which rows are unchanged, new, updated, gone or refused. Decides; writes nothing itself.

Unchanged rows are recognised by a keyed hash of their raw bytes and never parsed. The others are
parsed, keyed, checked and compared with the stored hash of the record with their id.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple, Protocol

import numpy as np
from xxhash import xxh3_64_intdigest

from autosync.checks import compile_checks, unique_value
from autosync.errors import SourceError
from autosync.records import BadRecord, Document, NotUtf8, Pointer, key_reader, parse
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
    """Takes the rows that will be written, in order, as lines `id TAB canonical LF`."""

    def write(self, lines: list[bytes]) -> None: ...


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
        self.rows = self.hits = self.repeated = 0

    def block(self, block: Block) -> None:
        """Sift one block of rows.

        Raises:
            SourceError: The input's encoding is wrong, so that nothing of it can be trusted.
        """
        wanted = raw_digests(block.rows, self.seen.seed)
        places = self.seen.find(wanted)
        found = places[places >= 0]
        self.hit[found] = True
        self.rows += len(found)
        self.hits += len(found)
        if len(found) < len(block.rows):
            self._parse(block, np.flatnonzero(places < 0).tolist(), wanted)

    def _parse(self, block: Block, misses: list[int], wanted: Entries) -> None:
        key, checks, rows = self.key, self.checks, block.rows
        places, ids, values, docs = array("q"), list[str](), list[Document](), list[bytes]()
        for n in misses:
            id = None
            try:
                value, doc = parse(rows[n])
                id = key(value)
                if checks is not None and (problems := checks(value)):
                    raise BadRecord("; ".join(problems))
            except BadRecord as problem:
                self._refuse_row(block, n, id, problem)
                continue
            places.append(n)
            ids.append(id)
            values.append(value)
            docs.append(doc)
        self.rows += len(places)
        self._stage(block.where, places, ids, values, docs, wanted)

    def _refuse_row(self, block: Block, n: int, id: str | None, problem: BadRecord) -> None:
        raw = block.rows[n]
        if isinstance(problem, NotUtf8):
            raise SourceError(
                f"the source is not encoded in UTF-8: {problem}",
                where=block.where(n),
                kept="everything; nothing was taken from this input",
                todo="save it as UTF-8",
            ) from None
        if raw.strip():
            self.rows += 1
            self.refused.append(Refusal(block.where(n), id, str(problem), raw))

    def _stage(
        self,
        where: Callable[[int], str],
        places: array[int],
        ids: list[str],
        values: list[Document],
        docs: list[bytes],
        wanted: Entries,
    ) -> None:
        """Compare parsed rows with the store's hashes, and stage those that are new or differ."""
        stored, hashes = self.lookup(ids), [blake2b(doc, digest_size=16).digest() for doc in docs]
        keep: Sequence[int] = range(len(ids))
        if stored:
            found = [stored.get(id, (0, None)) for id in ids]
            self._note_same(places, [n for n in keep if found[n][1] == hashes[n]], found, wanted)
            keep = [n for n in keep if found[n][1] != hashes[n]]
            self.recs.extend([found[n][0] for n in keep])
            self.born += bytes([found[n][1] is None for n in keep])
        else:
            self.recs.frombytes(bytes(8 * len(ids)))
            self.born += b"\x01" * len(ids)
        self._note_uniques(keep, values)
        keys = [ids[n].encode() for n in keep]
        self.writer.write([b"%b\t%b\n" % (id, docs[n]) for id, n in zip(keys, keep, strict=True)])
        key_hashes = [xxh3_64_intdigest(id) for id in keys]
        self.key_hashes.extend(key_hashes)
        self.levels.extend([(value & -value).bit_length() - 1 if value else 64 for value in key_hashes])
        self.hashes += b"".join([hashes[n] for n in keep])
        kept = array("q", [places[n] for n in keep])
        self.entries.append(wanted[np.frombuffer(kept, dtype=np.int64)] if kept else wanted[:0])
        self.places.append((len(kept), where, kept))
        self._note_fields([values[n] for n in keep])

    def _note_same(
        self, places: array[int], same: list[int], found: list[tuple[int, bytes | None]], wanted: Entries
    ) -> None:
        """Rows that only look different: their raw hash is remembered, nothing is written."""
        if same:
            rows = wanted[np.array([places[n] for n in same])]
            rows["rec"] = [found[n][0] for n in same]
            self.same.append(rows)

    def _note_uniques(self, keep: Sequence[int], values: list[Document]) -> None:
        first = len(self.levels)
        for text, pointer in self.uniques:
            for position, n in enumerate(keep, first):
                if (unique := unique_value(pointer, values[n])) is not None:
                    self.values[text][position] = unique

    def _note_fields(self, values: list[Document]) -> None:
        """Note the fields of documents whose names, or whose nested objects' names, were not seen before."""
        for value in values:
            shape = tuple(value)
            for item in value.values():
                if type(item) is dict:
                    shape += tuple(item)
            if shape not in self.shapes:
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
        known = np.concatenate([self.seen.entries[self.hit], *self.same])
        self.repeated += self.hits - int(self.hit.sum())
        recs = np.array(self.recs, dtype=np.int64)
        skip = self._clashing_keys(recs, known["rec"], read)
        unidentified = sum(1 for refusal in self.refused if refusal.id is None)
        deletes = np.zeros(0, dtype=np.int64)
        if self.source.mode == "snapshot" and not unidentified:
            deletes = self._gone(np.concatenate([known["rec"], recs]), records, live)
        skip |= self._clashing_values(recs, skip, deletes, holders, read)
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

    def _gone(self, staying: Recs, records: int, live: Callable[[], Recs]) -> Recs:
        """Live records that the snapshot has no row for. Those of rows that were seen last time and not now are
        found among the seen entries; only when they don't account for all records, every record is looked at.
        """
        protected = [rec for rec, hashed in self.lookup(self._refused_ids()).values() if hashed is not None]
        seen = self.seen.entries["rec"]
        stays = np.zeros(max(int(part.max(initial=0)) for part in (staying, seen, np.array([0, *protected]))) + 1, bool)
        stays[staying[staying > 0]] = True
        stays[protected] = True
        recs = np.array(self.recs, dtype=np.int64)
        back = np.unique(recs[np.frombuffer(self.born, dtype=np.bool_) & (recs > 0)])
        gone = np.unique(seen[~self.hit & ~stays[seen]])  # a record that stood there in two spellings has two entries
        if int(stays.sum()) - len(back) + len(gone) == records:
            return gone
        return np.setdiff1d(live(), np.flatnonzero(stays))

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
        deletes: Recs,
        holders: Callable[[str, Sequence[str]], Mapping[str, tuple[int, str]]],
        read: Callable[[Iterable[int]], Mapping[int, tuple[str, bytes]]],
    ) -> set[int]:
        """Refuse rows whose unique value another row or a record has. A record that is rewritten or deleted lets go
        of its values; one whose row is refused keeps them, so that each refusal may cause more.
        """
        held = {text: holders(text, list(set(values.values()))) for text, values in self.values.items() if values}
        going, clashes = set(deletes.tolist()), dict[int, str]()
        while held:
            out = skip | clashes.keys()
            taken = recs > 0
            taken[list(out)] = False
            free = going | set(recs[taken].tolist())
            more = [self._clashes(text, out, free, holder) for text, holder in held.items()]
            if not any(more):
                break
            for found in more:
                clashes |= found
        return self._refuse(clashes, read)

    def _clashes(self, text: str, out: set[int], free: set[int], held: Mapping[str, tuple[int, str]]) -> dict[int, str]:
        """Staged positions -> why their unique value can't be taken, rows that are `out` aside."""
        users: dict[str, list[int]] = {}
        for position, value in self.values[text].items():
            if position not in out:
                users.setdefault(value, []).append(position)
        clashes: dict[int, str] = {}
        for value, positions in users.items():
            holder = held.get(value)
            if len(positions) > 1:
                clashes |= dict.fromkeys(positions, f"{text} must be unique; {value} stands {len(positions)} times")
            elif holder is not None and holder[0] not in free:
                clashes[positions[0]] = f"{text} must be unique; {value} belongs to {holder[1]!r}"
        return clashes


def _no_entries() -> Entries:
    return np.zeros(0, dtype=ENTRY)
