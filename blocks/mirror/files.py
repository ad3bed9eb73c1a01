"""The files of a mirror: its manifest, the header of a version file, and writing a file as a whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import msgspec

from autosync.errors import MirrorDamaged
from autosync.shards import Shard, file_name, mirror_layout
from blocks.files import explained, write_whole

FORMAT = 1
Stats = dict[str, list[int]]
MANIFEST = "manifest.json"


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What the mirror of one collection holds.

    Attributes:
        since: The seq that its version files lead back to, each with its proof; None as older releases wrote it.
        sha256: SHA-256 (hex) of the manifest itself, with "" in this place; "" as older releases wrote it.
    """

    format: int
    collection: str
    key: list[str]
    seq: int
    time: float
    records: int
    root: str
    shards: list[Shard]
    since: int | None = None
    sha256: str = ""


class Header(msgspec.Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """What a version file leads back from and to.

    Attributes:
        from_: The seq that it leads back to, with the mirror's time (Unix seconds), root and records then.
        to: The seq that it leads back from, and its time.
        content: SHA-256 (hex) of the lines below it; "" as older releases wrote it.
        sha256: SHA-256 (hex) of the header itself, with "" in this place; "" as older releases wrote it.
    """

    from_: int
    to: int
    from_time: float
    time: float
    root: str
    records: int
    content: str = ""
    sha256: str = ""


Facts = TypeVar("Facts", Manifest, Header)


def seal(facts: Facts) -> Facts:
    """A manifest or a header with the proof of itself."""
    bare = msgspec.structs.replace(facts, sha256="")
    return msgspec.structs.replace(bare, sha256=sha256(msgspec.json.encode(bare)).hexdigest())


@dataclass(frozen=True)
class Target:
    """A collection to mirror: where to, and its number, name and key in the store."""

    folder: Path
    collection: int
    name: str
    key: tuple[str, ...]

    @property
    def current(self) -> Path:
        return self.folder / "current"

    def file(self, shard: Shard, records: int) -> Path:
        """The file of a shard."""
        return self.current / file_name(shard.start, mirror_layout(records))


def version_file(folder: Path, seq: int) -> Path:
    """The file of a mirror's folder that leads back from a seq."""
    return folder / "versions" / f"{seq:012d}.jsonl"


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest, None when there is none.

    Raises:
        MirrorDamaged: It is there but can't be read, or isn't what its proof says.
    """
    path = folder / MANIFEST
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MirrorDamaged(f"the mirror's manifest is damaged: {error}", where=str(path)) from None
    if (found.sha256 or found.since is not None) and found != seal(found):
        raise MirrorDamaged("the mirror's manifest is not what it was when it was written", where=str(path))
    return found


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write a manifest with its proof; errors as of `write_file`."""
    write_file(folder / MANIFEST, msgspec.json.format(msgspec.json.encode(seal(manifest)), indent=1))


def write_file(path: Path, data: bytes | Iterable[bytes], *, sync_entry: bool = True) -> list[int]:
    """Write a file of a mirror whole or not at all. Returns its size, time and inode.

    Args:
        data: All of it, or its pieces one after the other.
        sync_entry: See `replacing`.

    Raises:
        StoreError: It can't be written; what was there before stays.
    """
    with _explained(path):
        return identity(write_whole(path, data, sync_entry=sync_entry))


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Keep other programs from writing to a mirror; waits until they are done. A program that dies lets go of it.

    Raises:
        StoreError: The folder can't be made or written to.
    """
    with ExitStack() as held:
        with _explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            fcntl.flock(held.enter_context((folder / ".lock").open("a")), fcntl.LOCK_EX)
        yield


def _explained(path: Path) -> AbstractContextManager[None]:
    kept = "the database; the mirror follows with the next run"
    todo = "make room on the disk, or make the folder writable, then run again"
    return explained("the mirror can't be written", path, kept=kept, todo=todo)


def identity(stat: os.stat_result) -> list[int]:
    """Size, time and inode, by which a file is told from another."""
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]


def set_aside(folder: Path, paths: Iterable[Path]) -> None:
    """Keep damaged files of a mirror in its folder `damaged`."""
    for path in paths:
        if path.exists():
            (folder / "damaged").mkdir(exist_ok=True)
            number = len(list((folder / "damaged").iterdir()))
            shutil.move(path, folder / "damaged" / f"{number:04d}-{path.name}")
