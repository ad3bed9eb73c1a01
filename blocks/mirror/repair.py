"""Version files that are damaged or missing: found by their proofs, kept aside, and made again from the store's log."""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import msgspec

from autosync.errors import MirrorDamaged
from autosync.retention import Point
from autosync.shards import root_of
from blocks.mirror.files import Header, Manifest, Target, read_manifest, set_aside, version_file, write_manifest
from blocks.mirror.versions import read_changes, read_version, write_version
from blocks.store import compaction, history
from blocks.store.schema import Db


class Gap(NamedTuple):
    """Where the way back is broken.

    Attributes:
        below: The nearest seq from which it can be gone on.
        to: The seq whose version file is damaged or missing.
        error: What is wrong with it.
    """

    below: int
    to: int
    error: MirrorDamaged


def gaps(folder: Path, manifest: Manifest) -> list[Gap]:
    """Prove every version file that a manifest promises, newest first; empty when all are whole."""
    if manifest.since is None:
        return []
    there = [int(path.stem) for path in (folder / "versions").glob("*.jsonl") if path.stem.isdecimal()]
    found, seq = list[Gap](), manifest.seq
    while seq > manifest.since:
        try:
            version = read_version(folder, seq, manifest.since)
            deque(read_changes(version.path), maxlen=0)
            seq = version.header.from_
        except MirrorDamaged as error:
            below = max((one for one in there if manifest.since < one < seq), default=manifest.since)
            found.append(Gap(below, seq, error))
            seq = below
    return found


def mend(db: Db, target: Target) -> list[str]:
    """Keep damaged version files aside and make them again from the store's log. The mirror's history ends where the
    store doesn't know it either.

    Returns:
        For each gap, newest first, the name of its file, or in words why it can't be closed.
    """
    done, manifest = list[str](), read_manifest(target.folder)
    if manifest is None:
        return done
    for gap in gaps(target.folder, manifest):
        path = version_file(target.folder, gap.to)
        set_aside(target.folder, [path])
        since = _close(db, target, gap)
        if since == gap.below:
            done.append(path.name)
            continue
        write_manifest(target.folder, msgspec.structs.replace(manifest, since=since))
        done.append(f"{path.name}: the database has no seq {gap.below} either; the mirror's history begins at {since}")
        break
    return done


def _close(db: Db, target: Target, gap: Gap) -> int:
    """Write version files from point to point of the store; the seq that they lead back to."""
    points = [one for one in compaction.points(db, target.collection) if gap.below <= one.seq <= gap.to]
    if gap.below == 0 and history.beginning(db, target.collection) is None:
        points.insert(0, Point(0, 0.0))
    if not points or points[-1].seq != gap.to:
        return gap.to
    for old, new in pairwise(points):
        rows = list(history.as_of(db, target.collection, old.seq))
        header = Header(
            from_=old.seq,
            to=new.seq,
            from_time=old.time,
            time=new.time,
            root=root_of(rows, len(rows)),
            records=len(rows),
        )
        write_version(target.folder, header, history.changes_since(db, target.collection, old.seq, new.seq))
    return points[0].seq
