"""rebuild: a damaged store made anew from the mirror or the repository; the damaged file is kept aside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autosync.errors import AutoSyncError, ConfigError, MirrorDamaged, Refused, StoreError
from autosync.shards import root_of
from blocks.files import put_in_place
from blocks.store import batches
from blocks.store.rebuilding import Found, Lines, Step, step, write
from blocks.store.schema import connect, damage
from flows.operations.copies import COPIES, MIRROR, OTHERS, CopyName, open_copy, parse_copy
from flows.operations.verify import verify_all
from flows.prefect_server import running_server
from flows.workspace import Workspace


def rebuild_store(
    workspace: Workspace, copy_name: str = MIRROR, names: tuple[str, ...] = (), *, force: bool = False
) -> dict[str, Any]:
    """Make the store anew.

    Args:
        copy_name: mirror or repo.
        names: Collections; all that the copy has when empty.
        force: Also when the present store is whole.

    Returns:
        from; collections with name, records, seq, steps, and the seq since which states are known; the file that the
        old store is kept in ("" for none); problems: why states before are not known, where they should be.

    Raises:
        Refused: The present store is whole, or `autosync up` uses it.
        MirrorDamaged, RemoteError: The copy is damaged too; nothing was replaced.
        ConfigError: There is no such copy, or it has no collection.
    """
    name = parse_copy(copy_name, "rebuild", OTHERS)
    _refuse_needless(workspace, force=force)
    problems = list[str]()
    found = [_read(workspace, name, each, problems) for each in names or sorted(COPIES[name].collections(workspace))]
    if not found:
        todo = f"try another copy: --from {' or '.join(OTHERS)}"
        raise ConfigError(f"the {COPIES[name].label} has no collection", kept="the store as it was", todo=todo)
    fresh = workspace.home.database.with_name(f"{workspace.home.database.name}.new")
    _remove(fresh)
    try:
        _write(workspace, fresh, found)
        aside = _keep_aside(workspace.home.database)
        put_in_place(fresh, workspace.home.database)
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
    return {"from": name, "collections": rows, "aside": str(aside) if aside else "", "problems": problems}


def _refuse_needless(workspace: Workspace, *, force: bool) -> None:
    if running_server(workspace.home):
        raise Refused(
            "autosync up is running and uses the database", kept="everything", todo="end it with Ctrl-C, then repeat"
        )
    if not force and workspace.home.database.exists() and _is_whole(workspace):
        raise Refused(
            "the database is whole and equal to mirror and repository",
            kept="everything",
            todo="nothing; to make it anew all the same, give --force",
        )


def _is_whole(workspace: Workspace) -> bool:
    try:
        return bool(verify_all(workspace)["equal"])
    except AutoSyncError:
        return False


def _read(workspace: Workspace, name: CopyName, collection: str, problems: list[str]) -> Found:
    """A collection as a copy has it, with the steps that led there as far as it keeps them and they can be proven."""
    copy, label = open_copy(workspace, name, collection), COPIES[name].label
    newest = copy.at(None)
    lines = dict(copy.rows(newest))
    if not newest.root:
        raise _unproven("nothing proves what was read: no root was noted", f"the {label} of {collection!r}")
    state, steps, seq, time = dict(lines), list[Step](), newest.seq, newest.time
    try:
        for point, replaced, proven in copy.replaced():
            before = dict(state)
            last = step(before, replaced, after=point.seq, seq=seq, time=time)
            if not proven and root_of(sorted(before.items()), len(before)) != point.root:
                where = f"the {label} of {collection!r} as of seq {point.seq}, by its versions"
                raise _unproven("what was read has another root", where)
            steps.append(last)
            state, seq, time = before, point.seq, point.time
    except MirrorDamaged as error:
        problems.append(
            f"the {label}'s history of {collection!r} before seq {seq} is lost: {error.what}, {error.where}"
        )
    steps.append(_first(state, seq, time))
    return Found(collection, copy.key, newest.root, lines, steps)


def _first(state: Lines, seq: int, time: float) -> Step:
    return step(state, dict.fromkeys(state), after=0, seq=seq, time=time)


def _unproven(what: str, where: str) -> MirrorDamaged:
    return MirrorDamaged(
        what, where=where, kept="the store as it was", todo=f"try another copy: --from {' or '.join(OTHERS)}"
    )


def _write(workspace: Workspace, path: Path, found: list[Found]) -> None:
    """Write a new store to a path and prove it."""
    sources = {source.into: source.name for source in workspace.settings.source}
    db = connect(path)
    try:
        write(db, found, sources)
        for one in found:
            number = batches.collection_id(db, one.name)
            assert number is not None
            if root_of(batches.read_rows(db, number), len(one.lines)) != one.root:
                raise StoreError(f"the new store has another root of {one.name!r}", kept="the store as it was")
        if wrong := damage(db):
            raise StoreError(f"the new store is damaged: {wrong[0]}", kept="the store as it was", todo="check the disk")
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
