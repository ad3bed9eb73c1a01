"""The restore flow: a collection as of any seq or time, as canonical JSON Lines in a file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from prefect import flow

from autosync.errors import StoreError
from flows.log import event, open_log
from flows.past import read_past
from flows.space import Space, open_space
from flows.stages.task import stage


def write_collection(space: Space, collection: str, as_of: str, to: str, place: str = "store") -> dict[str, Any]:
    """Write a collection as it was; the newest state when `as_of` is empty.

    Args:
        place: Where to read it from: store, mirror or repo.

    Returns:
        collection, from, seq, records and the file; `asked`, when the place has no state of that seq and `seq` is the
        one before.

    Raises:
        ConfigError: There is no such collection, or the moment can't be read or had.
        MirrorDamaged, RemoteError: The place is damaged; no file was written.
    """
    path = Path(to).expanduser().resolve()
    with ExitStack() as opened:
        db = opened.enter_context(space.database(read_only=True)) if place == "store" else None
        past = read_past(space, db, collection, as_of, place)
        records = _write_lines(path, past.lines)
    done = {"collection": collection, "from": place, "seq": past.seq, "records": records, "file": str(path)}
    return done if past.asked is None else done | {"asked": past.asked}


def _write_lines(path: Path, lines: Iterable[bytes]) -> int:
    """Write all lines or no file; how many they were."""
    temporary, count = path.with_name(f".{path.name}.{os.getpid()}.tmp"), 0
    try:
        with temporary.open("wb", buffering=1 << 20) as handle:
            for count, line in enumerate(lines, 1):  # noqa: B007  # counted while written
                handle.write(line + b"\n")
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StoreError(
            f"the file can't be written: {error.strerror}",
            where=str(path),
            kept="what stood there before",
            todo="make room on the disk, or name a folder that exists and is writable",
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
    return count


restore_stage = stage("restore", "Write a collection as of a seq or time to a file.")(write_collection)


@flow(name="restore", description="Write a collection as of a moment to a file.", flow_run_name="restore {collection}")
async def restore(
    collection: str,
    as_of: str = "",
    to: str = "restored.jsonl",
    home: str = "",
    config: str = "",
    place: str = "store",
) -> dict[str, Any]:
    """Restore a collection to a file. (The sync flow's parameter `restored` writes it back into the collection.)

    Args:
        collection: Its name.
        as_of: A seq or an ISO 8601 time; the newest state when empty.
        to: The file to write.
        place: Where to read it from: store, mirror or repo.
    """
    space = open_space(home, config)
    open_log(space.home.log)
    done: dict[str, Any] = await restore_stage(space, collection, as_of, to, place)
    event("restore", collection, f"seq {done['seq']}, {done['records']:,} records, to {done['file']}")
    return done
