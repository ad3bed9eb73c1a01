"""The listing of a local source: which files a path, a folder or a glob names, with the facts of each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from autosync.errors import ConfigError, SourceError
from autosync.file_states import Stat
from autosync.settings import Source
from blocks.sources.json_rows import KEPT
from blocks.sources.own_folders import OwnFolder, OwnFolders
from blocks.sources.walk import Folder, JsonFiles, Listed, Walk, facts, glob, has_signs, look_at, refuse_special


class Listing(NamedTuple):
    """The files of a local source by folder, each with some; a file that is named itself has its path as its name.

    `left_out` says what was not looked at, and why.
    """

    folders: list[Listed]
    left_out: list[str]

    def is_single(self) -> bool:
        """Whether it has just one file."""
        return len(self.folders) == len(self.folders[0].names) == 1

    def files(self) -> dict[str, Stat]:
        """The files in the order of their paths: as people know them -> size, time of change and inode."""
        return dict(
            sorted(
                (shown + name, stat)
                for shown, names, stats in self.folders
                for name, stat in zip(names, stats, strict=True)
            )
        )


def list_file(source: Source, base: Path, own: Sequence[OwnFolder] = ()) -> Listing:
    """The one file of a source.

    Args:
        base: Folder that a relative location starts from.
        own: The folders that AutoSync writes to, which are left out.

    Raises:
        ConfigError: It lies in the home.
        SourceError: Nothing is there, it can't be looked at or is no file, or its name is no text.
    """
    path = path_of(source.location, base)
    _refuse_home(source, path, own, OwnFolders(own, path))
    info = look_at(str(path))
    if info is None:
        raise SourceError(
            "the source file doesn't exist",
            where=str(path),
            kept=KEPT,
            todo=f"put it there, or correct `location` of source {source.name!r}",
        )
    refuse_special(str(path), info)
    return _named(source, Listing([Listed("", [_shown(path, base)], [facts(info)])], []))


def list_folder(source: Source, base: Path, own: Sequence[OwnFolder] = ()) -> Listing:
    """The files of a folder or a glob; arguments as above.

    Raises:
        ConfigError: It lies in the home.
        SourceError: It has none, something can't be looked at or is no file, or a name is no text.
        SourceUnavailable: Something vanished between two looks.
    """
    location = Path(os.path.normpath(Path(source.location).expanduser()))
    path = path_of(source.location, base)
    is_glob = not os.path.isdir(path)  # noqa: PTH112  # an error is the walk's to tell
    beside = OwnFolders(own, _begin(location, base) if is_glob else path)
    _refuse_home(source, path, own, beside)
    top = _top(location, base) if is_glob else Folder(_joined(_shown(path, base)), _joined(path), JsonFiles())
    walk = Walk(top, beside)
    walk.run()
    return _named(source, Listing(walk.listed, sorted(walk.left_out)))


def is_folder(location: str, base: Path) -> bool:
    """Whether a location is a glob, or a folder that is there."""
    return has_signs(location) or os.path.isdir(path_of(location, base))  # noqa: PTH112  # as above


def path_of(location: str, base: Path) -> Path:
    """The absolute path that a location names."""
    return Path(os.path.normpath(base / Path(location).expanduser()))


def _refuse_home(source: Source, path: Path, own: Sequence[OwnFolder], beside: OwnFolders) -> None:
    """Refuse a location whose look would begin in the home."""
    if beside.home_above:
        raise ConfigError(
            f"source {source.name!r} reads what AutoSync itself writes",
            where=str(path),
            kept=KEPT,
            todo=f"correct its `location`, or keep the home elsewhere (--home or AUTOSYNC_HOME); it is {own[0].path}",
        )


def _named(source: Source, listing: Listing) -> Listing:
    """A listing in which there are files, each with a name that is text."""
    if not listing.folders:
        raise SourceError(
            "the source has no JSON files" + "".join(f"; left out: {text}" for text in listing.left_out),
            where=source.location,
            kept=KEPT,
            todo=f"put .json or .jsonl files there, or correct `location` of source {source.name!r}",
        )
    for folder in listing.folders:
        _refuse_names(folder)
    return listing


def _begin(pattern: Path, base: Path) -> Path:
    """The folder that a glob names before its first sign."""
    return base.joinpath(*takewhile(lambda name: not has_signs(name), pattern.parts))


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
