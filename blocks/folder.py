"""A folder (a second disk, a mounted share) as the place that keeps backups."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from autosync.errors import RemoteError
from autosync.ports import Stored

__all__ = ["FolderTarget"]

CHUNK = 1 << 20
_NAME = re.compile(r"[^./\\\x00-\x1f][^/\\\x00-\x1f]*")
_SUM, _PART = ".sha256", ".part"


class FolderTarget:
    """Keeps each file beside a `.sha256` file that `sha256sum --check` understands.

    Args:
        folder: Where to keep the files; it is made when first needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()

    def __repr__(self) -> str:
        return f"FolderTarget({str(self._folder)!r})"

    @property
    def address(self) -> str:
        """The folder's path."""
        return str(self._folder)

    def put(self, path: Path, name: str) -> Stored:
        """Copy a file under a name and read it back; an older one is replaced in one step."""
        target = self._path(name)
        part = target.with_name(f".{name}{_PART}")
        with self._errors(name, "the older backup of that name, if there was one"):
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                digest = _copy(path, part)
                if _digest(part) != digest:
                    raise RemoteError(
                        f"The backup {name} came out different", where=self.address, todo="check the disk"
                    )
                # Until the new file is in place both sums are valid: a crash in between leaves no doubt.
                self._write_sum(name, digest, *(self._sums(name) if target.exists() else ()))
                part.replace(target)
                self._write_sum(name, digest)
            finally:
                part.unlink(missing_ok=True)
            return self._stored(target, digest)

    def get(self, name: str, path: Path) -> None:
        """Copy a backup to `path`, which appears only when its checksum is right."""
        source, part = self._path(name), path.with_name(f".{path.name}{_PART}")
        with self._errors(name, f"{path} as it was"):
            if not source.is_file():
                raise RemoteError(f"There is no backup {name}", where=self.address, todo="choose one from the list")
            try:
                digest = _copy(source, part)
                if digest not in self._sums(name):
                    raise RemoteError(
                        f"The backup {name} is damaged: its checksum is wrong",
                        where=self.address,
                        kept=f"{path} as it was",
                        todo="restore an older backup and check the disk",
                    )
                part.replace(path)
                _sync(path.parent)
            finally:
                part.unlink(missing_ok=True)

    def list(self) -> Iterator[Stored]:
        """What is kept, newest first."""
        with self._errors("", "everything"):
            found = [p for p in self._folder.glob("*") if p.is_file() and _NAME.fullmatch(p.name) and p.suffix != _SUM]
            for path in sorted(found, key=lambda p: (-p.stat().st_mtime_ns, p.name)):
                sums = self._sums(path.name)
                yield self._stored(path, sums[0] if len(sums) == 1 else _digest(path))

    def delete(self, name: str) -> None:
        """Remove a backup; one that isn't there is no error."""
        target = self._path(name)
        with self._errors(name, "the other backups"):
            target.unlink(missing_ok=True)
            target.with_name(name + _SUM).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name) or name.endswith(_SUM):
            raise RemoteError(f"{name!r} can't be the name of a backup", todo="use a plain file name")
        return self._folder / name

    def _sums(self, name: str) -> tuple[str, ...]:
        try:
            lines = (self._folder / (name + _SUM)).read_text("utf-8").splitlines()
        except FileNotFoundError:
            return ()
        return tuple(line.split(" ", 1)[0] for line in lines if line)

    def _write_sum(self, name: str, *digests: str) -> None:
        part = self._folder / f".{name}{_SUM}{_PART}"
        with part.open("w", encoding="utf-8") as file:
            file.writelines(f"{digest}  {name}\n" for digest in digests)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._folder / (name + _SUM))
        _sync(self._folder)

    def _stored(self, path: Path, digest: str) -> Stored:
        status = path.stat()
        return Stored(path.name, status.st_size, digest, status.st_mtime)

    @contextlib.contextmanager
    def _errors(self, name: str, kept: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise RemoteError(
                "The disk is full" if full else f"{name or 'The folder'} can't be kept or read: {error.strerror}",
                where=str(error.filename or self.address),
                kept=kept,
                todo="free some space, then run again" if full else "check that the folder is there and may be written",
            ) from None


def _copy(source: Path, target: Path) -> str:
    """Copy in pieces to the disk itself, and return the SHA-256 of what was read."""
    digest = hashlib.sha256()
    with source.open("rb") as reader, target.open("wb") as writer:
        while piece := reader.read(CHUNK):
            digest.update(piece)
            writer.write(piece)
        writer.flush()
        os.fsync(writer.fileno())
    return digest.hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    """Make the folder's entries durable, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
