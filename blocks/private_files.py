"""Files that only their user can read: the home and everything in it, whatever the umask."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["keep_private", "open_to_others", "original_umask"]

PRIVATE = 0o077
_original: list[int] = []


def keep_private(home: Path) -> None:
    """Create files without rights for others from here on, and close a home that an older version left open."""
    previous = os.umask(PRIVATE)
    if not _original:
        _original.append(previous)
    is_home = (home / "autosync.db").exists() or (home / "prefect").is_dir()
    with suppress(OSError):  # somebody else's folder keeps the rights that it has
        if is_home and home.stat().st_mode & PRIVATE:
            _close(home)
            for path in home.rglob("*"):
                if not path.is_symlink():
                    with suppress(FileNotFoundError):  # a temporary file of a program that runs
                        _close(path)


def _close(path: Path) -> None:
    path.chmod(path.stat().st_mode & ~PRIVATE)


def original_umask() -> int:
    """The umask that the process was started with, for what it writes outside of its home."""
    return _original[0] if _original else -1


def open_to_others(descriptor: int) -> None:
    """Give an open file that somebody asked for the rights that it had from any other program of theirs."""
    if _original:
        os.fchmod(descriptor, 0o666 & ~_original[0])
