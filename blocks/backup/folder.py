"""A folder (a second disk, a mounted share) as the place that keeps backups."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from autosync.errors import RemoteError
from autosync.ports import Stored
from blocks.files import put_in_place, write_whole

__all__ = ["FolderTarget"]

CHUNK = 1 << 20
_NAME = re.compile(r"[^./\\\x00-\x1f][^/\\\x00-\x1f]*")
_SUM_LINE = re.compile(r"[0-9a-f]{64} ")
_SUM, _MANIFEST, _PART = ".sha256", ".manifest", ".part"


class _Manifest(msgspec.Struct, frozen=True):
    name: str
    home: str


class FolderTarget:
    """Keeps each file beside a `.sha256` file that `sha256sum --check` understands, and a `.manifest` of its home.

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

    def put(self, path: Path, name: str, home: str) -> Stored:
        """Copy a file under a name and read it back; an older one of this home is replaced in one step."""
        target = self._path(name)
        part = target.with_name(f".{name}{_PART}")
        with self._errors(name, "the older backup of that name, if there was one"):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._refuse_foreign(name, home, "replaced")
            try:
                digest = _copy(path, part)
                if _digest(part) != digest:
                    raise RemoteError(
                        f"The backup {name} came out different", where=self.address, todo="check the disk"
                    )
                # Until the new file is in place both sums are valid: a crash in between leaves no doubt.
                self._write_sum(name, digest, *(self._sums(name) if target.exists() else ()))
                self._write(name + _MANIFEST, msgspec.json.encode(_Manifest(name, home)) + b"\n")
                put_in_place(part, target)
                self._write_sum(name, digest)
            finally:
                part.unlink(missing_ok=True)
            return _stored(target.name, target.stat(), digest, home)

    def get(self, name: str, path: Path, home: str = "") -> None:
        """Copy a backup to `path`, which appears only when its checksum is right."""
        source, part = self._path(name), path.with_name(f".{path.name}{_PART}")
        with self._errors(name, f"{path} as it was"):
            if not source.is_file() or (home and not self._is_of(home, name)):
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
                put_in_place(part, path)
            finally:
                part.unlink(missing_ok=True)

    def list(self) -> Iterator[Stored]:
        """What lies there, newest first; a file without a sum isn't read."""
        with self._errors("", "everything"):
            files = [(path.name, status) for path in self._folder.glob("*") if (status := _file_status(path))]
            for name, status in sorted(files, key=lambda file: (-file[1].st_mtime_ns, file[0])):
                if _NAME.fullmatch(name) and not name.endswith((_SUM, _MANIFEST)):
                    yield _stored(name, status, self._listed_sum(name), self._home(name))

    def verify(self, name: str, home: str) -> bool:
        """Whether this home put the file, and its bytes, read now, have their checksum."""
        target = self._path(name)
        with self._errors(name, "everything"):
            try:
                return self._is_of(home, name) and _digest(target) in self._sums(name)
            except FileNotFoundError:
                return False

    def delete(self, name: str, home: str) -> None:
        """Remove what this home put; what isn't there is no error."""
        target = self._path(name)
        with self._errors(name, "the other backups"):
            self._refuse_foreign(name, home, "deleted")
            if self._is_of(home, name):
                target.unlink(missing_ok=True)
                target.with_name(name + _SUM).unlink(missing_ok=True)
                target.with_name(name + _MANIFEST).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name) or name.endswith((_SUM, _MANIFEST)):
            raise RemoteError(f"{name!r} can't be the name of a backup", todo="use a plain file name")
        return self._folder / name

    def _home(self, name: str) -> str:
        """The home that the file's manifest names; "" without a manifest of just this file."""
        try:
            manifest = msgspec.json.decode((self._folder / (name + _MANIFEST)).read_bytes(), type=_Manifest)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return ""
        return manifest.home if manifest.name == name else ""

    def _is_of(self, home: str, name: str) -> bool:
        """Whether the manifest names this home; an empty id proves nothing."""
        return bool(home) and self._home(name) == home

    def _refuse_foreign(self, name: str, home: str, verb: str) -> None:
        if os.path.lexists(self._folder / name) and not self._is_of(home, name):
            raise RemoteError(
                f"{name} is not {verb}: nothing proves that this home made it",
                where=self.address,
                kept="the file as it is",
                todo="look what it is, and move it away by hand if nobody needs it there",
            )

    def _sums(self, name: str) -> tuple[str, ...]:
        try:
            lines = (self._folder / (name + _SUM)).read_text("utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return ()
        return tuple(line[:64] for line in lines if _SUM_LINE.match(line))

    def _listed_sum(self, name: str) -> str:
        """The file's checksum, as far as its `.sha256` file tells: others' files may be unreadable, or vanish."""
        with contextlib.suppress(OSError):
            sums = self._sums(name)
            return _digest(self._folder / name) if len(sums) > 1 else "".join(sums)
        return ""

    def _write_sum(self, name: str, *digests: str) -> None:
        self._write(name + _SUM, "".join(f"{digest}  {name}\n" for digest in digests).encode())

    def _write(self, name: str, data: bytes) -> None:
        write_whole(self._folder / name, data)

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


def _file_status(path: Path) -> os.stat_result | None:
    """Size and times of a plain file; None for anything else, and for what another home just deleted."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def _stored(name: str, status: os.stat_result, digest: str, home: str) -> Stored:
    return Stored(name, status.st_size, digest, status.st_mtime, home)


def _copy(source: Path, target: Path) -> str:
    """Copy in pieces, and return the SHA-256 of what was read."""
    digest = hashlib.sha256()
    with source.open("rb") as reader, target.open("wb") as writer:
        while piece := reader.read(CHUNK):
            digest.update(piece)
            writer.write(piece)
    return digest.hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
