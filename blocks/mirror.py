"""The mirror: a collection as canonical JSON Lines in few files, with a manifest and the versions before.

    data_backup/COLLECTION/manifest.json       seq, root, records, every file with its SHA-256
    data_backup/COLLECTION/current/*.jsonl     the records now, one a line, in key order
    data_backup/COLLECTION/versions/SEQ.jsonl  what the update to SEQ replaced: enough to go back
    data_backup/COLLECTION/damaged/            files that were not what the manifest says, kept aside

The manifest is replaced last: until then the mirror is the old version with files in transition,
which the next update renders again from the store.
"""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from autosync.errors import MirrorDamaged, StoreError
from autosync.shards import Layout, Shard, body, file_name, find, mirror_layout, root, shard_of
from blocks.store import files
from blocks.store.history import changed_ids
from blocks.store.schema import Db

FORMAT = 1
THREADS = 2
MANIFEST = "manifest.json"


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What the mirror of one collection holds."""

    format: int
    collection: str
    key: list[str]
    seq: int
    time: float
    records: int
    root: str
    shards: list[Shard]


@dataclass(frozen=True)
class Mirrored:
    """What an update did: the manifest now, files written, files that were found damaged and rebuilt."""

    manifest: Manifest
    written: int
    rebuilt: tuple[str, ...] = ()


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


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest, None when there is none.

    Raises:
        MirrorDamaged: It is there but can't be read.
    """
    path = folder / MANIFEST
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MirrorDamaged(f"the mirror's manifest is damaged: {error}", where=str(path)) from None


def write_file(path: Path, data: bytes) -> None:
    """Write a whole file or nothing: temporary file, fsync, rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StoreError(
            f"the mirror can't be written: {error.strerror}",
            where=str(path),
            kept="the database; the mirror follows with the next run",
            todo="make room on the disk, or make the folder writable, then run again",
        ) from None


def update(db: Db, target: Target, *, upto: int, records: int, now: float) -> Mirrored:
    """Bring the mirror up to a seq. Only shards that changes touch are written.

    Args:
        upto: The collection's newest seq in the store.
        records: Its live records.
        now: Unix seconds, UTC; kept in the manifest.
    """
    rebuilt: tuple[str, ...] = ()
    try:
        old = read_manifest(target.folder)
    except MirrorDamaged:
        old, rebuilt = None, (MANIFEST,)
        _set_aside(target, [target.folder / MANIFEST])
    if old is not None and old.seq == upto and not (target.folder / "pending").exists():
        return Mirrored(old, 0)
    layout = mirror_layout(records)
    whole = (
        old is None or old.seq > upto or mirror_layout(old.records) != layout or (target.folder / "pending").exists()
    )
    if old is None or whole:
        shards, written = _write(target, files.shards(db, target.collection, layout.bits), layout)
        kept = [] if old is None else list(old.shards)
    else:
        touched = _touched(old.shards, changed_ids(db, target.collection, old.seq, upto))
        rebuilt = damaged(target, old, touched)
        shards, written, kept = _update(db, target, old, touched, layout)
    if old is not None and old.seq < upto:
        _write_version(db, target, old, upto, now)
    manifest = Manifest(
        format=FORMAT,
        collection=target.name,
        key=list(target.key),
        seq=upto,
        time=now,
        records=records,
        root=root(shards),
        shards=shards,
    )
    if sum(shard.records for shard in shards) != records:
        raise MirrorDamaged(
            f"the mirror would hold {sum(s.records for s in shards)} records, the store has {records}",
            where=str(target.folder),
            kept="the store",
            todo="run: autosync verify",
        )
    write_file(target.folder / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=1))
    _sweep(target, {file_name(shard.start, layout) for shard in shards}, whole, kept, old, layout)
    (target.folder / "pending").unlink(missing_ok=True)
    return Mirrored(manifest, written, rebuilt)


def _write(target: Target, parts: Iterable[tuple[str, bytes]], layout: Layout) -> tuple[list[Shard], int]:
    """Write shards while the next one is rendered: hashing, writing and syncing are done beside the database."""
    write_file(target.folder / "pending", b"")
    shards, waiting = list[Shard](), deque[Future[Shard]]()
    with ThreadPoolExecutor(THREADS) as pool:
        for start, data in parts:
            waiting.append(pool.submit(_write_shard, target.current / file_name(start, layout), start, data))
            if len(waiting) > THREADS:
                shards.append(waiting.popleft().result())
        shards += [one.result() for one in waiting]
    return shards, len(shards)


def _write_shard(path: Path, start: str, data: bytes) -> Shard:
    write_file(path, data)
    return shard_of(start, data)


def _touched(shards: list[Shard], ids: dict[str, bool]) -> set[int]:
    """Positions of the shards that changes touch; a boundary that went joins its shard to the one before."""
    starts = [shard.start for shard in shards]
    places = set[int]()
    for id, live in ids.items():
        place = find(starts, id)
        places.add(place)
        if place and not live and starts[place] == id:
            places.add(place - 1)
    return places


def _update(
    db: Db, target: Target, old: Manifest, touched: set[int], layout: Layout
) -> tuple[list[Shard], int, list[Shard]]:
    """Render the touched runs of shards again; the others stay. Returns all shards, files written, shards replaced."""
    shards, written, place = list[Shard](), 0, 0
    while place < max(len(old.shards), 1):
        if place not in touched and old.shards:
            shards.append(old.shards[place])
            place += 1
            continue
        end = place + 1
        while end in touched:
            end += 1
        start = old.shards[place].start if place and old.shards else ""
        stop = old.shards[end].start if end < len(old.shards) else None
        fresh, count = _write(target, files.shards(db, target.collection, layout.bits, start, stop), layout)
        shards += fresh
        written += count
        place = end
    return shards, written, [old.shards[n] for n in sorted(touched) if n < len(old.shards)]


def _write_version(db: Db, target: Target, old: Manifest, upto: int, now: float) -> None:
    """Keep what the update replaces: a header, then id and content before of every record it changed."""
    header = {"from": old.seq, "to": upto, "from_time": old.time, "time": now, "root": old.root, "records": old.records}
    rows = db.execute(
        "SELECT record.id, CAST(before AS BLOB) FROM change JOIN record USING (rec) WHERE change.seq IN "
        "(SELECT min(change.seq) FROM change JOIN record USING (rec) "
        "WHERE change.seq > ? AND change.seq <= ? AND collection = ? GROUP BY change.rec) ORDER BY record.id",
        [old.seq, upto, target.collection],
    )
    lines = [msgspec.json.encode(header)]
    lines += [msgspec.json.encode([id, None if doc is None else msgspec.Raw(doc)]) for id, doc in rows]
    write_file(target.folder / "versions" / f"{upto:012d}.jsonl", body(lines))


def _sweep(
    target: Target, names: set[str], whole: bool, replaced: list[Shard], old: Manifest | None, layout: Layout
) -> None:
    """Delete files of shards that are no more, after the manifest stopped naming them."""
    gone = {path.name for path in target.current.iterdir()} if whole and target.current.is_dir() else set()
    old_layout = mirror_layout(old.records) if old else layout
    gone |= {file_name(shard.start, old_layout) for shard in replaced}
    for name in gone - names:
        (target.current / name).unlink(missing_ok=True)


def read_shard(target: Target, shard: Shard, records: int) -> bytes:
    """A shard's bytes, proven by their hash.

    Raises:
        MirrorDamaged: The file is missing or not what the manifest says.
    """
    path = target.file(shard, records)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MirrorDamaged(f"a mirror file is missing: {error.strerror}", where=str(path)) from None
    if sha256(data).hexdigest() != shard.sha256:
        raise MirrorDamaged("a mirror file is not what the manifest says", where=str(path))
    return data


def damaged(target: Target, manifest: Manifest, places: Iterable[int] | None = None) -> tuple[str, ...]:
    """Names of files that are missing or differ from the manifest; differing ones are kept aside.

    Args:
        places: Positions of the shards to look at; all when None.
    """
    every = range(len(manifest.shards))
    wanted = [manifest.shards[n] for n in (every if places is None else sorted(set(every) & set(places)))]
    with ThreadPoolExecutor(THREADS) as pool:
        found = [path for path in pool.map(lambda shard: _bad(target, shard, manifest.records), wanted) if path]
    _set_aside(target, found)
    return tuple(path.name for path in found)


def _bad(target: Target, shard: Shard, records: int) -> Path | None:
    try:
        read_shard(target, shard, records)
    except MirrorDamaged:
        return target.file(shard, records)
    return None


def _set_aside(target: Target, paths: Iterable[Path]) -> None:
    for path in paths:
        if path.exists():
            (target.folder / "damaged").mkdir(exist_ok=True)
            number = len(list((target.folder / "damaged").iterdir()))
            shutil.move(path, target.folder / "damaged" / f"{number:04d}-{path.name}")


def repair(db: Db, target: Target, *, upto: int, records: int, now: float) -> tuple[str, ...]:
    """Find damaged files, keep them aside, and render the mirror again from the store. Returns their names."""
    try:
        manifest = read_manifest(target.folder)
    except MirrorDamaged:
        return update(db, target, upto=upto, records=records, now=now).rebuilt
    if manifest is None:
        return ()
    bad = damaged(target, manifest)
    if bad:
        write_file(target.folder / "pending", b"")
        update(db, target, upto=upto, records=records, now=now)
    return bad


def lines(folder: Path, manifest: Manifest) -> Iterator[bytes]:
    """The lines of a mirror's files in key order, as they are (not checked against the manifest)."""
    layout = mirror_layout(manifest.records)
    for shard in manifest.shards:
        path = folder / "current" / file_name(shard.start, layout)
        if path.exists():
            data = path.read_bytes()
            yield from data.removesuffix(b"\n").split(b"\n") if data else ()
