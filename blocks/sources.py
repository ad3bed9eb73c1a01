"""Opening a source: file, folder or glob of JSON files, or HTTP(S) address, to be read as blocks of raw rows.

It costs a `stat` (a conditional request over HTTP) when nothing changed, else one read for the digest.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
from xxhash import xxh3_128

from autosync.errors import SourceError, SourceUnavailable
from autosync.settings import Source
from autosync.sift import Block
from blocks.json_files import KEPT, LINES, Part, read_part

RACY_SECONDS = 2.0

Fingerprint = dict[str, Any]


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
            except SourceError:  # what stood there while somebody wrote says nothing
                self._refuse_changed(part, before)
                raise
            self._refuse_changed(part, before)

    def _refuse_changed(self, part: Part, before: list[int]) -> None:
        if not self.temporary and _stat(part.path) != before:
            raise SourceUnavailable(
                "the file changed while it was read",
                where=part.shown,
                kept=KEPT,
                todo="nothing; it is read again. Programs that write it should write another file and rename it",
            ) from None


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
