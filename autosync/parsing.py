"""Parsing raw rows: each becomes an id and its canonical form, or is refused with the reason."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import msgspec

from autosync.checks import compile_checks, unique_value
from autosync.fields import Fields
from autosync.records import BadRecord, Document, NotUtf8, Pointer, key_reader, keys_reader, parse, parse_many
from autosync.settings import Source

PARSED_AT_ONCE = 2048


class RefusedRow(msgspec.Struct, array_like=True, frozen=True):
    """A row that was refused: its position, its id if it has one, why; whether its bytes are no UTF-8 at all."""

    row: int
    id: str | None
    reason: str
    not_utf8: bool


class Parsed(msgspec.Struct, array_like=True):
    """What became of some raw rows.

    Attributes:
        rows: Positions of the rows that were taken; None when all were.
        ids: Their ids, one a line.
        docs: Their canonical forms, one a line.
        uniques: For each field that must be unique, the canonical text of each row's value, None without one.
        fields: Paths of the fields that this parser has seen so far.
        refused: The other rows.
    """

    rows: list[int] | None
    ids: bytes
    docs: bytes
    uniques: list[list[str | None]]
    fields: list[tuple[str, ...]]
    refused: list[RefusedRow]


class Parser(Protocol):
    """Parses rows, perhaps somewhere else while the caller goes on."""

    def submit(self, rows: list[bytes]) -> Callable[[], Parsed]:
        """Give rows; the answer is had by a call, which waits for it where it must."""
        ...


class RowParser:
    """Parses the rows of a source here and now.

    Args:
        source: Its key and its checks.
    """

    def __init__(self, source: Source) -> None:
        self._key, self._keys = key_reader(source.keys), keys_reader(source.keys)
        self._checks = compile_checks(source.expect)
        self._uniques = [Pointer(text) for text in source.expect.unique]
        self._fields = Fields()

    def submit(self, rows: list[bytes]) -> Callable[[], Parsed]:
        """Parse rows; see Parser."""
        parsed = self.parse(rows)
        return lambda: parsed

    def parse(self, rows: Sequence[bytes]) -> Parsed:
        """Parse rows, all in one go where none needs a closer look."""
        with collector_paused():  # the documents are gone when it goes on, so that it has nothing to look at
            return self._parse_all(rows) or self._parse_each(rows)

    def _parse_all(self, rows: Sequence[bytes]) -> Parsed | None:
        try:
            if found := parse_many(rows):
                values, docs = found
                if self._checks is None or self._checks.all_pass(values):
                    return self._parsed(None, self._keys(values), values, docs, [])
        except BadRecord:
            pass  # which one is found by looking at each
        return None

    def _parse_each(self, rows: Sequence[bytes]) -> Parsed:
        taken, ids, values, docs, refused = (
            list[int](),
            list[str](),
            list[Document](),
            list[bytes](),
            list[RefusedRow](),
        )
        for n, row in enumerate(rows):
            id = None
            try:
                value, doc = parse(row)
                id = self._key(value)
                if self._checks is not None and (problems := self._checks.problems(value)):
                    raise BadRecord("; ".join(problems))
            except BadRecord as problem:
                refused.append(RefusedRow(n, id, str(problem), isinstance(problem, NotUtf8)))
                continue
            taken.append(n)
            ids.append(id)
            values.append(value)
            docs.append(doc + b"\n")
        return self._parsed(taken, ids, values, b"".join(docs), refused)

    def _parsed(
        self, taken: list[int] | None, ids: list[str], values: list[Document], docs: bytes, refused: list[RefusedRow]
    ) -> Parsed:
        self._fields.note(values, docs)
        uniques = [[unique_value(pointer, value) for value in values] for pointer in self._uniques]
        return Parsed(taken, "\n".join([*ids, ""]).encode(), docs, uniques, self._fields.paths, refused)


@contextmanager
def collector_paused() -> Iterator[None]:
    """For making many small things without cycles: looking for some all the time costs a quarter of the time."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()
