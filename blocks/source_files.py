"""The files of a local source: found, looked at by their stats, and told apart by digests of their bytes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

import msgspec
from xxhash import xxh3_128

from autosync.errors import SourceError
from autosync.parsing import collector_paused
from autosync.parts import Stat
from autosync.settings import Source
from blocks.json_files import KEPT, LINES, Part

RACY_SECONDS = 2.0
JSON = (".json", *LINES)

Fingerprint = dict[str, Any]


def find_parts(source: Source, base: Path) -> dict[str, Stat]:
    """The files of a local source in name order: as people know them -> size, time of change and inode.

    Raises:
        SourceError: Nothing is there, or it can't be looked at.
    """
    path = Path(os.path.normpath(base / Path(source.location).expanduser()))
    try:
        if path.is_dir():
            with collector_paused():
                found = dict(_scan(str(path), _shown(path, base)))
        elif any(sign in source.location for sign in "*?["):
            pattern = str(Path(source.location).expanduser())
            root = Path(path.anchor) if Path(pattern).is_absolute() else base
            relative = str(Path(pattern).relative_to(root)) if Path(pattern).is_absolute() else pattern
            entries = sorted(entry for entry in root.glob(relative) if entry.is_file())
            found = {_shown(entry, base): stat_of(entry) for entry in entries}
        elif path.exists():
            return {_shown(path, base): stat_of(path)}
        else:
            raise SourceError(
                "the source file doesn't exist",
                where=str(path),
                kept=KEPT,
                todo=f"put it there, or correct `location` of source {source.name!r}",
            )
    except OSError as error:
        raise unreadable(error.filename or str(path), error) from None
    if not found:
        raise SourceError(
            "the source has no JSON files",
            where=source.location,
            kept=KEPT,
            todo=f"put .json or .jsonl files there, or correct `location` of source {source.name!r}",
        )
    return found


def _shown(path: Path, base: Path) -> str:
    return os.path.relpath(path, base) if path.is_relative_to(base) else str(path)


def _scan(folder: str, shown: str) -> Iterator[tuple[str, Stat]]:
    """The JSON files below a folder, as people know them, with their facts, in the order of their paths."""
    names = list[str]()
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(JSON) and entry.is_file():
                names.append(entry.name)
            elif entry.is_dir(follow_symlinks=False):
                names.append(entry.name + os.sep)  # with it a folder stands where its files do
    names.sort()
    handle = os.open(folder, os.O_RDONLY)
    try:  # a name is looked up faster from its folder than from the root
        for name in names:
            if name.endswith(os.sep):
                yield from _scan(f"{folder}{os.sep}{name[:-1]}", f"{shown}{os.sep}{name[:-1]}")
            else:
                yield f"{shown}{os.sep}{name}", _facts(os.stat(name, dir_fd=handle))
    finally:
        os.close(handle)


def unreadable(where: str, error: OSError) -> SourceError:
    """The error for a file that the system refuses."""
    what = f"the source can't be read: {error.strerror or error}"
    return SourceError(what, where=where, kept=KEPT, todo="check that the file is there, and its rights")


def part_of(shown: str, base: Path) -> Part:
    """A file as it is read, by the name from `find_parts`."""
    return Part(shown if os.path.isabs(shown) else f"{base}{os.sep}{shown}", shown)  # noqa: PTH117  # of thousands


def stat_of(path: str | Path) -> Stat:
    """Size, time of change and inode of a file; SourceError when it can't be looked at."""
    try:
        return _facts(os.stat(path))  # noqa: PTH116  # no Path for each of thousands of files
    except OSError as error:
        raise unreadable(str(path), error) from None


_facts: Callable[[os.stat_result], Stat] = attrgetter("st_size", "st_mtime_ns", "st_ino")


def look(found: Mapping[str, Stat], at: float) -> Fingerprint:
    """Sizes, times and inodes of the parts; `settled` says whether no file is so new that a second write may hide.

    Args:
        at: When they were looked at, in Unix seconds.
    """
    stats = found.values()
    facts: Any = list(*stats) if len(found) == 1 else blake2b(msgspec.json.encode(found)).hexdigest()
    return {"stat": facts, "settled": settled(max(stats, key=itemgetter(1)), at)}


def settled(stat: Stat, at: float) -> bool:
    """Whether a file is not so new, at a time, that a second write may hide."""
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
