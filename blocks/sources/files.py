"""The files of a local source: found, looked at by their stats, and told apart by digests of their bytes."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from itertools import takewhile
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from xxhash import xxh3_128, xxh3_128_hexdigest

from autosync.errors import ConfigError, SourceError
from autosync.file_states import Stat
from autosync.settings import Source
from blocks.sources.json_rows import KEPT, Part
from blocks.sources.own_folders import OwnFolder, OwnFolders
from blocks.sources.walk import (
    Folder,
    JsonFiles,
    Listed,
    Walk,
    facts,
    glob,
    has_signs,
    look_at,
    refuse_special,
    unreadable,
)

RACY_SECONDS = 2.0

Fingerprint = dict[str, Any]


class Found(NamedTuple):
    """The files of a local source by folder, each with some; a file that is named itself has its path as its name.

    `left_out` says what was not looked at, and why.
    """

    folders: list[Listed]
    left_out: list[str]

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
        """Sizes, times and inodes of the files; `settled` says whether none is so new that a second write may hide,
        `left_out` what was not looked at.

        Args:
            at: When they were looked at, in Unix seconds.
            seed: Keys the hash of what many files show.
        """
        stats = self.folders[0].stats
        one = len(self.folders) == len(stats) == 1
        shown: Any = list(*stats) if one else xxh3_128_hexdigest(msgspec.msgpack.encode(self.folders), seed=seed)
        newest = max((max(folder.stats, key=itemgetter(1)) for folder in self.folders), key=itemgetter(1))
        return {"stat": shown, "settled": settled(newest, at)} | ({"left_out": self.left_out} if self.left_out else {})


def left_out(fingerprint: str) -> list[str]:
    """What was not looked at, by a fingerprint as text."""
    return list(msgspec.json.decode(fingerprint).get("left_out", [])) if fingerprint else []


def find_parts(source: Source, base: Path, own: Sequence[OwnFolder] = ()) -> Found:
    """The files of a local source.

    Args:
        base: Folder that a relative location starts from.
        own: The folders that AutoSync writes to, which are left out.

    Raises:
        ConfigError: It lies in the home.
        SourceError: Nothing is there, something can't be looked at or is no file, or a name is no text.
        SourceUnavailable: Something vanished between two looks.
    """
    location = Path(os.path.normpath(Path(source.location).expanduser()))
    path = Path(os.path.normpath(base / location))
    is_glob = has_signs(source.location) and not os.path.isdir(path)  # noqa: PTH112  # an error is the walk's to tell
    beside = OwnFolders(own, _begin(location, base) if is_glob else path)
    if beside.home_above:
        raise ConfigError(
            f"source {source.name!r} reads what AutoSync itself writes",
            where=str(path),
            kept=KEPT,
            todo=f"correct its `location`, or keep the home elsewhere (--home or AUTOSYNC_HOME); it is {own[0].path}",
        )
    found = _walked(_top(location, base), beside) if is_glob else _named(source, path, base, beside)
    if not found.folders:
        raise SourceError(
            "the source has no JSON files" + "".join(f"; left out: {text}" for text in found.left_out),
            where=source.location,
            kept=KEPT,
            todo=f"put .json or .jsonl files there, or correct `location` of source {source.name!r}",
        )
    for folder in found.folders:
        _refuse_names(folder)
    return found


def _begin(pattern: Path, base: Path) -> Path:
    """The folder that a glob names before its first sign."""
    return base.joinpath(*takewhile(lambda name: not has_signs(name), pattern.parts))


def _named(source: Source, path: Path, base: Path, beside: OwnFolders) -> Found:
    """The files of a location that is no glob."""
    info = look_at(str(path))
    if info is None:
        raise SourceError(
            "the source file doesn't exist",
            where=str(path),
            kept=KEPT,
            todo=f"put it there, or correct `location` of source {source.name!r}",
        )
    if stat.S_ISDIR(info.st_mode):
        return _walked(Folder(_joined(_shown(path, base)), _joined(path), JsonFiles()), beside)
    refuse_special(str(path), info)
    return Found([Listed("", [_shown(path, base)], [facts(info)])], [])


def _walked(top: Folder, beside: OwnFolders) -> Found:
    walk = Walk(top, beside)
    walk.run()
    return Found(walk.listed, sorted(walk.left_out))


def _top(path: Path, base: Path) -> Folder:
    """Where a glob begins: the configuration's folder, or the root for one that leads elsewhere from there."""
    if path.is_relative_to(base):
        path = path.relative_to(base)
    if path.is_absolute():
        return Folder(path.anchor, path.anchor, glob(path.parts[1:]))
    return Folder("", _joined(base), glob(path.parts))


def _joined(path: str | Path) -> str:
    """A folder's path with a separator behind."""
    return os.path.join(path, "")  # noqa: PTH118  # Path drops it


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


def _shown(path: Path, base: Path) -> str:
    return os.path.relpath(path, base) if path.is_relative_to(base) else str(path)


def part_of(shown: str, base: Path) -> Part:
    """A file as it is read, by the name from `find_parts`."""
    return Part(shown if os.path.isabs(shown) else f"{base}{os.sep}{shown}", shown)  # noqa: PTH117  # of thousands


def stat_of(path: str | Path) -> Stat:
    """Size, time of change and inode of a file; SourceError when it can't be looked at."""
    try:
        return facts(os.stat(path))  # noqa: PTH116  # no Path for each of thousands of files
    except OSError as error:
        raise unreadable(str(path), error) from None


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
