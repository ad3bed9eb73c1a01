"""Reading a source: file, folder or glob of JSON files, or HTTP(S) address, as blocks of raw rows.

Opening a source costs a `stat` (a conditional request over HTTP) when nothing changed, else one read
for the digest. Nothing is parsed here beyond finding where each record begins and ends.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from xxhash import xxh3_128

from autosync.errors import SourceError, SourceUnavailable
from autosync.records import BadRecord, NotUtf8, Pointer, explain
from autosync.settings import Source
from autosync.sift import Block

BLOCK_ROWS = 16_384
RACY_SECONDS = 2.0
KEPT = "the collection, its mirror and its repository are as before"
LINES = (".jsonl", ".ndjson")

Fingerprint = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """One file of an input: where it lies and how people know it."""

    path: Path
    shown: str


@dataclass(frozen=True)
class Input:
    """An input to read: its parts, what identifies this version of it, and its content's digest.

    `fingerprint` is what a cheap look compares next time; `digest` identifies the content; `stats` are the parts'
    sizes, times and inodes from before the digest was taken.
    """

    parts: tuple[Part, ...]
    fingerprint: Fingerprint
    digest: str
    records: str
    temporary: bool = False
    stats: tuple[list[int], ...] = ()

    def blocks(self) -> Iterator[Block]:
        """Blocks of raw rows, in order.

        Raises:
            SourceError: Not JSON, truncated, nothing at the pointer.
            SourceUnavailable: A file changed while it was read.
        """
        for n, part in enumerate(self.parts):
            before = self.stats[n] if self.stats else _stat(part.path)
            try:
                yield from read_part(part, self.records)
            except OSError as error:
                raise _unreadable(part.shown, error) from None
            if not self.temporary and _stat(part.path) != before:
                raise SourceUnavailable(
                    "the file changed while it was read",
                    where=part.shown,
                    kept=KEPT,
                    todo="nothing; it is read again. Programs that write it should write another file and rename it",
                )


def is_url(location: str) -> bool:
    """Whether a location is an HTTP(S) address."""
    return location.startswith(("http://", "https://"))


def find_parts(source: Source, base: Path) -> tuple[Part, ...]:
    """The files of a local source, in name order.

    Raises:
        SourceError: Nothing is there.
    """
    path = Path(os.path.normpath(base / Path(source.location).expanduser()))
    if path.is_dir():
        files = sorted(entry for entry in path.rglob("*") if entry.suffix in (".json", *LINES) and entry.is_file())
    elif any(sign in source.location for sign in "*?["):
        pattern = str(Path(source.location).expanduser())
        root = Path(path.anchor) if Path(pattern).is_absolute() else base
        relative = str(Path(pattern).relative_to(root)) if Path(pattern).is_absolute() else pattern
        files = sorted(entry for entry in root.glob(relative) if entry.is_file())
    else:
        files = [path]
        if not path.exists():
            raise SourceError(
                "the source file doesn't exist",
                where=str(path),
                kept=KEPT,
                todo=f"put it there, or correct `location` of source {source.name!r}",
            )
    if not files:
        raise SourceError(
            "the source has no JSON files",
            where=source.location,
            kept=KEPT,
            todo=f"put .json or .jsonl files there, or correct `location` of source {source.name!r}",
        )
    return tuple(Part(file, os.path.relpath(file, base) if file.is_relative_to(base) else str(file)) for file in files)


def _unreadable(where: str, error: OSError) -> SourceError:
    what = f"the source can't be read: {error.strerror or error}"
    return SourceError(what, where=where, kept=KEPT, todo="check that the file is there, and its rights")


def _stat(path: Path) -> list[int]:
    try:
        info = path.stat()
    except OSError as error:
        raise _unreadable(str(path), error) from None
    return [info.st_size, info.st_mtime_ns, info.st_ino]


def look(parts: Sequence[Part], stats: Sequence[list[int]]) -> Fingerprint:
    """Sizes, times and inodes of the parts; `settled` says whether no file is so new that a second write may hide."""
    newest = max(stat[1] for stat in stats) / 1e9
    if len(parts) == 1:
        facts: Any = stats[0]
    else:
        facts = blake2b(msgspec.json.encode([[p.shown, s] for p, s in zip(parts, stats, strict=True)])).hexdigest()
    return {"stat": facts, "settled": time.time() - newest > RACY_SECONDS}


def digest_of(parts: Sequence[Part], seed: int) -> str:
    """Keyed XXH3-128 (hex) of the parts' names and bytes."""
    total = xxh3_128(seed=seed)
    for part in parts:
        if len(parts) > 1:
            total.update(part.shown.encode() + b"\0")
        try:
            with part.path.open("rb") as handle:
                while chunk := handle.read(1 << 20):
                    total.update(chunk)
        except OSError as error:
            raise _unreadable(part.shown, error) from None
    return total.hexdigest()


def open_source(
    source: Source,
    base: Path,
    scratch: Path,
    previous: Fingerprint | None,
    digest: str,
    seed: int,
    headers: Mapping[str, str] | None = None,
) -> Input | Fingerprint:
    """Look whether a source changed.

    Args:
        base: Folder that a relative location starts from.
        scratch: Folder for a downloaded body.
        previous: The fingerprint kept from last time; None to read in any case.
        digest: The content digest kept from last time.
        seed: The key of that digest.
        headers: Request headers for an address, such as Authorization.

    Returns:
        The Input to read, or, when it is as it was, its present fingerprint.

    Raises:
        SourceError, SourceUnavailable: It can't be read.
    """
    if is_url(source.location):
        from blocks.http import fetch

        fetched = fetch(source.location, scratch, previous or {}, timeout=source.timeout, headers=headers)
        if fetched is None:
            return previous or {}
        path, fingerprint = fetched
        parts: tuple[Part, ...] = (Part(path, source.location),)
        stats: tuple[list[int], ...] = ()
    else:
        parts = find_parts(source, base)
        stats = tuple(_stat(part.path) for part in parts)
        fingerprint = look(parts, stats)
        if previous and previous.get("settled") and previous["stat"] == fingerprint["stat"]:
            return previous
    now = digest_of(parts, seed)
    if previous is not None and now == digest:
        return fingerprint
    return Input(parts, fingerprint, now, source.records, temporary=is_url(source.location), stats=stats)


def read_part(part: Part, pointer: str) -> Iterator[Block]:
    """Blocks of raw rows of one file: JSON Lines when it looks so, else the array or object at the pointer."""
    if part.path.stat().st_size == 0:
        raise SourceError("the source is an empty file", where=part.shown, kept=KEPT, todo="check what writes it")
    if not pointer and _has_lines(part.path):
        yield from _read_lines(part)
    else:
        yield from _read_document(part, pointer)


def _has_lines(path: Path) -> bool:
    """JSON Lines by its ending, or because the first line is a whole object and another line follows."""
    if path.suffix in LINES:
        return True
    with path.open("rb") as handle:
        first = handle.readline(1 << 20)
        rest = handle.readline(1 << 10)
        while rest and not rest.strip():
            rest = handle.readline(1 << 10)
    if not first.lstrip(b"\xef\xbb\xbf").startswith(b"{") or not rest.strip():
        return False
    try:
        msgspec.json.decode(first.removeprefix(b"\xef\xbb\xbf"), type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _read_lines(part: Part) -> Iterator[Block]:
    with part.path.open("rb") as handle:
        _refuse_utf16(handle.read(4), part)
        handle.seek(3 if _starts_with_mark(part.path) else 0)
        first = 1
        while rows := list(islice(handle, BLOCK_ROWS)):
            _check_end(rows[-1], part, first + len(rows) - 1)
            yield Block(rows, partial(_line, part.shown, first))
            first += len(rows)


def _starts_with_mark(path: Path) -> bool:
    with path.open("rb") as handle:
        return handle.read(3) == b"\xef\xbb\xbf"


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


def _refuse_utf16(start: bytes, part: Part) -> None:
    if start[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\x00" in start:
        raise SourceError(
            "the source is not encoded in UTF-8 (it looks like UTF-16 or UTF-32)",
            where=f"{part.shown}, byte 0",
            kept=KEPT,
            todo="save it as UTF-8",
        )


def _read_document(part: Part, pointer: str) -> Iterator[Block]:
    data = part.path.read_bytes()
    _refuse_utf16(data[:4], part)
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        found = _descend(data, pointer)
        rows: list[msgspec.Raw] = (
            [found] if bytes(memoryview(found)[:1]) == b"{" else msgspec.json.decode(found, type=list[msgspec.Raw])
        )
    except (msgspec.ValidationError, LookupError) as error:
        raise SourceError(
            f"there is no array of records at {pointer or 'the top of the document'}: {error.args[0]}",
            where=part.shown,
            kept=KEPT,
            todo="correct `records` of the source, or the document",
        ) from None
    except BadRecord as problem:
        raise SourceError(str(problem), where=part.shown, kept=KEPT, todo="correct the document") from None
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise _malformed(data, error, part) from None
    for first in range(0, len(rows), BLOCK_ROWS):
        taken = [bytes(row) for row in rows[first : first + BLOCK_ROWS]]
        yield Block(taken, partial(_element, part.shown, pointer, first))


def _element(shown: str, pointer: str, first: int, n: int) -> str:
    return f"{shown}, {pointer}/{first + n}"


def _malformed(data: bytes, error: Exception, part: Part) -> SourceError:
    text = str(error)
    lone = _lone_surrogate(data) if "truncated" in text or "urrogate" in text else None
    if lone is not None:
        what, at = "a \\ud800-\\udfff escape stands alone: half of a surrogate pair is no character", lone
    elif "truncated" in text:
        what, at = "the document is cut off (truncated JSON)", len(data)
    elif isinstance(error, RecursionError):
        what, at = "objects or arrays are nested too deeply", -1
    else:
        found = re.search(r"byte (\d+)", text)
        at = int(found[1]) if found else -1
        near = (
            re.match(rb"-?[A-Za-z]{2,10}", data[max(at - (data[at - 1 : at] == b"-"), 0) : at + 10])
            if at >= 0
            else None
        )
        word = near[0].decode() if near else ""
        what = f"{word} is not JSON" if word else f"not JSON: {text}"
    where = part.shown
    if at >= 0:
        line, start = data.count(b"\n", 0, at) + 1, data.rfind(b"\n", 0, at) + 1
        where += f", line {line}, column {at - start + 1}"
    return SourceError(what, where=where, kept=KEPT, todo="correct the document, or let its writer finish")


def _lone_surrogate(data: bytes) -> int | None:
    """Where half of a surrogate pair stands in an otherwise whole document; None when that is not the trouble."""
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return None
    pair = re.compile(rb"\\\\|\\u[dD][89abAB]..\\u[dD][c-fC-F]..|(\\u[dD][89a-fA-F]..)")
    return next((found.start() for found in pair.finditer(data) if found[1]), None)


def _descend(data: bytes, pointer: str) -> msgspec.Raw:
    """The raw text at a pointer, without parsing what lies beside it."""
    found = msgspec.json.decode(data, type=msgspec.Raw)
    for token in Pointer(pointer).tokens:
        if bytes(memoryview(found)[:1]) == b"[":
            items = msgspec.json.decode(found, type=list[msgspec.Raw])
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


def _address(raw: msgspec.Raw) -> int:
    return int(np.frombuffer(raw, dtype=np.uint8).__array_interface__["data"][0])
