"""Writing a file whole or not at all, and the system's errors as ours. The one place that does either."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from autosync.errors import StoreError

__all__ = ["explained", "put_in_place", "replacing", "sync", "write_whole"]

MODE = 0o666


@contextmanager
def replacing(path: Path, *, mode: int = MODE, sync_entry: bool = True) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` when the block ends: temporary file in the same folder, fsync,
    rename, fsync of the folder. When the block fails, what stood there stays, and nothing else does.

    Args:
        mode: The rights, of which the umask takes some away.
        sync_entry: False leaves the fsync of the folder to whoever writes the file that makes this one count.

    Raises:
        OSError: It can't be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident():x}.tmp")
    temporary.unlink(missing_ok=True)  # of a process that died
    try:
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
        with os.fdopen(descriptor, "wb", buffering=1 << 20) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        if sync_entry:
            sync(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_whole(
    path: Path, data: bytes | Iterable[bytes], *, mode: int = MODE, sync_entry: bool = True
) -> os.stat_result:
    """Write a file as `replacing` does, and its folder where that is missing; its size, times and inode.

    Args:
        data: All of it, or its pieces one after the other.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, mode=mode, sync_entry=sync_entry) as file:
        file.writelines([data] if isinstance(data, bytes) else data)
        file.flush()
        stat = os.fstat(file.fileno())
    return stat


def put_in_place(fresh: Path, path: Path) -> None:
    """Let a file that something else wrote, in the same file system, take the place of another, durably."""
    sync(fresh)
    fresh.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Make a file, or a folder's entries, durable. Some file systems can't do it for folders: they are left to it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)


@contextmanager
def explained(what: str, path: Path, *, kept: str, todo: str = "") -> Iterator[None]:
    """Turn an error of the system into StoreError: what can't be done, where, what stays, what to do."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{what}: {error.strerror or 'the system refused it'}", where=str(path), kept=kept, todo=todo
        ) from None
