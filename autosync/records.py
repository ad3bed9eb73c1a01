"""Records: parsing, canonical form, ids and hashes.

The canonical form is UTF-8 JSON with names in code point order, no spaces and every
number as it was written (`1.0` stays `1.0`, 10^400 keeps its digits), so that equal
records have equal bytes and an equal hash.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

CANONICAL_VERSION = 1
MAX_RECORD_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 200
MAX_ID_LENGTH = 1000

SPACE = b" \t\r\n"

Document = dict[str, Any]

_MISSING = object()


class BadRecord(Exception):
    """One record can't be taken; the text is the reason that people read."""


class NotUtf8(BadRecord):
    """The bytes are not UTF-8, which speaks against the whole file."""


class Record(NamedTuple):
    """A record ready to be stored: id, canonical bytes, parsed document."""

    id: str
    doc: bytes
    value: Document


# A number with a fraction or exponent is kept as its text, which encodes as it was written.
_decoder = msgspec.json.Decoder(float_hook=msgspec.Raw)
_encoder = msgspec.json.Encoder(order="sorted")
_decode, _encode = _decoder.decode, _encoder.encode


def number(value: Any) -> Any:
    """A parsed value with a non-integer number turned into a float; everything else as it is."""
    return float(bytes(value)) if isinstance(value, msgspec.Raw) else value


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise BadRecord(f"the name {json.dumps(twice, ensure_ascii=False)} stands twice in one object")
    return result


def _constant(text: str) -> Any:
    raise BadRecord(f"{text} is not a JSON number")


def _integer(text: str) -> int | msgspec.Raw:
    return msgspec.Raw(text) if len(text) > 4000 or text == "-0" else int(text)


def _parse_strictly(raw: bytes) -> Any:
    """The slow way: finds repeated names and keeps integers that a fast parser can't hold."""
    return json.loads(
        raw,
        object_pairs_hook=_unique_names,
        parse_float=msgspec.Raw,
        parse_int=_integer,
        parse_constant=_constant,
    )


def explain(raw: bytes, error: Exception) -> BadRecord:
    """Why a text is no acceptable JSON, in words for the person who edits it."""
    if isinstance(error, BadRecord):
        return error
    if isinstance(error, UnicodeDecodeError):
        return NotUtf8(f"not UTF-8: byte 0x{error.object[error.start]:02x}")
    if isinstance(error, RecursionError):
        return BadRecord(f"objects or arrays are nested deeper than {MAX_DEPTH} levels")
    try:
        text = raw.decode()
    except UnicodeDecodeError as problem:
        return NotUtf8(f"not UTF-8: byte 0x{raw[problem.start]:02x} at byte {problem.start}")
    try:
        _parse_strictly(raw)
    except json.JSONDecodeError as problem:
        return BadRecord(f"not JSON: {problem.msg} at line {problem.lineno}, column {problem.colno}")
    except RecursionError:
        return BadRecord(f"objects or arrays are nested deeper than {MAX_DEPTH} levels")
    except BadRecord as problem:
        return problem
    if ("\\u" in text and "urrogate" in str(error)) or "truncated" in str(error):
        return BadRecord("a \\ud800-\\udfff escape stands alone: half of a surrogate pair is no character")
    return BadRecord(f"not JSON: {error}")


def parse(raw: bytes) -> tuple[Document, bytes]:
    """Parse one record's text.

    Returns:
        The parsed document (numbers with a fraction or exponent as `msgspec.Raw`) and its canonical bytes.

    Raises:
        BadRecord: Not JSON, not an object, a repeated name, nested too deeply, too large, or not UTF-8 (NotUtf8).
    """
    if len(raw) > MAX_RECORD_BYTES:
        raise BadRecord(f"{len(raw):,} bytes long; a record may have {MAX_RECORD_BYTES:,}")
    try:
        value = _decode(raw)
        doc = _encode(value)
        # White space aside, re-encoding can only shorten: a dropped repeated name, an unescaped character, -0.
        # All are rare, so that only then the slow parser has a closer look.
        if len(doc) != len(raw) and len(doc.translate(None, SPACE)) != len(raw.translate(None, SPACE)):
            value = _parse_strictly(raw)
            doc = _encode(value)
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError, BadRecord) as error:
        value, doc = _rescue(raw, error)
    if len(raw) > MAX_DEPTH and raw.count(b"[") + raw.count(b"{") > MAX_DEPTH:
        _check_depth(value)
    if not isinstance(value, dict):
        raise BadRecord(f"a record must be an object, this is {_kind(value)}")
    return value, doc


def parse_many(rows: Sequence[bytes]) -> tuple[list[Document], bytes] | None:
    """Parse many records in one go.

    Returns:
        The parsed documents and their canonical forms, one a line; None when any row needs a closer look,
        which `parse` takes: it is broken, very large, deeply nested, or looks as if a name stood twice in it.
    """
    text = (b"" if rows[0].endswith(b"\n") else b"\n").join(rows)
    sizes = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    if len(text) > MAX_RECORD_BYTES or not _self_contained(rows, text, sizes):
        return None
    try:
        values: list[Document] = _decoder.decode_lines(text)
        docs = _encoder.encode_lines(values)
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError):
        return None
    if len(values) != len(rows) or _shortened(text, docs) or (sizes.max() > 2 * MAX_DEPTH and _deep(rows)):
        return None
    return values, docs


def _self_contained(rows: Sequence[bytes], text: bytes, sizes: npt.NDArray[np.int64]) -> bool:
    """Whether each row begins with { and ends with }, line end aside.

    Such rows can't continue each other's values, so that as many values as rows are one each.
    """
    if not sizes.min():
        return False
    codes = np.frombuffer(text, dtype=np.uint8)
    starts = np.arange(len(rows)) * (not rows[0].endswith(b"\n")) + np.cumsum(sizes) - sizes
    last = starts + sizes - 1
    for code in b"\n\r":
        last -= codes[last] == code
    return bool((codes[starts] == ord("{")).all() and (codes[last] == ord("}")).all())


def _shortened(text: bytes, docs: bytes) -> bool:
    """Whether encoding may have dropped a repeated name, or the sign of -0.

    White space aside, encoding can only shorten: by these, or by writing an escaped character plainly. Then quotes and
    minuses tell: a name takes quotes with it, and nothing adds a quote or a minus but the escapes \\u0022 and \\u002d.
    """
    raw, encoded = np.frombuffer(text, dtype=np.uint8), np.frombuffer(docs, dtype=np.uint8)
    if np.count_nonzero(raw > ord(" ")) == np.count_nonzero(encoded > ord(" ")):
        return False
    return b"\\u002" in text or _quotes_and_minuses(raw) != _quotes_and_minuses(encoded)


def _quotes_and_minuses(codes: npt.NDArray[np.uint8]) -> int:
    return int(np.count_nonzero((codes == ord('"')) | (codes == ord("-"))))


def _deep(rows: Sequence[bytes]) -> bool:
    return any(len(row) > 2 * MAX_DEPTH and row.count(b"[") + row.count(b"{") > MAX_DEPTH for row in rows)


def _check_depth(value: Any) -> None:
    layer, depth = [value], 0
    while layer := [
        item
        for parent in layer
        if isinstance(parent, (dict, list))
        for item in (parent.values() if isinstance(parent, dict) else parent)
    ]:
        depth += 1
        if depth > MAX_DEPTH:
            raise BadRecord(f"objects or arrays are nested deeper than {MAX_DEPTH} levels")


def _rescue(raw: bytes, error: Exception) -> tuple[Any, bytes]:
    """Integers of thousands of digits are JSON all the same; everything else is explained."""
    if isinstance(error, (ValueError, msgspec.DecodeError)) and not isinstance(error, UnicodeError):
        try:
            value = _parse_strictly(raw)
            return value, _encode(value)
        except (ValueError, RecursionError, BadRecord, UnicodeError):
            pass
    raise explain(raw, error) from None


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {list: "an array", str: "a string", bool: "a boolean", int: "a number", msgspec.Raw: "a number"}
    return kinds.get(type(value), type(value).__name__)


def canonical(value: Any) -> bytes:
    """The canonical bytes of a parsed value."""
    return _encode(value)


@dataclass(frozen=True)
class Pointer:
    """A JSON Pointer (RFC 6901); a plain name `a` is read as `/a`."""

    text: str

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """The unescaped reference tokens."""
        if not self.text:
            return ()
        text = self.text if self.text.startswith("/") else "/" + self.text
        return tuple(token.replace("~1", "/").replace("~0", "~") for token in text[1:].split("/"))

    def get(self, value: Any, default: Any = None) -> Any:
        """What the pointer names in a parsed value, or `default`."""
        for token in self.tokens:
            value = value.get(token, _MISSING) if isinstance(value, dict) else _item(value, token, _MISSING)
            if value is _MISSING:
                return default
        return value

    def column(self, values: Sequence[Any], default: Any = None) -> list[Any]:
        """What the pointer names in each of many parsed values, or `default`."""
        column = values
        for token in self.tokens:
            column = items(column, token, default)
        return list(column)


def items(values: Sequence[Any], token: str, default: Any = None) -> list[Any]:
    """What a name or an index names in each of many parsed values, or `default`."""
    try:
        return list(map(itemgetter(token), values))
    except (KeyError, TypeError):  # not all are objects that have it
        return [value.get(token, default) if type(value) is dict else _item(value, token, default) for value in values]


def _item(value: Any, token: str, default: Any) -> Any:
    inside = isinstance(value, list) and token.isdecimal() and int(token) < len(value)
    return value[int(token)] if inside else default


def _part(value: Any, pointer: str) -> str:
    if value is _MISSING:
        raise BadRecord(f"no key: nothing at {pointer}")
    if isinstance(value, str):
        text = value
    elif isinstance(value, int) and not isinstance(value, bool):
        text = str(value)
    else:
        raise BadRecord(f"the key at {pointer} must be a string or an integer, this is {_kind(value)}")
    if not text or len(text) > MAX_ID_LENGTH or not text.isprintable():
        raise BadRecord(f"the key at {pointer} must have 1 to {MAX_ID_LENGTH} printable characters")
    return text


def key_reader(pointers: Sequence[str]) -> Callable[[Document], str]:
    """A function that reads a record's id.

    One pointer gives the value as text; several are joined with `/`, with `~` and `/`
    inside a part escaped as in RFC 6901, so that different keys never give one id.

    Raises (when called):
        BadRecord: The key is missing, empty, not printable, or neither string nor integer.
    """
    paths = [(Pointer(text), text) for text in pointers]

    def read(doc: Document) -> str:
        parts = [_part(pointer.get(doc, _MISSING), text) for pointer, text in paths]
        if len(parts) == 1:
            return parts[0]
        return "/".join(part.replace("~", "~0").replace("/", "~1") for part in parts)

    return read


def keys_reader(pointers: Sequence[str]) -> Callable[[Sequence[Document]], list[str]]:
    """A function that reads the ids of many records at once; it raises BadRecord as that of `key_reader` does."""
    read = key_reader(pointers)
    pointer = Pointer(pointers[0])

    def read_all(docs: Sequence[Document]) -> list[str]:
        if len(pointers) == 1:
            column = pointer.column(docs, _MISSING)
            if set(map(type, column)) == {str} and "".join(column).isprintable():
                lengths = list(map(len, column))
                if min(lengths) > 0 and max(lengths) <= MAX_ID_LENGTH:
                    return column
        return [read(doc) for doc in docs]

    return read_all


def line_ids_reader(pointers: Sequence[str]) -> Callable[[bytes], list[str]]:
    """A function that reads the ids of canonical lines, which are known to be right: it looks at nothing but the key.

    Raises (when called):
        BadRecord: A line is not JSON, or its key is missing or no key.
    """
    key, tokens = key_reader(pointers), Pointer(pointers[0]).tokens

    def read_each(lines: bytes) -> list[str]:
        return [key(parse(line)[0]) for line in lines.splitlines()]

    if len(pointers) > 1 or len(tokens) != 1:
        return read_each
    field = ("key", str | int, msgspec.field(name=tokens[0]))
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(msgspec.defstruct("Key", [field], gc=False))

    def read(lines: bytes) -> list[str]:
        try:
            return [str(row.key) for row in decoder.decode_lines(lines)]
        except msgspec.DecodeError:
            return read_each(lines)

    return read
