"""Reading local files: facts that tell whether one changed, digests of its bytes, and proof that it held still."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from xxhash import xxh3_128

from autosync.change_detection import Block
from autosync.errors import SourceError, SourceUnavailable
from autosync.file_states import Stat
from blocks.sources.json_rows import KEPT, LINES, Part
from blocks.sources.walk import facts, unreadable

RACY_SECONDS = 2.0


def part_of(name: str, base: Path) -> Part:
    """A file as it is read, by its name in a listing."""
    return Part(name if os.path.isabs(name) else f"{base}{os.sep}{name}", name)  # noqa: PTH117  # of thousands


def is_lines(part: Part, records: str) -> bool:
    """Whether a file is JSON Lines by its name.

    Args:
        records: The source's pointer to the records of a document.
    """
    return not records and str(part.path).endswith(LINES)


def stat_of(path: str | Path) -> Stat:
    """Size, time of change and inode of a file; SourceError when it can't be looked at."""
    try:
        return facts(os.stat(path))  # noqa: PTH116  # no Path for each of thousands of files
    except OSError as error:
        raise unreadable(str(path), error) from None


def settled(stat: Stat, at: float) -> bool:
    """Whether a file is not racily clean (Git's term): not so new, at a time, that a second write may hide."""
    return at - stat[1] / 1e9 > RACY_SECONDS


def digest_of(part: Part, seed: int) -> str:
    """Keyed XXH3-128 (hex) of a file's bytes."""
    return digests(part, seed, 0)[1]


def digests(part: Part, seed: int, size: int) -> tuple[str, str]:
    """Keyed XXH3-128 (hex) of a file's first bytes, "" when no line ends there, and of all its bytes."""
    total, begin = xxh3_128(seed=seed), ""
    try:
        with open(part.path, "rb") as handle:  # noqa: PTH123  # no Path for each of thousands of files
            while size > 0 and (chunk := handle.read(min(size, 1 << 20))):
                total.update(chunk)
                size -= len(chunk)
                begin = total.hexdigest() if not size and chunk.endswith(b"\n") else ""
            while chunk := handle.read(1 << 20):
                total.update(chunk)
    except OSError as error:
        raise unreadable(part.shown, error) from None
    return begin, total.hexdigest()


def text_of(part: Part, stat: Stat) -> bytes:
    """The bytes of a small file, read at once; errors as of `held_still`."""
    try:
        with open(part.path, "rb", buffering=0) as handle:  # noqa: PTH123  # of thousands
            text = handle.read()
    except OSError as error:
        raise unreadable(part.shown, error) from None
    _refuse_changed(part, stat)
    return text


def held_still(part: Part, stat: Stat | None, blocks: Iterator[Block]) -> Iterator[Block]:
    """The blocks of a file, then proof that nobody wrote it since it was looked at.

    Args:
        stat: What the look showed; None for a file that is nobody else's to write.

    Raises:
        SourceError: It can't be read.
        SourceUnavailable: It changed while it was read.
    """
    try:
        yield from blocks
    except OSError as error:
        raise unreadable(part.shown, error) from None
    except SourceError:  # what stood there while somebody wrote says nothing
        _refuse_changed(part, stat)
        raise
    _refuse_changed(part, stat)


def _refuse_changed(part: Part, stat: Stat | None) -> None:
    if stat is not None and stat_of(part.path) != stat:
        raise SourceUnavailable(
            "the file changed while it was read",
            where=part.shown,
            kept=KEPT,
            todo="nothing; it is read again. Programs that write it should write another file and rename it",
        ) from None
