"""verify: the root hash of every collection, recomputed from the store, the mirror's files and the repository's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from autosync.errors import AutoSyncError, MirrorDamaged
from autosync.records import BadRecord, key_reader, parse
from autosync.shards import root_of
from blocks.mirror import update as mirror
from blocks.mirror.files import Target, read_manifest, writing
from blocks.mirror.repair import gaps, mend
from blocks.store import batches, history, ledger
from blocks.store.schema import Db
from flows.stages.push import open_remote
from flows.workspace import Space

SHOWN = 5
REBUILD = "What to do: run: autosync rebuild"


def verify_all(space: Space) -> dict[str, Any]:
    """Compare the three of every collection.

    Returns:
        `equal`; `collections` with records, store_root, mirror_root, repo_root (None where it can't be read);
        `problems` in words.

    Raises:
        StoreError: The database is so damaged that it can't be read.
    """
    rows, problems = [], list[str]()
    with space.database(read_only=True) as db:
        problems += [f"the database is damaged: {row[0]}. {REBUILD}" for row in _integrity(db) if row[0] != "ok"]
        for row in history.collections(db):
            keys, name = msgspec.json.decode(row["key"], type=list[str]), row["name"]
            mirrored, pushed = partial(_mirror_root, space, name, keys), partial(_repo_root, space, name, keys)
            rows.append(
                {
                    "collection": name,
                    "records": row["records"],
                    "store_root": root_of(batches.read_rows(db, row["collection"]), row["records"]),
                    "mirror_root": _try(problems, f"{name}, mirror", mirrored),
                    "repo_root": _try(problems, f"{name}, repository", pushed),
                }
            )
            problems += [f"{name}, mirror: {error}" for error in _gaps(space.home.mirror / name)]
    equal = all(row["store_root"] == row["mirror_root"] == row["repo_root"] for row in rows)
    return {"equal": equal and not problems, "collections": rows, "problems": problems}


def _integrity(db: Db) -> list[tuple[str]]:
    return db.execute(f"PRAGMA integrity_check({SHOWN})").fetchall()


def repair_mirrors(space: Space) -> list[str]:
    """Prove every file of every mirror, versions included; keep aside those that are damaged and make them again from
    the store.

    Returns:
        What was made again, as collection/file; with the reason where that was not possible.
    """
    mended = list[str]()
    with space.database() as db:
        for row in history.collections(db):
            keys = tuple(msgspec.json.decode(row["key"], type=list[str]))
            target = Target(space.home.mirror / row["name"], row["collection"], row["name"], keys)
            with writing(target.folder):
                upto, then = ledger.newest_seq(db, target.collection), ledger.newest_time(db, target.collection)
                records = batches.record_count(db, target.name)
                done = mirror.repair(db, target, upto=upto, records=records, now=then)
                mended += [f"{target.name}/{name}" for name in [*done, *mend(db, target)]]
    return mended


def _try(problems: list[str], label: str, call: Callable[[], str | None]) -> str | None:
    try:
        return call()
    except AutoSyncError as error:
        problems.append(f"{label}: {error}")
        return None


def _mirror_root(space: Space, name: str, keys: list[str]) -> str | None:
    folder = space.home.mirror / name
    manifest = read_manifest(folder)
    return None if manifest is None else _root(keys, mirror.lines(folder, manifest), str(folder))


def _gaps(folder: Path) -> list[MirrorDamaged]:
    """What is wrong with the version files; a damaged manifest was named already."""
    with suppress(MirrorDamaged):
        if manifest := read_manifest(folder):
            return [gap.error for gap in gaps(folder, manifest)]
    return []


def _repo_root(space: Space, name: str, keys: list[str]) -> str | None:
    files = [data for path, data in open_remote(space).files(name) if path.endswith(".jsonl")]
    lines = (line for data in files for line in data.removesuffix(b"\n").split(b"\n") if line)
    return _root(keys, lines, f"repository, {name}/")


def _root(keys: list[str], lines: Iterable[bytes], where: str) -> str:
    """The root of canonical lines in any order: each is parsed for its id and taken as it stands."""
    key, found = key_reader(keys), list[tuple[str, bytes]]()
    for number, line in enumerate(lines, 1):
        try:
            found.append((key(parse(line)[0]), line))
        except BadRecord as problem:
            raise MirrorDamaged(f"a record can't be read: {problem}", where=f"{where}, record {number}") from None
    found.sort(key=lambda pair: pair[0])
    return root_of(found, len(found))
