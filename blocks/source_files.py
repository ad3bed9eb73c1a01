"""The files of a local source: found, looked at by their stats, and told apart by digests of their bytes."""

from __future__ import annotations

import os
from collections.abc import Callable
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from xxhash import xxh3_128, xxh3_128_hexdigest

from autosync.errors import SourceError
from autosync.parts import Stat
from autosync.settings import Source
from blocks.json_files import KEPT, LINES, Part

RACY_SECONDS = 2.0
JSON = (".json", *LINES)

Fingerprint = dict[str, Any]


class Listed(NamedTuple):
    """What a folder shows: how people know it, with a separator behind; names and facts of its files, unordered."""

    shown: str
    names: list[str]
    stats: list[Stat]


class Found(NamedTuple):
    """The files of a local source by folder, each with some; a file that is named itself has its path as its name."""

    folders: list[Listed]

    def parts(self) -> dict[str, Stat]:
        """The files in the order of their paths: as people know them -> size, time of change and inode."""
        return dict(
            sorted(
                (shown + name, stat)
                for shown, names, stats in self.folders
                for name, stat in zip(names, stats, strict=True)
            )
        )

    def fingerprint(self, at: float, seed: int) -> Fingerprint:
        """Sizes, times and inodes of the files; `settled` says whether none is so new that a second write may hide.

        Args:
            at: When they were looked at, in Unix seconds.
            seed: Keys the hash of what many files show.
        """
        stats = self.folders[0].stats
        one = len(self.folders) == len(stats) == 1
        facts: Any = list(*stats) if one else xxh3_128_hexdigest(msgspec.msgpack.encode(self.folders), seed=seed)
        newest = max((max(folder.stats, key=itemgetter(1)) for folder in self.folders), key=itemgetter(1))
        return {"stat": facts, "settled": settled(newest, at)}


def find_parts(source: Source, base: Path) -> Found:
    """The files of a local source.

    Raises:
        SourceError: Nothing is there, it can't be looked at, or a name is no text.
    """
    path = Path(os.path.normpath(base / Path(source.location).expanduser()))
    try:
        if path.is_dir():
            found = Found(_list(str(path), _shown(path, base)))
        elif any(sign in source.location for sign in "*?["):
            pattern = str(Path(source.location).expanduser())
            root = Path(path.anchor) if Path(pattern).is_absolute() else base
            relative = str(Path(pattern).relative_to(root)) if Path(pattern).is_absolute() else pattern
            found = _named([entry for entry in root.glob(relative) if entry.is_file()], base)
        elif path.exists():
            found = _named([path], base)
        else:
            raise SourceError(
                "the source file doesn't exist",
                where=str(path),
                kept=KEPT,
                todo=f"put it there, or correct `location` of source {source.name!r}",
            )
    except OSError as error:
        raise unreadable(error.filename or str(path), error) from None
    if not found.folders:
        raise SourceError(
            "the source has no JSON files",
            where=source.location,
            kept=KEPT,
            todo=f"put .json or .jsonl files there, or correct `location` of source {source.name!r}",
        )
    for folder in found.folders:
        _refuse_names(folder)
    return found


def _refuse_names(folder: Listed) -> None:
    """Refuse names that are no text: records couldn't say which file they come from."""
    if _is_text("".join([folder.shown, *folder.names])):
        return
    name = next(name for name in folder.names if not _is_text(folder.shown + name))
    raise SourceError(
        "the name of a file is not encoded in UTF-8",
        where=os.fsencode(folder.shown + name).decode(errors="backslashreplace"),
        kept=KEPT,
        todo="rename it",
    )


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _named(paths: list[Path], base: Path) -> Found:
    names, stats = [_shown(path, base) for path in paths], [stat_of(path) for path in paths]
    return Found([Listed("", names, stats)] if names else [])


def _shown(path: Path, base: Path) -> str:
    return os.path.relpath(path, base) if path.is_relative_to(base) else str(path)


def _list(folder: str, shown: str) -> list[Listed]:
    """The JSON files of a folder and of those below it."""
    names, inner = list[str](), list[str]()
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(JSON) and entry.is_file():
                names.append(entry.name)
            elif entry.is_dir(follow_symlinks=False):
                inner.append(entry.name)
    handle, stat = os.open(folder, os.O_RDONLY), os.stat
    try:  # a name is looked up faster from its folder than from the root
        stats = [_facts(stat(name, dir_fd=handle)) for name in names]
    except OSError as error:
        raise unreadable(f"{folder}{os.sep}{error.filename}", error) from None
    finally:
        os.close(handle)
    found = [Listed(f"{shown}{os.sep}", names, stats)] if names else []
    for name in inner:
        found += _list(f"{folder}{os.sep}{name}", f"{shown}{os.sep}{name}")
    return found


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
