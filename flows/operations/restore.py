"""A collection as it was: from the store's change log, the mirror's versions or the repository's commits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from autosync.errors import ConfigError
from blocks.files import explained, replacing
from blocks.private_files import open_to_others
from blocks.store.schema import Db
from flows.operations.copies import STORE, CopyName, open_copy, parse_copy
from flows.workspace import Workspace

Place = CopyName  # as the parameter of the flows is called, which deployments have stored


class Past(NamedTuple):
    """A collection at a moment.

    Attributes:
        seq: The last change that is in it.
        lines: Canonical lines in key order; where a root is known they are proven by it when the last one was given.
        asked: The seq that was asked for, when the copy has only an earlier one.
    """

    seq: int
    lines: Iterator[bytes]
    asked: int | None = None


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


def read_past(workspace: Workspace, db: Db | None, collection: str, as_of: str, copy_name: str) -> Past:
    """Choose a copy and a point in time of a collection.

    Args:
        db: The store if it is open.
        as_of: A seq or an ISO 8601 time; the newest state when empty.
        copy_name: store, mirror or repo.

    Raises:
        ConfigError: There is no such collection there, or the moment can't be read or had.
        MirrorDamaged, RemoteError: The copy can't be read; also while the lines are taken.
    """
    moment = parse_moment(as_of) if as_of else None
    copy = open_copy(workspace, parse_copy(copy_name), collection, db)
    point = copy.at(moment)
    lines = (line for _, line in copy.rows(point))
    earlier = isinstance(moment, int) and point.seq < min(moment, copy.at(None).seq)
    return Past(point.seq, lines, moment if isinstance(moment, int) and earlier else None)


def write_collection(
    workspace: Workspace, collection: str, as_of: str, to: str, copy_name: str = STORE
) -> dict[str, Any]:
    """Write a collection as it was; the newest state when `as_of` is empty.

    Args:
        copy_name: What to read it from: store, mirror or repo.

    Returns:
        collection, from, seq, records and the file; `asked`, when the copy has no state of that seq and `seq` is the
        one before.

    Raises:
        ConfigError: There is no such collection, or the moment can't be read or had.
        MirrorDamaged, RemoteError: The copy is damaged; no file was written.
    """
    path = Path(to).expanduser().resolve()
    past = read_past(workspace, None, collection, as_of, copy_name)
    records = _write_lines(path, past.lines)
    result = {"collection": collection, "from": copy_name, "seq": past.seq, "records": records, "file": str(path)}
    return result if past.asked is None else result | {"asked": past.asked}


def _write_lines(path: Path, lines: Iterable[bytes]) -> int:
    """Write all lines or no file; how many they were."""
    count, todo = 0, "make room on the disk, or name a folder that exists and is writable"
    with (
        explained("the file can't be written", path, kept="what stood there before", todo=todo),
        replacing(path) as file,
    ):
        for count, line in enumerate(lines, 1):  # noqa: B007  # counted while written
            file.write(line + b"\n")
        open_to_others(file.fileno())
    return count
