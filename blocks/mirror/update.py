"""The mirror: a collection as canonical JSON Lines in few files, with a manifest and the versions before.

    data_backup/COLLECTION/manifest.json       seq, root, records, every file with its SHA-256
    data_backup/COLLECTION/current/*.jsonl     the records now, one a line, in key order
    data_backup/COLLECTION/versions/SEQ.jsonl  what the update to SEQ replaced: enough to go back
    data_backup/COLLECTION/damaged/            files that were not what the manifest says, kept aside
    data_backup/COLLECTION/.lock               held by the program that writes

The manifest is replaced last: until then the mirror is the old version with files in transition,
which the next update renders again from the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import chain
from pathlib import Path

from autosync.errors import MirrorDamaged
from autosync.shards import Layout, Passing, Shard, file_name, find, mirror_layout, root
from blocks.mirror import versions as mirror_versions
from blocks.mirror.files import (
    FORMAT,
    MANIFEST,
    Header,
    Manifest,
    Stats,
    Target,
    identity,
    read_manifest,
    set_aside,
    write_file,
    write_manifest,
)
from blocks.store import shard_files as files
from blocks.store.history import Changes, changes_since, kept_seq
from blocks.store.schema import Db, Readers, snapshot

THREADS = 3  # while a file waits for the disk, two cores render others


@dataclass(frozen=True)
class Mirrored:
    """What an update did: the manifest now, files written, files that were found damaged and rebuilt, and every
    file's size, time and inode, by which the next update sees whether somebody else wrote to it.
    """

    manifest: Manifest
    written: int
    rebuilt: tuple[str, ...] = ()
    stats: Stats = field(default_factory=dict)


def update(db: Db, target: Target, *, upto: int, records: int, now: float, stats: Stats | None = None) -> Mirrored:
    """Bring the mirror up to a seq. Only shards that changes touch are written, and those that are found damaged.

    Args:
        upto: The collection's newest seq in the store.
        records: Its live records.
        now: When the newest change was stored (Unix seconds); kept in the manifest.
        stats: What the last update returned; a file that has others since is proven by its hash.
    """
    stats = dict(stats or {})
    old, rebuilt = _old_manifest(target)
    layout = mirror_layout(records)
    unfinished = (target.folder / "pending").exists()
    astray = old is not None and (old.seq > upto or kept_seq(db, target.collection, old.seq) != old.seq)
    whole = old is None or astray or mirror_layout(old.records) != layout or unfinished
    changes: Changes = {}
    if old is None or whole:
        shards = _write(db, target, files.ranges(db, target.collection, layout.bits), layout, stats)
        written, kept = len(shards), [] if old is None else list(old.shards)
    else:
        bad = _damaged(target, old, foreign(target, old, stats), stats)
        if old.seq == upto and not bad:
            return Mirrored(old, 0, (), stats)
        rebuilt = tuple(target.file(old.shards[place], old.records).name for place in bad)
        changes = changes_since(db, target.collection, old.seq, upto)
        touched = _touched(old.shards, changes) | set(bad)
        shards, written, kept = _update(db, target, old, touched, layout, stats)
    if old is not None and old.seq < upto and not astray:
        mirror_versions.write_version(
            target.folder,
            Header(from_=old.seq, to=upto, from_time=old.time, time=now, root=old.root, records=old.records),
            changes or changes_since(db, target.collection, old.seq, upto),
        )
    _check_count(target, shards, records)
    manifest = Manifest(
        format=FORMAT,
        collection=target.name,
        key=list(target.key),
        seq=upto,
        time=now,
        records=records,
        root=root(shards),
        shards=shards,
        since=_since(target, None if astray else old, upto),
    )
    write_manifest(target.folder, manifest)
    names = {file_name(shard.start, layout) for shard in shards}
    _sweep(target, names, whole, kept, old, layout)
    (target.folder / "pending").unlink(missing_ok=True)
    return Mirrored(manifest, written, rebuilt, {name: stat for name, stat in stats.items() if name in names})


def _old_manifest(target: Target) -> tuple[Manifest | None, tuple[str, ...]]:
    """The manifest, and its name among what must be made again when it was damaged and is kept aside."""
    try:
        return read_manifest(target.folder), ()
    except MirrorDamaged:
        set_aside(target.folder, [target.folder / MANIFEST])
        return None, (MANIFEST,)


def _check_count(target: Target, shards: list[Shard], records: int) -> None:
    held = sum(shard.records for shard in shards)
    if held != records:
        raise MirrorDamaged(
            f"the mirror would hold {held} records, the store has {records}",
            where=str(target.folder),
            kept="the store",
            todo="run: autosync verify",
        )


def _since(target: Target, old: Manifest | None, upto: int) -> int:
    """The seq that proven version files lead back to, now that they go on from an old manifest, or from none."""
    if old is None:
        return mirror_versions.proven_since(target.folder, upto)
    return old.seq if old.since is None else old.since


def _write(
    db: Db, target: Target, parts: Sequence[tuple[str, str | None]], layout: Layout, stats: Stats
) -> list[Shard]:
    """Render the shards between keys from the store, hash and write them, several at a time."""

    def write(reader: Db, start: str, end: str | None) -> Shard | None:
        pieces, path = files.pieces(reader, target.collection, start, end), target.current / file_name(start, layout)
        with snapshot(reader):
            first = next(pieces, b"")
            if not first:
                return None
            passing = Passing()
            stats[path.name] = write_file(path, passing.through(chain([first], pieces)))
        return passing.shard(start)

    write_file(target.folder / "pending", b"")
    if len(parts) == 1:
        made = [write(db, *parts[0])]
    else:
        with ThreadPoolExecutor(THREADS) as pool, Readers(db, THREADS) as free:
            made = list(pool.map(lambda part: free.lend(write, *part), parts))
    return [shard for shard in made if shard]


def untouched(target: Target, stats: Stats) -> bool:
    """Whether every file is the one that was written, as far as a look at their stats tells."""
    try:
        manifest = read_manifest(target.folder)
    except MirrorDamaged:
        return False
    return manifest is not None and not foreign(target, manifest, stats)


def foreign(target: Target, manifest: Manifest, stats: Stats) -> list[int]:
    """Positions of the shards whose file isn't the one that was written: missing, or another size, time or inode."""
    found = []
    for place, shard in enumerate(manifest.shards):
        path = target.file(shard, manifest.records)
        try:
            same = stats.get(path.name) == identity(path.stat())
        except OSError:
            same = False
        if not same:
            found.append(place)
    return found


def _touched(shards: list[Shard], changes: Changes) -> set[int]:
    """Positions of the shards that changes touch; a boundary that went joins its shard to the one before."""
    starts = [shard.start for shard in shards]
    places = set[int]()
    for id, (live, _) in changes.items():
        place = find(starts, id)
        places.add(place)
        if place and not live and starts[place] == id:
            places.add(place - 1)
    return places


def _update(
    db: Db, target: Target, old: Manifest, touched: set[int], layout: Layout, stats: Stats
) -> tuple[list[Shard], int, list[Shard]]:
    """Render the touched runs of shards again; the others stay. Returns all shards, files written, shards replaced."""
    parts, place, count = list[tuple[str, str | None]](), 0, len(old.shards)
    while place < max(count, 1):
        if place not in touched and old.shards:
            place += 1
            continue
        end = place + 1
        while end in touched:
            end += 1
        start = old.shards[place].start if place and old.shards else ""
        stop = old.shards[end].start if end < count else None
        parts += files.ranges(db, target.collection, layout.bits, start, stop)
        place = end
    fresh = _write(db, target, parts, layout, stats)
    kept = [shard for place, shard in enumerate(old.shards) if place not in touched]
    return sorted([*kept, *fresh]), len(fresh), [old.shards[n] for n in sorted(touched) if n < count]


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
    wanted = range(len(manifest.shards)) if places is None else places
    return tuple(target.file(manifest.shards[n], manifest.records).name for n in _damaged(target, manifest, wanted))


def _damaged(target: Target, manifest: Manifest, places: Iterable[int], stats: Stats | None = None) -> list[int]:
    """Positions of shards whose file isn't what the manifest says; the stats of the others are noted."""
    wanted = list(places)
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda place: _prove(target, manifest.shards[place], manifest.records), wanted))
    paths = [target.file(manifest.shards[place], manifest.records) for place in wanted]
    if stats is not None:
        stats |= {path.name: stat for path, stat in zip(paths, found, strict=True) if stat}
    set_aside(target.folder, [path for path, stat in zip(paths, found, strict=True) if not stat])
    return [place for place, stat in zip(wanted, found, strict=True) if not stat]


def _prove(target: Target, shard: Shard, records: int) -> list[int] | None:
    """The stat of a shard's file, from before it was read, when it is what the manifest says."""
    try:
        stat = identity(target.file(shard, records).stat())
        read_shard(target, shard, records)
    except (OSError, MirrorDamaged):
        return None
    return stat


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
