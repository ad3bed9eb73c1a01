"""The id of a home: random, made once, kept in a file of the home, outside the database.

A database that is put back from another home's backup doesn't change it. The file knows its own inode, so a copy of
the home has none and gets an id of its own, while a home that is renamed stays itself.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

import msgspec

from autosync.errors import StoreError
from blocks.files import explained, replacing

_FORM = re.compile(r"[0-9a-f]{16}")
_KEPT = "every backup"


class _Note(msgspec.Struct, frozen=True):
    id: str
    inode: int


def read(path: Path) -> str:
    """The home's id; "" when it has none: no file, one that is no id, or one that was copied here.

    Raises:
        StoreError: The file is there and can't be read.
    """
    try:
        with path.open("rb") as file:
            note = msgspec.json.decode(file.read(), type=_Note)
            valid = _FORM.fullmatch(note.id) and note.inode == os.fstat(file.fileno()).st_ino
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError, UnicodeDecodeError):
        return ""
    except OSError as error:
        raise StoreError(
            f"the home's id can't be read: {error.strerror}",
            where=str(path),
            kept=_KEPT,
            todo="make the file readable for you",
        ) from None
    return note.id if valid else ""


def claim(path: Path) -> str:
    """The home's id, made now when it has none.

    Raises:
        StoreError: It can't be read or written.
    """
    if known := read(path):
        return known
    id, todo = secrets.token_hex(8), "make room on the disk, or make the folder writable, then run again"
    with (
        explained("the home's id can't be written", path, kept=_KEPT, todo=todo),
        replacing(path, mode=0o600) as file,
    ):
        file.write(msgspec.json.encode(_Note(id, os.fstat(file.fileno()).st_ino)))
    return read(path) or id  # another process may have been quicker
