"""A source of one local file: its stat says that nothing changed, else a digest; of added lines only those are read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, NamedTuple, Self

import msgspec

from autosync.change_detection import Block
from autosync.file_states import PartChanges, Stat
from blocks.sources.file_access import digests, held_still, is_lines, part_of, settled
from blocks.sources.json_rows import Part, read_lines, read_part
from blocks.sources.listing import Listing, list_file
from blocks.sources.reader import Content, Fingerprint, Known, Previous, Reader, Reading, Unchanged


class FileFingerprint(Fingerprint, frozen=True, kw_only=True, omit_defaults=True):
    """Fingerprint of one file.

    Attributes:
        stat: Its size, time of change and inode.
        settled: Whether it is not so new that a second write may hide.
        left_out: What was not looked at, when it is a folder's only file.
        lines: Of JSON Lines, how many there are when each is a record of its own.
    """

    stat: Stat
    settled: bool
    left_out: list[str] = msgspec.field(default_factory=list)
    lines: int | None = None

    def with_lines(self, lines: int) -> Self:
        """The same of JSON Lines in which each of so many lines is a record of its own."""
        return msgspec.structs.replace(self, lines=lines)


class Grown(NamedTuple):
    """The beginning of a JSON Lines file that is as it was last time: bytes, and lines."""

    size: int
    lines: int


class FileReading(Reading):
    """One file to read.

    Args:
        records: Pointer to the records of a document.
        stat: What the look showed; None for a download, which nobody else writes.
        content: What it shows, but for the number of lines.
        grown: Of JSON Lines to which lines were added, what stood there before; each line of it was taken.
    """

    def __init__(
        self, part: Part, records: str, stat: Stat | None, content: Content, grown: Grown | None = None
    ) -> None:
        self._part, self._records, self._stat, self.grown = part, records, stat, grown
        self._content, self._lines = content, 0

    def blocks(self, known: Known) -> Iterator[Block]:
        """Blocks of raw rows; of a file that has grown only the added ones, if the others are known."""
        grown = self.grown if self.grown is not None and known.known_lines(self.grown.lines) else None
        self._lines = grown.lines if grown else 0
        unread = read_lines(self._part, *grown) if grown else read_part(self._part, self._records)
        for block in held_still(self._part, self._stat, unread):
            self._lines += len(block.rows)
            yield block

    def content(self) -> Content:
        """What it showed."""
        grows = self._stat is not None and is_lines(self._part, self._records)
        return self._content._replace(lines=self._lines) if grows else self._content


class FileReader(Reader):
    """A source of one file."""

    local: ClassVar[bool] = True

    @classmethod
    def reads(cls, location: str, base: Path) -> bool:  # noqa: ARG003  # as of other kinds
        """Every location: of a file that isn't there, too."""
        return True

    def listing(self) -> Listing:
        """The file, with its facts."""
        return list_file(self.source, self.context.base, self.context.own)

    def look(self, previous: Previous) -> Unchanged | Reading:
        """A stat, and where that differs a digest."""
        listing = self.listing()
        return look_at_file(listing, time.time(), self.source.records, self.context.base, previous)


def look_at_file(listing: Listing, at: float, records: str, base: Path, previous: Previous) -> Unchanged | FileReading:
    """Look whether the only file of a listing changed.

    Args:
        at: When it was listed, in Unix seconds.
        records: Pointer to the records of a document.
        base: Folder that its name starts from.
    """
    ((name, stat),) = listing.files().items()
    before = previous.as_kind(FileFingerprint)
    lines = before.lines if before else None
    now = FileFingerprint(stat=stat, settled=settled(stat, at), left_out=listing.left_out, lines=lines)
    if before and before.settled and before.stat == stat:
        return Unchanged(before if listing.left_out == before.left_out else now)
    part = part_of(name, base)
    grown = Grown(before.stat[0], lines) if before and lines is not None and is_lines(part, records) else None
    begin, digest = digests(part, previous.seed, grown.size if grown else 0)
    if digest == previous.digest:
        return Unchanged(now)
    gone = PartChanges(drop=sorted(previous.files()))
    content = Content(digest, msgspec.structs.replace(now, lines=None), files=gone)
    return FileReading(part, records, stat, content, grown if begin == previous.digest else None)
