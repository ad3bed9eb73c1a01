"""What an update of the mirror does, decided before anything is written: a value made from the manifest, the changes
since it was written, and the files that are damaged.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from autosync.shards import Shard, find, mirror_layout
from blocks.mirror.files import Header, Manifest
from blocks.store.history import Changes

KeyRange = tuple[str, str | None]
EVERYTHING: KeyRange = ("", None)


@dataclass(frozen=True)
class MirrorPlan:
    """What an update does to a mirror.

    Attributes:
        ranges: Key ranges to render from the store again, each from a key up to and without another (None: the end).
        anew: Whether every file is rendered: any other that lies there is deleted.
        unchanged: Shards whose files stay as they are.
        replaced: Shards whose files the rendered ones take the place of.
        damaged: Those of them whose files are missing or not what the manifest says.
        version: The header of the version file to write; None for none.
        changes: What the version file leads back over.
        since: The seq that version files lead back to; None when those that lie there have yet to be proven.
    """

    ranges: tuple[KeyRange, ...] = ()
    anew: bool = False
    unchanged: tuple[Shard, ...] = ()
    replaced: tuple[Shard, ...] = ()
    damaged: tuple[Shard, ...] = ()
    version: Header | None = None
    changes: Changes = field(default_factory=dict)
    since: int | None = None

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.ranges and self.version is None


def must_render_anew(manifest: Manifest | None, records: int, *, diverged: bool, unfinished: bool) -> bool:
    """Whether a manifest says nothing about the files that can be built upon.

    Args:
        manifest: None when there is none that can be read.
        records: The collection's live records in the store; they decide how it is cut into files.
        diverged: The store doesn't know the state that the mirror is in: it was put back to an earlier time.
        unfinished: An update died while it wrote files.
    """
    return manifest is None or diverged or unfinished or mirror_layout(manifest.records) != mirror_layout(records)


def plan_update(
    manifest: Manifest | None,
    changes: Changes,
    damaged: Collection[int] = (),
    *,
    upto: int,
    records: int,
    now: float,
    diverged: bool = False,
    unfinished: bool = False,
) -> MirrorPlan:
    """Plan how a mirror comes to hold a collection as of a seq; nothing is read or written.

    Args:
        manifest, records, diverged, unfinished: As in `must_render_anew`.
        changes: The collection's changes after the manifest's seq.
        damaged: Positions of the shards whose files are missing or not what the manifest says.
        upto: The collection's newest seq in the store, stored at `now` (Unix seconds).
    """
    if manifest is None:
        return MirrorPlan((EVERYTHING,), anew=True)
    since = None if diverged else manifest.seq if manifest.since is None else manifest.since
    version = None
    if manifest.seq < upto and not diverged:
        version = Header(
            from_=manifest.seq,
            to=upto,
            from_time=manifest.time,
            time=now,
            root=manifest.root,
            records=manifest.records,
        )
    shards = manifest.shards
    if must_render_anew(manifest, records, diverged=diverged, unfinished=unfinished):
        return MirrorPlan(
            (EVERYTHING,), anew=True, replaced=tuple(shards), version=version, changes=changes, since=since
        )
    if version is None and not damaged:
        return MirrorPlan(unchanged=tuple(shards), since=since)
    touched = _touched(shards, changes) | set(damaged)
    return MirrorPlan(
        ranges=_ranges(shards, touched),
        unchanged=tuple(shard for position, shard in enumerate(shards) if position not in touched),
        replaced=tuple(shard for position, shard in enumerate(shards) if position in touched),
        damaged=tuple(shards[position] for position in sorted(damaged)),
        version=version,
        changes=changes,
        since=since,
    )


def _touched(shards: Sequence[Shard], changes: Changes) -> set[int]:
    """Positions of the shards that changes touch; a boundary that went joins its shard to the one before."""
    starts = [shard.start for shard in shards]
    positions = set[int]()
    for id, (live, _) in changes.items():
        position = find(starts, id)
        positions.add(position)
        if position and not live and starts[position] == id:
            positions.add(position - 1)
    return positions


def _ranges(shards: Sequence[Shard], touched: set[int]) -> tuple[KeyRange, ...]:
    """The key ranges of the runs of touched shards; of a mirror without shards, everything."""
    if not shards:
        return (EVERYTHING,)
    ranges, position = list[KeyRange](), 0
    while position < len(shards):
        start = position
        while position in touched:
            position += 1
        if position > start:
            start_key = shards[start].start if start else ""
            ranges.append((start_key, shards[position].start if position < len(shards) else None))
        position += 1
    return tuple(ranges)
