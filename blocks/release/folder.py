"""The folder of releases: one folder a version, and a link `current` that moves between them in one step."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autosync.errors import AutoSyncError, ConfigError, LockTimeout
from autosync.release_policy import Build
from blocks.files import sync, write_whole

__all__ = ["KEEP", "Releases", "pack", "sha256", "unpack"]

KEEP = 5
SUMS = "SHA256SUMS"
_EPOCH = (1980, 1, 1, 0, 0, 0)


def sha256(path: Path) -> str:
    """A file's SHA-256 in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pack(artifact: Path, files: list[Path]) -> None:
    """Write artifact.zip: the files and their checksums. Equal files give an equal archive."""
    sums = "".join(f"{sha256(path)}  {path.name}\n" for path in files)
    with zipfile.ZipFile(artifact, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            archive.writestr(zipfile.ZipInfo(path.name, _EPOCH), path.read_bytes(), zipfile.ZIP_DEFLATED)
        archive.writestr(zipfile.ZipInfo(SUMS, _EPOCH), sums)


def unpack(artifact: Path, build: Build, folder: Path) -> Path:
    """Take artifact.zip apart into a folder after its checksums were proven. Returns the wheel.

    Raises:
        AutoSyncError: It is not what build made, or a file in it isn't.
    """
    try:
        if sha256(artifact) != build.artifact_sha256:
            raise _damaged(artifact.name)
        with zipfile.ZipFile(artifact) as archive:
            archive.extractall(folder)
        for line in (folder / SUMS).read_text().splitlines():
            digest, _, name = line.partition("  ")
            if sha256(folder / name) != digest:
                raise _damaged(name)
    except (zipfile.BadZipFile, OSError) as error:
        raise _damaged(f"{artifact.name} ({error})") from None
    if sha256(folder / build.wheel) != build.wheel_sha256:
        raise _damaged(build.wheel)
    return folder / build.wheel


class Releases:
    """Releases in `folder/releases/VERSION`, the one in use behind the link `folder/current`.

    `folder/verified` lists those that passed their smoke check, oldest first: a release that
    `current` points to and that isn't listed is on trial, or was left behind by a deploy that died.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.current, self.releases, self._verified = folder / "current", folder / "releases", folder / "verified"

    def __repr__(self) -> str:
        return f"Releases({str(self.folder)!r})"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep a second deploy to the same folder out."""
        self.releases.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("a") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LockTimeout(
                    "another deploy is at work", where=str(self.folder), kept="the release in use", todo="wait for it"
                ) from None
            yield

    @property
    def name(self) -> str:
        """The release that `current` points to, or ""."""
        return self.current.readlink().name if self.current.is_symlink() else ""

    @property
    def verified(self) -> list[str]:
        """Releases that passed their smoke check and are still there, oldest first."""
        listed = self._verified.read_text().splitlines() if self._verified.exists() else []
        return [name for name in listed if (self.releases / name).is_dir()]

    def install(self, wheel: Path, name: str) -> Path:
        """Unpack a wheel as a release; one that is there already must have the same content."""
        place, digest = self.releases / name, sha256(wheel)
        mark = place / ".wheel-sha256"
        if mark.exists():
            if mark.read_text() != digest:
                todo = "releases never change: commit, or raise the version"
                raise ConfigError(f"release {name} exists with other content", where=str(place), todo=todo)
            return place
        with tempfile.TemporaryDirectory(dir=self.releases, prefix=".new-") as folder:
            fresh = Path(folder) / name
            try:
                with zipfile.ZipFile(wheel) as archive:
                    archive.extractall(fresh)
            except zipfile.BadZipFile:
                raise _damaged(wheel.name) from None
            (fresh / ".wheel-sha256").write_text(digest)
            fresh.rename(place)
        return place

    def switch(self, name: str) -> None:
        """Point `current` to a release in one step; it is on trial until `confirm`."""
        self._list([other for other in self.verified if other != name])
        self._point(name)

    def confirm(self, name: str) -> None:
        """The release passed its smoke check. Older ones than the newest five are deleted."""
        listed = [*(other for other in self.verified if other != name), name]
        for old in listed[:-KEEP]:
            shutil.rmtree(self.releases / old, ignore_errors=True)
        self._list(listed[-KEEP:])

    def back(self, *, asked: bool = False) -> tuple[str, str]:
        """Switch back to the release before and delete the bad one.

        Args:
            asked: A person wants it, so that even a release that passed its smoke check goes.

        Returns:
            The release that went ("" when none had to) and the one in use now ("" for none).
        """
        bad, good = self.name, self.verified
        if not bad or (bad in good and not asked):
            return "", bad
        good = [name for name in good if name != bad]
        if good:
            self._point(good[-1])
        else:
            self.current.unlink()
        self._list(good)
        shutil.rmtree(self.releases / bad, ignore_errors=True)
        return bad, self.name

    def _point(self, name: str) -> None:
        fresh = self.folder / ".current.new"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(Path("releases") / name)
        fresh.replace(self.current)
        sync(self.folder)

    def _list(self, names: list[str]) -> None:
        write_whole(self._verified, "".join(f"{name}\n" for name in names).encode())


def _damaged(what: str) -> AutoSyncError:
    return AutoSyncError(f"{what} is not what build made", kept="the release in use", todo="run build again")
