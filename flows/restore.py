"""The restore flow: a collection as of any seq or time, as canonical JSON Lines in a file."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow

from autosync.errors import ConfigError
from blocks.mirror import write_file
from blocks.store import batches, history, ledger
from flows.log import event, open_log
from flows.space import Space, open_space
from flows.stages.task import stage


def parse_moment(text: str) -> int | float:
    """`--as-of`: a seq (digits only) as int, else an ISO 8601 time (UTC when it has no zone) as Unix seconds."""
    if text.isdecimal():
        return int(text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"{text!r} is neither a seq nor a time", todo="write 1234, or 2026-01-31, or 2026-01-31T12:00:00+03:30"
        ) from None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def write_collection(space: Space, collection: str, as_of: str, to: str) -> dict[str, Any]:
    """Write a collection as it was; the newest state when `as_of` is empty.

    Returns:
        seq, records and the file; `asked`, when the state at that seq is no longer kept and `seq` is the one before.

    Raises:
        ConfigError: There is no such collection, or the moment can't be read.
    """
    with space.database(read_only=True) as db:
        number = batches.collection_id(db, collection)
        if number is None:
            known = ", ".join(row["name"] for row in history.collections(db))
            raise ConfigError(f"there is no collection {collection!r}", todo=f"use one of: {known}")
        newest = ledger.newest_seq(db, number)
        moment = parse_moment(as_of) if as_of else newest
        wanted = moment if isinstance(moment, int) else history.seq_at(db, number, moment)
        seq = history.kept_seq(db, number, wanted)
        lines = [doc for _, doc in history.as_of(db, number, seq)]
    path = Path(to).expanduser().resolve()
    write_file(path, b"".join(line + b"\n" for line in lines))
    done = {"collection": collection, "seq": min(seq, newest), "records": len(lines), "file": str(path)}
    return done if seq == wanted else done | {"asked": wanted}


restore_stage = stage("restore", "Write a collection as of a seq or time to a file.")(write_collection)


@flow(name="restore", description="Write a collection as of a moment to a file.", flow_run_name="restore {collection}")
async def restore(
    collection: str, as_of: str = "", to: str = "restored.jsonl", home: str = "", config: str = ""
) -> dict[str, Any]:
    """Restore a collection.

    Args:
        collection: Its name.
        as_of: A seq or an ISO 8601 time; the newest state when empty.
        to: The file to write.
    """
    space = open_space(home, config)
    open_log(space.home.log)
    done: dict[str, Any] = await restore_stage(space, collection, as_of, to)
    event("restore", collection, f"seq {done['seq']}, {done['records']:,} records, to {done['file']}")
    return done
