"""rebuild: a damaged store made anew from the mirror or the repository; the damaged file is kept aside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autosync.errors import AutoSyncError, ConfigError, MirrorDamaged, Refused, StoreError
from autosync.shards import root_of
from autosync.suggestions import choose_from
from blocks.mirror.history import MirrorHistory
from blocks.store import batches
from blocks.store.rebuilding import Found, Lines, Step, step, write
from blocks.store.schema import connect
from flows.operations.restore import read_commit
from flows.operations.verify import verify_all
from flows.prefect_server import running_server
from flows.stages.push import open_remote
from flows.workspace import Space

PLACES = ("mirror", "repo")


def rebuild_store(
    space: Space, place: str = "mirror", names: tuple[str, ...] = (), *, force: bool = False
) -> dict[str, Any]:
    """Make the store anew.

    Args:
        place: mirror or repo.
        names: Collections; all that the place has when empty.
        force: Also when the present store is whole.

    Returns:
        from; collections with name, records, seq, steps, and the seq since which states are known; the file that the
        old store is kept in ("" for none); problems: why states before are not known, where they should be.

    Raises:
        Refused: The present store is whole, or `autosync up` uses it.
        MirrorDamaged, RemoteError: The place is damaged too; nothing was replaced.
        ConfigError: There is no such place, or it has no collection.
    """
    if place not in PLACES:
        raise ConfigError(f"{place!r} is no place to rebuild from", todo=choose_from(place, PLACES))
    _refuse_needless(space, force=force)
    read = _of_mirror if place == "mirror" else _of_repository
    found, problems = list[Found](), list[str]()
    for name in names or sorted(_collections(space, place)):
        found.append(read(space, name, problems))
    if not found:
        raise ConfigError(f"the {place} has no collection", kept="the store as it was", todo="try the other place")
    fresh = space.home.database.with_name(f"{space.home.database.name}.new")
    _remove(fresh)
    try:
        _write(space, fresh, found)
        aside = _keep_aside(space.home.database)
        fresh.replace(space.home.database)
    finally:
        _remove(fresh)
    rows = [
        {
            "collection": one.name,
            "records": len(one.lines),
            "seq": one.steps[0].seq,
            "steps": len(one.steps),
            "since": one.steps[-1].seq,
        }
        for one in found
    ]
    return {"from": place, "collections": rows, "aside": str(aside) if aside else "", "problems": problems}


def _refuse_needless(space: Space, *, force: bool) -> None:
    if running_server(space.home):
        raise Refused(
            "autosync up is running and uses the database", kept="everything", todo="end it with Ctrl-C, then repeat"
        )
    if not force and space.home.database.exists() and _is_whole(space):
        raise Refused(
            "the database is whole and equal to mirror and repository",
            kept="everything",
            todo="nothing; to make it anew all the same, give --force",
        )


def _is_whole(space: Space) -> bool:
    try:
        return bool(verify_all(space)["equal"])
    except AutoSyncError:
        return False


def _collections(space: Space, place: str) -> set[str]:
    if place == "mirror":
        return {path.parent.name for path in space.home.mirror.glob("*/manifest.json")}
    paths = (path for path, _ in open_remote(space).files(""))
    return {path.split("/")[0] for path in paths if path.count("/") == 1 and path.endswith("/manifest.json")}


def _of_mirror(space: Space, name: str, problems: list[str]) -> Found:
    past = MirrorHistory(space.home.mirror / name)
    newest, *older = past.points()
    lines = dict(past.at(newest))
    _prove(lines, newest.root, f"the mirror of {name!r}")
    state, steps, seq, time = dict(lines), list[Step](), newest.seq, newest.time
    damage = past.damage()
    try:
        for point, replaced, proven in zip(older, past.replaced(), past.proven(), strict=True):
            before = dict(state)
            one = step(before, replaced, after=point.seq, seq=seq, time=time)
            if not proven:
                _prove(before, point.root, f"the mirror of {name!r} as of seq {point.seq}, by its versions")
            steps.append(one)
            state, seq, time = before, point.seq, point.time
    except MirrorDamaged as error:
        damage = error
    if damage:
        problems.append(f"the mirror's history of {name!r} before seq {seq} is lost: {damage.what}, {damage.where}")
    steps.append(_first(state, seq, time))
    return Found(name, past.manifest.key, newest.root, lines, steps)


def _of_repository(space: Space, name: str, _problems: list[str]) -> Found:
    """The newest commit alone: what was before it stays in Git."""
    commit = read_commit(space, name, None)
    lines = dict(commit.rows)
    _prove(lines, commit.root, f"the repository's {name!r}")
    return Found(name, commit.key, commit.root, lines, [_first(dict(lines), commit.seq, commit.time)])


def _first(state: Lines, seq: int, time: float) -> Step:
    return step(state, dict.fromkeys(state), after=0, seq=seq, time=time)


def _prove(lines: Lines, root: str, where: str) -> None:
    if root_of(sorted(lines.items()), len(lines)) != root:
        raise MirrorDamaged(
            "what was read has another root",
            where=where,
            kept="the store as it was",
            todo="try the other place",
        )


def _write(space: Space, path: Path, found: list[Found]) -> None:
    """Write a new store to a path and prove it."""
    sources = {source.into: source.name for source in space.settings.source}
    db = connect(path)
    try:
        write(db, found, sources)
        for one in found:
            number = batches.collection_id(db, one.name)
            assert number is not None
            if root_of(batches.read_rows(db, number), len(one.lines)) != one.root:
                raise StoreError(f"the new store has another root of {one.name!r}", kept="the store as it was")
        if (said := str(db.execute("PRAGMA integrity_check(1)").fetchone()[0])) != "ok":
            raise StoreError(f"the new store is damaged: {said}", kept="the store as it was", todo="check the disk")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        db.close()


def _files(path: Path) -> Iterator[Path]:
    return (path.with_name(path.name + end) for end in ("", "-wal", "-shm", "-journal"))


def _remove(path: Path) -> None:
    for one in _files(path):
        one.unlink(missing_ok=True)


def _keep_aside(path: Path) -> Path | None:
    """Move a database and what belongs to it out of the way; where to, None when there was none."""
    if not any(one.exists() for one in _files(path)):
        return None
    number, aside = 1, path.with_name(f"{path.name}.damaged-1")
    while any(one.exists() for one in _files(aside)):
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{number}")
    for old, new in zip(_files(path), _files(aside), strict=True):
        if old.exists():
            os.replace(old, new)  # noqa: PTH105  # may cross nothing: the same folder
    return aside
