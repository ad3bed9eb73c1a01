"""A walk through the folders of a source: every file that it names is seen, or the walk ends with an error.

Absent is only what a listing doesn't show. A link to nothing, a folder that may not be read, a pipe with a file's name
may hide records: each is an error. Links are followed, to folders as to files, and a folder behind them is read once.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from heapq import heappop, heappush
from operator import attrgetter
from typing import NamedTuple

from autosync.errors import SourceError, SourceUnavailable
from autosync.file_states import Stat
from blocks.sources.json_rows import KEPT, LINES
from blocks.sources.own_folders import OwnFolders

JSON = (".json", *LINES)
SIGNS = "*?["
NOTHING_BEHIND = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
EDITOR_LOCK = ".#"  # Emacs: a link to nothing beside the file that is edited
READ_ALREADY = "behind a link, and read already"
LIES_IN = "a link to a folder that it lies in"

Matches = Callable[[str], object]
facts: Callable[[os.stat_result], Stat] = attrgetter("st_size", "st_mtime_ns", "st_ino")


class Listed(NamedTuple):
    """What a folder shows: how people know it, with a separator behind; names and facts of its files, unordered."""

    shown: str
    names: list[str]
    stats: list[Stat]


class JsonFiles:
    """The names that count in a folder source: JSON files, at any depth. Its attributes are those of a Glob."""

    exact: frozenset[str] = frozenset()
    deep = True
    ends: str | tuple[str, ...] = JSON
    matches: Matches | None = None

    def below(self, _name: str) -> JsonFiles:
        """What counts in a subfolder."""
        return self


@dataclass(frozen=True)
class Glob:
    """The names that count in a folder on a glob's way: those that a segment matches that the way has come to.

    Attributes:
        segments: What stands between the separators.
        at: The positions of the segments that the folder's names are compared with.
        ends: How the names of files end.
    """

    segments: tuple[str, ...]
    at: frozenset[int]
    ends: str | tuple[str, ...] = ""

    @cached_property
    def exact(self) -> frozenset[str]:
        """The only names that can match; empty when the folder must be listed for them."""
        names = frozenset(self.segments[n] for n in self.at)
        return frozenset() if any(has_signs(name) for name in names) else names

    @cached_property
    def deep(self) -> bool:
        """Whether it matches at any depth from here."""
        return any(self.segments[n] == "**" for n in self.at)

    @cached_property
    def matches(self) -> Matches | None:
        """Whether the whole glob matches with a name as its end; None when `ends` says it all."""
        last = len(self.segments) - 1
        return _matcher(self.segments[last]) if last in self.at else _matches_nothing

    def below(self, name: str) -> Glob | None:
        """What counts in a subfolder; None when nothing does."""
        last, at = len(self.segments) - 1, set[int]()
        for n in self.at:
            if self.segments[n] == "**":
                at.add(n)
            elif n < last and _matcher(self.segments[n])(name):
                at.add(n + 1)
        return glob(self.segments, frozenset(at)) if at else None


@lru_cache(1024)
def glob(segments: tuple[str, ...], at: frozenset[int] = frozenset([0])) -> Glob:
    """The names that count at some positions of a glob; `**` may match no folder, so that what follows counts too."""
    reached = set(at)
    for n, segment in enumerate(segments[:-1]):
        if n in reached and segment == "**":
            reached.add(n + 1)
    return Glob(segments, frozenset(reached)) if reached == at else glob(segments, frozenset(reached))


@lru_cache(1024)
def _matcher(segment: str) -> Matches:
    return re.compile(fnmatch.translate(segment)).match


def _matches_nothing(_name: str) -> bool:
    return False


def has_signs(location: str) -> bool:
    """Whether a location is a glob."""
    return any(sign in location for sign in SIGNS)


class Folder(NamedTuple):
    """A folder to be looked through.

    Attributes:
        shown: How people know it, with a separator behind, as has `path`.
        names: What counts in it.
        linked: Whether a link leads to it, or to one above.
    """

    shown: str
    path: str
    names: JsonFiles | Glob
    linked: bool = False

    def has(self, name: str) -> bool:
        """Whether a file of this name counts."""
        return name.endswith(self.names.ends) and (self.names.matches is None or bool(self.names.matches(name)))

    def below(self, name: str, names: JsonFiles | Glob, *, linked: bool) -> Folder:
        """A subfolder."""
        return Folder(f"{self.shown}{name}{os.sep}", f"{self.path}{name}{os.sep}", names, linked)


class Walk:
    """The files of a folder and of those below it.

    Attributes:
        listed: The folders that have some.
        left_out: What was not looked at, and why, for people.
    """

    def __init__(self, top: Folder, own: OwnFolders) -> None:
        self._own = own
        self.listed: list[Listed] = []
        self.left_out: list[str] = []
        self._folders, self._links = [top], list[Folder]()
        self._entered = set[tuple[int, int, JsonFiles | Glob]]()

    def run(self) -> None:
        """Look through all of them; folders that stand there come before those that only a link leads to.

        Raises:
            SourceError: Something that may hold records can't be seen.
            SourceUnavailable: Something vanished between two looks.
        """
        while self._folders or self._links:
            folder = self._folders.pop() if self._folders else heappop(self._links)
            if folder.names.exact:
                self._look_up(folder)
            else:
                self._list(folder)

    def _look_up(self, folder: Folder) -> None:
        """Look for the only names that can match; the folder itself needn't be readable."""
        try:
            info = os.stat(folder.path)  # noqa: PTH116  # no Path for each of thousands of files
        except OSError as error:
            raise unreadable(folder.path, error) from None
        listed = Listed(folder.shown, [], [])
        for name in sorted(folder.names.exact) if self._is_new(folder, info) else ():
            self._look_at(folder, name, listed, exists=False)
        self._add(listed)

    def _list(self, folder: Folder) -> None:
        try:
            handle = os.open(folder.path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise unreadable(folder.path, error) from None
        try:
            if self._is_new(folder, os.fstat(handle)):
                self._list_open(folder, handle)
        except OSError as error:
            raise unreadable(folder.path, error) from None
        finally:
            os.close(handle)

    def _list_open(self, folder: Folder, handle: int) -> None:
        names, inner, others = list[str](), list[str](), list[str]()
        ends, matches, look = folder.names.ends, folder.names.matches, os.stat
        with os.scandir(handle) as entries:
            for entry in entries:
                counts = entry.name.endswith(ends) and (matches is None or matches(entry.name))
                if counts and entry.is_file(follow_symlinks=False):
                    names.append(entry.name)
                elif entry.is_dir(follow_symlinks=False):
                    inner.append(entry.name)
                elif counts or entry.is_symlink():
                    others.append(entry.name)
        try:  # a name is looked up faster from its folder than from the root
            listed = Listed(folder.shown, names, [facts(look(name, dir_fd=handle)) for name in names])
        except OSError as error:
            raise unreadable(f"{folder.path}{error.filename}", error) from None
        for name in others:
            self._look_at(folder, name, listed)
        self._add(listed)
        for name in reversed(inner):
            if below := folder.names.below(name):
                self._folders.append(folder.below(name, below, linked=folder.linked))

    def _add(self, listed: Listed) -> None:
        if listed.names:
            self.listed.append(listed)

    def _is_new(self, folder: Folder, info: os.stat_result) -> bool:
        """Whether a folder is to be read: not AutoSync's own; else always where it stands, once behind links."""
        if what := self._own.of(info):
            self._leave_out(folder.shown[:-1], what)
            return False
        key = (info.st_dev, info.st_ino, folder.names)
        if folder.linked and key in self._entered:
            self._leave_out(folder.shown[:-1], READ_ALREADY)
            return False
        self._entered.add(key)
        return True

    def _leave_out(self, shown: str, why: str) -> None:
        self.left_out.append(f"{_text(shown)} ({why})")

    def _look_at(self, folder: Folder, name: str, listed: Listed, *, exists: bool = True) -> None:
        """Look at one name that is a link, no plain file, or known from the glob alone."""
        path, names = f"{folder.path}{name}", folder.names.below(name)
        if names is None and not folder.has(name):
            return
        try:
            info = os.stat(path)  # noqa: PTH116  # as above
        except OSError as error:
            if _is_nothing(path, error, exists=exists):
                return
            raise unreadable(path, error) from None
        if stat.S_ISDIR(info.st_mode):
            if names is not None:
                self._enter(folder, name, names)
        elif folder.has(name):
            refuse_special(path, info)
            if what := self._own.around(path) if os.path.islink(path) else None:  # noqa: PTH114  # as above
                self._leave_out(f"{folder.shown}{name}", what)
            else:
                listed.names.append(name)
                listed.stats.append(facts(info))

    def _enter(self, folder: Folder, name: str, names: JsonFiles | Glob) -> None:
        """Go on with a subfolder, which may be a link."""
        path = f"{folder.path}{name}"
        if not os.path.islink(path):  # noqa: PTH114  # as above
            self._folders.append(folder.below(name, names, linked=folder.linked))
        elif folder.names.deep and is_within(os.path.realpath(folder.path), os.path.realpath(path)):
            self._leave_out(f"{folder.shown}{name}", LIES_IN)
        elif what := self._own.around(path):
            self._leave_out(f"{folder.shown}{name}", what)
        else:
            heappush(self._links, folder.below(name, names, linked=True))


def _is_nothing(path: str, error: OSError, *, exists: bool) -> bool:
    """Whether what can't be looked at is known to be no content.

    Args:
        exists: Whether a listing has shown it.

    Raises:
        SourceError: A link leads to nothing.
    """
    if error.errno not in NOTHING_BEHIND:
        return False
    try:
        target = os.readlink(path)  # noqa: PTH115  # as above
    except OSError:  # no link: it isn't there
        return not exists
    if os.path.basename(path).startswith(EDITOR_LOCK):  # noqa: PTH119  # as above
        return True
    raise SourceError(
        f"the source can't be seen whole: a link leads to nothing ({_text(target)})",
        where=_text(path),
        kept=KEPT,
        todo="bring back what it leads to, or remove the link",
    )


def is_within(path: str, folder: str) -> bool:
    """Whether a path is a folder or lies in it."""
    return path == folder or path.startswith(os.path.join(folder, ""))  # noqa: PTH118  # as above


def look_at(path: str) -> os.stat_result | None:
    """What a path leads to; None when nothing is there; SourceError when that can't be told."""
    try:
        return os.stat(path)  # noqa: PTH116  # as above
    except OSError as error:
        if _is_nothing(path, error, exists=False):
            return None
        raise unreadable(path, error) from None
    except ValueError:  # a name that no file can have
        return None


def refuse_special(path: str, info: os.stat_result) -> None:
    """Refuse what has a file's place and is none: to open it could wait for ever."""
    if stat.S_ISREG(info.st_mode):
        return
    kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
    raise SourceError(
        f"the source can't be seen whole: this is {kinds.get(stat.S_IFMT(info.st_mode), 'a device')}, not a file",
        where=_text(path),
        kept=KEPT,
        todo="put the file there, or remove it",
    )


def unreadable(where: str, error: OSError) -> SourceError:
    """The error for what the system refuses; a retry can help when it vanished between two looks."""
    what, where = f"the source can't be read: {error.strerror or error}", _text(where.rstrip(os.sep) or os.sep)
    if error.errno in VANISHED:
        return SourceUnavailable(what, where=where, kept=KEPT, todo="nothing; it is looked for again")
    return SourceError(what, where=where, kept=KEPT, todo="check that it is there, and its rights")


def _text(path: str) -> str:
    """A path that people can be shown, whatever its bytes are."""
    return os.fsencode(path).decode(errors="backslashreplace")
