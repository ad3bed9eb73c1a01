"""The mirror: a collection as canonical JSON Lines in few files, with a manifest and the versions before.

    data_backup/COLLECTION/manifest.json       seq, root, records, every file with its SHA-256
    data_backup/COLLECTION/current/*.jsonl     the records now, one a line, in key order
    data_backup/COLLECTION/versions/SEQ.jsonl  what the update to SEQ replaced: enough to go back
    data_backup/COLLECTION/damaged/            files that were not what the manifest says, kept aside
    data_backup/COLLECTION/.lock               held by the program that writes

The manifest is replaced last: until then the mirror is the old version with files in transition,
which the next update renders again from the store.

An update looks (manifest, stats, hashes, the store's changes), makes a `MirrorPlan` of it, and then writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import chain
from pathlib import Path

from autosync.errors import MirrorDamaged
from autosync.shards import Layout, Passing, Shard, file_name, mirror_layout, root
from blocks.mirror import versions as mirror_versions
from blocks.mirror.files import (
    FORMAT,
    MANIFEST,
    Manifest,
    Stats,
    Target,
    identity,
    read_manifest,
    set_aside,
    write_file,
    write_manifest,
)
from blocks.mirror.plan import MirrorPlan, must_render_anew, plan_update
from blocks.store import shard_files as files
from blocks.store.history import changes_since, kept_seq
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
    old, unreadable = _old_manifest(target)
    plan = _plan(db, target, old, stats, upto=upto, records=records, now=now)
    if old is not None and plan.idle:
        return Mirrored(old, 0, (), stats)
    broken = [target.file(shard, old.records) for shard in plan.damaged] if old else []
    set_aside(target.folder, [target.folder / MANIFEST, *broken] if unreadable else broken)
    shards, written = _render(db, target, plan, records, stats)
    manifest = Manifest(
        format=FORMAT,
        collection=target.name,
        key=list(target.key),
        seq=upto,
        time=now,
        records=records,
        root=root(shards),
        shards=shards,
        since=mirror_versions.proven_since(target.folder, upto) if plan.since is None else plan.since,
    )
    write_manifest(target.folder, manifest)
    names = {target.file(shard, records).name for shard in shards}
    _sweep(target, plan, names, old.records if old else records)
    (target.folder / "pending").unlink(missing_ok=True)
    rebuilt = (MANIFEST,) if unreadable else tuple(path.name for path in broken)
    return Mirrored(manifest, written, rebuilt, {name: stat for name, stat in stats.items() if name in names})


def _old_manifest(target: Target) -> tuple[Manifest | None, bool]:
    """The manifest, None without one that can be read, and whether one lies there that can't be."""
    try:
        return read_manifest(target.folder), False
    except MirrorDamaged:
        return None, True


def _plan(
    db: Db, target: Target, old: Manifest | None, stats: Stats, *, upto: int, records: int, now: float
) -> MirrorPlan:
    """Plan an update from what store and files show. Nothing is written; the stats of proven files are noted."""
    if old is None:
        return plan_update(None, {}, upto=upto, records=records, now=now)
    diverged = old.seq > upto or kept_seq(db, target.collection, old.seq) != old.seq
    unfinished = (target.folder / "pending").exists()
    anew = must_render_anew(old, records, diverged=diverged, unfinished=unfinished)
    return plan_update(
        old,
        {} if diverged or old.seq == upto else changes_since(db, target.collection, old.seq, upto),
        [] if anew else _damaged(target, old, foreign(target, old, stats), stats),
        upto=upto,
        records=records,
        now=now,
        diverged=diverged,
        unfinished=unfinished,
    )


def _render(db: Db, target: Target, plan: MirrorPlan, records: int, stats: Stats) -> tuple[list[Shard], int]:
    """Write the shards and the version file of a plan. Returns all shards, and how many were written."""
    layout = mirror_layout(records)
    ranges = [
        each for start, end in plan.ranges for each in files.ranges(db, target.collection, layout.bits, start, end)
    ]
    written = _write(db, target, ranges, layout, stats)
    if plan.version:
        mirror_versions.write_version(target.folder, plan.version, plan.changes)
    shards = sorted([*plan.unchanged, *written])
    _check_count(target, shards, records)
    return shards, len(written)


def _check_count(target: Target, shards: list[Shard], records: int) -> None:
    held = sum(shard.records for shard in shards)
    if held != records:
        raise MirrorDamaged(
            f"the mirror would hold {held} records, the store has {records}",
            where=str(target.folder),
            kept="the store",
            todo="run: autosync verify",
        )


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
            stats[path.name] = write_file(path, passing.through(chain([first], pieces)), sync_entry=False)
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


def _sweep(target: Target, plan: MirrorPlan, names: set[str], records: int) -> None:
    """Delete files of shards that are no more, after the manifest stopped naming them.

    Args:
        records: What the manifest before said, by which its files were named.
    """
    old = {path.name for path in target.current.iterdir()} if plan.anew and target.current.is_dir() else set()
    old |= {target.file(shard, records).name for shard in plan.replaced}
    for name in old - names:
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


def damaged(target: Target, manifest: Manifest, positions: Iterable[int] | None = None) -> tuple[str, ...]:
    """Names of files that are missing or differ from the manifest; differing ones are kept aside.

    Args:
        positions: Of the shards to look at; all when None.
    """
    wanted = range(len(manifest.shards)) if positions is None else positions
    paths = [target.file(manifest.shards[n], manifest.records) for n in _damaged(target, manifest, wanted)]
    set_aside(target.folder, paths)
    return tuple(path.name for path in paths)


def _damaged(target: Target, manifest: Manifest, positions: Iterable[int], stats: Stats | None = None) -> list[int]:
    """Positions of shards whose file isn't what the manifest says; the stats of the others are noted."""
    wanted = list(positions)
    with ThreadPoolExecutor(THREADS) as pool:
        proven = list(pool.map(lambda position: _prove(target, manifest.shards[position], manifest.records), wanted))
    if stats is not None:
        for position, stat in zip(wanted, proven, strict=True):
            if stat:
                stats[target.file(manifest.shards[position], manifest.records).name] = stat
    return [position for position, stat in zip(wanted, proven, strict=True) if not stat]


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
