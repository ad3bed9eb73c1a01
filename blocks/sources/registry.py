"""The registry of source kinds: which reader a location has."""

from __future__ import annotations

from pathlib import Path

from autosync.settings import Source
from blocks.sources.file import FileReader
from blocks.sources.folder import FolderReader
from blocks.sources.http import HttpReader
from blocks.sources.reader import Context, Reader

# In the order in which they are asked; the last takes every location that no other kind does.
KINDS: list[type[Reader]] = [
    HttpReader,
    FolderReader,
    FileReader,
]


def kind_of(location: str, base: Path) -> type[Reader]:
    """The kind of source that a location names.

    Args:
        base: Folder that a relative location starts from.
    """
    return next(kind for kind in KINDS if kind.reads(location, base))


def reader_of(source: Source, context: Context) -> Reader:
    """The reader of a source."""
    return kind_of(source.location, context.base)(source, context)
