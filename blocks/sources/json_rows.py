"""Reading one JSON file as blocks of raw rows: JSON Lines, or the array or object at a pointer of a document.

Nothing is parsed beyond finding where each record begins and ends. Lines, and the elements of a large array,
are read in windows of some megabytes, whatever the file's size.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from autosync.change_detection import Block
from autosync.errors import SourceError
from autosync.records import BadRecord, NotUtf8, Pointer, explain

WINDOW = 2 << 20
TAIL = 16 << 10
BUFFER = 1 << 20
ROWS_AT_ONCE = 16_384
HEADS_TRIED = 8
KEPT = "the collection, its mirror and its repository are as before"
LINES = (".jsonl", ".ndjson")
MARK = b"\xef\xbb\xbf"
COMMA = ord(",")

_decode_rows = msgspec.json.Decoder(list[msgspec.Raw]).decode
_IS_SIGN = np.isin(np.arange(256), list(b'"[]{},'))
_STEP = np.array([{"[": 1, "{": 1, "]": -1, "}": -1}.get(chr(code), 0) for code in range(256)], dtype=np.int8)


class Part(NamedTuple):
    """One file of an input: where it lies and how people know it."""

    path: str | Path
    shown: str


def read_part(part: Part, pointer: str, window: int = WINDOW) -> Iterator[Block]:
    """Blocks of raw rows of one file: JSON Lines when it looks so, else the array or object at the pointer.

    Args:
        window: How many bytes are read at a time.

    Raises:
        SourceError: Not JSON, truncated, nothing at the pointer. Blocks that were given before don't count then.
    """
    with open(part.path, "rb", buffering=BUFFER) as handle:  # noqa: PTH123  # no Path for each of thousands of files
        yield from read_open(handle, part, pointer, window)


def read_open(handle: BinaryIO, part: Part, pointer: str, window: int = WINDOW) -> Iterator[Block]:
    """The same of an open file that belongs to a part, from its begin on."""
    text = handle.read(window)
    if not text:
        raise SourceError("the source is an empty file", where=part.shown, kept=KEPT, todo="check what writes it")
    _refuse_utf16(text[:4], part)
    begin = len(MARK) if text.startswith(MARK) else 0
    more, text = len(text) == window, text[begin:]
    if not pointer and (str(part.path).endswith(LINES) or _looks_like_lines(text)):
        handle.seek(begin)
        yield from _lines(handle, part, window)
    else:
        yield from _Document(handle, part, pointer, begin, window).blocks(text, more)


def read_lines(part: Part, after: int, lines: int, window: int = WINDOW) -> Iterator[Block]:
    """Blocks of raw rows of a JSON Lines file from a byte on, before which it has so many lines; errors as above."""
    with open(part.path, "rb", buffering=BUFFER) as handle:  # noqa: PTH123  # as above
        handle.seek(after)
        yield from _lines(handle, part, window, lines + 1)


def _looks_like_lines(text: bytes) -> bool:
    """Whether the first line is a whole object and another line follows."""
    if not text.startswith(b"{"):
        return False
    first, _, rest = text.partition(b"\n")
    if not rest.strip():
        return False
    try:
        msgspec.json.decode(first, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _refuse_utf16(start: bytes, part: Part) -> None:
    if start[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\x00" in start:
        raise SourceError(
            "the source is not encoded in UTF-8 (it looks like UTF-16 or UTF-32)",
            where=f"{part.shown}, byte 0",
            kept=KEPT,
            todo="save it as UTF-8",
        )


def _lines(handle: BinaryIO, part: Part, window: int, first: int = 1) -> Iterator[Block]:
    while rows := handle.readlines(window):
        _check_end(rows[-1], part, first + len(rows) - 1)
        yield Block(rows, partial(_line, part.shown, first))
        first += len(rows)


def _check_end(line: bytes, part: Part, number: int) -> None:
    """A last line that has no end and is no JSON was cut off: the whole input can't be trusted."""
    if line.endswith(b"\n") or not line.strip():
        return
    try:
        msgspec.json.decode(line, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError) as error:
        problem = explain(line, error)
        if isinstance(problem, NotUtf8):
            return
        raise SourceError(
            f"the last line is cut off: {problem}",
            where=f"{part.shown}, line {number}",
            kept=KEPT,
            todo="let its writer finish, or write another file and rename it",
        ) from None


def _line(shown: str, first: int, n: int) -> str:
    return f"{shown}, line {first + n}"


def _element(shown: str, pointer: str, first: int, n: int) -> str:
    return f"{shown}, {pointer}/{first + n}"


@dataclass(frozen=True)
class _Document:
    """A JSON document while it is read; `begin` is where it begins in its file, behind a byte order mark."""

    handle: BinaryIO
    part: Part
    pointer: str
    begin: int
    window: int

    def blocks(self, text: bytes, more: bool) -> Iterator[Block]:
        """The records in order: window by window where an array is large, else all at once.

        Args:
            text: What was read of the document so far.
            more: Whether the file goes on behind it.
        """
        start = _array_start(text, self.pointer) if more else None
        runs = self._whole(text + self.handle.read()) if start is None else self._windows(text, start)
        first = 0
        for rows in runs:
            yield Block(rows, partial(_element, self.part.shown, self.pointer, first))
            first += len(rows)

    def _whole(self, text: bytes) -> Iterator[list[msgspec.Raw]]:
        with self._explained(text, 0):
            if not self.pointer and text.startswith(b"["):
                rows = _decode_rows(text)
            else:
                found = _descend(text, self.pointer)
                rows = [found] if bytes(memoryview(found)[:1]) == b"{" else _decode_rows(found)
        for first in range(0, len(rows), ROWS_AT_ONCE):
            yield rows[first : first + ROWS_AT_ONCE]

    def _windows(self, text: bytes, start: int) -> Iterator[list[msgspec.Raw]]:
        """Runs of elements of the array that opens at `start`.

        After a run, `[0` stands for the elements up to there: what follows is as valid or not as in the document.
        """
        head, text, at = text[: start + 1], text[start:], start
        skip, more, cut = 0, True, 0
        while text[cut : cut + 1] != b"]":
            with self._explained(text, at):
                rows, cut = _take(text, more)
            if len(rows) > skip:
                yield rows[skip:]
            if text[cut : cut + 1] != b"]":
                if cut:
                    text, at, skip = b"[0" + text[cut:], at + cut - 2, 1
                wanted = max(self.window, len(text))
                data = self.handle.read(wanted)
                text, more, cut = text + data, len(data) == wanted, 0
        around = head + text[cut:] + self.handle.read()
        with self._explained(around, 0, len(head), at + cut - len(head)):
            _descend(around, self.pointer)

    @contextmanager
    def _explained(self, text: bytes, at: int, gap: int = 0, missing: int = 0) -> Iterator[None]:
        """Say what is wrong with a text that stands at a place of the document, and has bytes left out at a gap."""
        try:
            yield
        except (msgspec.ValidationError, LookupError) as error:
            raise SourceError(
                f"there is no array of records at {self.pointer or 'the top of the document'}: {error.args[0]}",
                where=self.part.shown,
                kept=KEPT,
                todo="correct `records` of the source, or the document",
            ) from None
        except BadRecord as problem:
            raise SourceError(str(problem), where=self.part.shown, kept=KEPT, todo="correct the document") from None
        except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
            what, place = _malformed(text, error)
            where = self.part.shown
            if place >= 0:
                line, column = self._line_and_column(at + place + (missing if place >= gap else 0))
                where += f", line {line}, column {column}"
            todo = "correct the document, or let its writer finish"
            raise SourceError(what, where=where, kept=KEPT, todo=todo) from None

    def _line_and_column(self, place: int) -> tuple[int, int]:
        """Of a place in the document; both count from 1."""
        self.handle.seek(self.begin)
        line, column = 1, 1
        while place > 0 and (data := self.handle.read(min(place, WINDOW))):
            place -= len(data)
            line += data.count(b"\n")
            newline = data.rfind(b"\n")
            column = len(data) - newline if newline >= 0 else column + len(data)
        return line, column


def _malformed(text: bytes, error: Exception) -> tuple[str, int]:
    """What is wrong with a text, and at which byte; -1 when that isn't known."""
    said = str(error)
    if isinstance(error, RecursionError):
        return "objects or arrays are nested too deeply", -1
    lone = _lone_surrogate(text) if "truncated" in said or "urrogate" in said else None
    if lone is not None:
        return "a \\ud800-\\udfff escape stands alone: half of a surrogate pair is no character", lone
    if "truncated" in said:
        return "the document is cut off (truncated JSON)", len(text)
    said, _, byte = said.removesuffix(")").partition(" (byte ")
    at = int(byte) if byte else -1
    first = max(at - (text[at - 1 : at] == b"-"), 0)
    word = re.match(rb"-?[A-Za-z]{2,10}", text[first : at + 10]) if at >= 0 else None
    return f"{word[0].decode()} is not JSON" if word else f"not JSON: {said}", at


def _lone_surrogate(text: bytes) -> int | None:
    """Where half of a surrogate pair stands; None when there is none, or other trouble before it."""
    pair = re.compile(rb"\\\\|\\u[dD][89abAB]..\\u[dD][c-fC-F]..|(\\u[dD][89a-fA-F]..)")
    lone = next((found.start() for found in pair.finditer(text) if found[1]), None)
    if lone is not None:
        try:
            json.loads(text)
        except json.JSONDecodeError as error:
            return lone if error.pos > len(text[:lone].decode()) else None
        except (ValueError, RecursionError):
            return None
    return lone


def _array_start(text: bytes, pointer: str) -> int | None:
    """Where the array at a pointer opens, if that can be told from the document's first window."""
    names = Pointer(pointer).tokens
    before = re.escape(json.dumps(names[-1], ensure_ascii=False).encode()) + rb"\s*:\s*" if names else rb"\A\s*"
    for found in islice(re.finditer(before + rb"\[", text), HEADS_TRIED):
        guess = text[: found.end()] + b"]"
        whole = guess + b"}" * len(names)
        try:
            array = _descend(whole, pointer)
        except (msgspec.DecodeError, LookupError, BadRecord, RecursionError, UnicodeError):
            continue
        if _address(array) + len(memoryview(array)) == _address(whole) + len(guess):
            return found.end() - 1
    return None


def _take(text: bytes, more: bool) -> tuple[list[msgspec.Raw], int]:
    """The elements of an array that end within a text that begins with it, and where: at a comma or a bracket.

    Args:
        more: Whether the file goes on behind the text; then there may be no such element, and the place is 0.

    Raises:
        DecodeError, RecursionError: The array is malformed or cut off.
    """
    for cut in _likely_cuts(text) if more else ():
        try:
            return _upto_comma(text, cut), cut
        except (msgspec.DecodeError, RecursionError):
            pass  # the comma stood elsewhere, or the error is found again below
    found = _sure_cut(text)
    if found is None:
        return ([], 0) if more else (_decode_rows(text), len(text))
    return _upto_comma(text, found) if text[found] == COMMA else _decode_rows(text[: found + 1]), found


def _upto_comma(text: bytes, comma: int) -> list[msgspec.Raw]:
    """The elements before a comma, which is valid only between elements: another stands for those behind it."""
    return _decode_rows(b"".join((memoryview(text)[: comma + 1], b"0]")))[:-1]


def _likely_cuts(text: bytes) -> Iterator[int]:
    """Where the last element may end, from the tail alone: it may be in a string or not where it begins."""
    first = max(len(text) - TAIL, 0)
    newline = text.find(b"\n", first)  # can't be in a string
    if newline >= 0:
        first = newline
    for in_string in (False, True) if newline < 0 else (False,):
        at, signs, depth = _structure(text[first:], in_string)
        commas = at[(signs == COMMA) & (depth == depth.min(initial=0))]
        if len(commas):
            yield first + int(commas[-1])


def _sure_cut(text: bytes) -> int | None:
    """Where the array that a text begins with closes, else its last comma, else None."""
    at, signs, depth = _structure(text)
    closed, commas = at[depth == 0], at[(signs == COMMA) & (depth == 1)]
    if len(closed):
        return int(closed[0])
    return int(commas[-1]) if len(commas) and commas[-1] > len("[0") else None


def _structure(
    text: bytes, in_string: bool = False
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Where commas and brackets stand outside of strings, what they are, and how deep it is behind each."""
    if b"\\" in text:
        text = text.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    codes = np.frombuffer(text, dtype=np.uint8)
    at = np.flatnonzero(_IS_SIGN[codes])
    quotes = codes[at] == ord('"')
    outside = ~quotes & (np.logical_xor.accumulate(quotes) == in_string)
    at = at[outside]
    return at, codes[at], np.cumsum(_STEP[codes[at]], dtype=np.int64)


def _descend(data: bytes, pointer: str) -> msgspec.Raw:
    """The raw text at a pointer, without parsing what lies beside it."""
    found = msgspec.json.decode(data, type=msgspec.Raw)
    for token in Pointer(pointer).tokens:
        if bytes(memoryview(found)[:1]) == b"[":
            items = _decode_rows(found)
            if not token.isdecimal() or int(token) >= len(items):
                raise LookupError(f"nothing at {token!r}")
            found = items[int(token)]
            continue
        members = msgspec.json.decode(found, type=dict[str, msgspec.Raw])
        _refuse_repeated_names(found, members)
        if token not in members:
            raise LookupError(f"nothing at {token!r}; there are: {', '.join(list(members)[:10])}")
        found = members[token]
    return found


def _refuse_repeated_names(whole: msgspec.Raw, members: dict[str, msgspec.Raw]) -> None:
    """Blank out the known values and look at the names that remain: a repeated name must not hide records."""
    base = _address(whole)
    skeleton, at = bytearray(), 0
    view = memoryview(whole)
    for start, size in sorted((_address(raw) - base, len(memoryview(raw))) for raw in members.values()):
        skeleton += view[at:start]
        skeleton += b"0"
        at = start + size
    skeleton += view[at:]

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise BadRecord(f"the name {twice!r} stands twice in the document")
        return dict(pairs)

    json.loads(skeleton, object_pairs_hook=unique)


def _address(raw: msgspec.Raw | bytes) -> int:
    return int(np.frombuffer(raw, dtype=np.uint8).__array_interface__["data"][0])
