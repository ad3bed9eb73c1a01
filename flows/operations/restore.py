"""A collection as it was: from the store's change log, the mirror's versions or the repository's commits."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, get_args

import msgspec

from autosync.errors import AutoSyncError, ConfigError, MirrorDamaged, RemoteError, StoreError
from autosync.ports import Head
from autosync.records import BadRecord, line_ids_reader
from autosync.shards import body, mirror_layout, root, shard_of, split
from autosync.suggestions import choose_from, did_you_mean, unknown_name
from blocks.mirror.history import MirrorHistory
from blocks.private_files import open_to_others
from blocks.store import batches, history, ledger
from blocks.store.schema import Db
from flows.stages.push import open_remote
from flows.workspace import Space

Place = Literal["store", "mirror", "repo"]


class Past(NamedTuple):
    """A collection at a moment.

    Attributes:
        seq: The last change that is in it.
        lines: Canonical lines in key order; where a root is known they are proven by it when the last one was given.
        asked: The seq that was asked for, when the place has only an earlier one.
    """

    seq: int
    lines: Iterator[bytes]
    asked: int | None = None


class _Point(Protocol):
    @property
    def seq(self) -> int: ...

    @property
    def time(self) -> float: ...


P = TypeVar("P", bound=_Point)


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


def parse_place(text: str) -> Place:
    """`--from`."""
    try:
        place: Place = msgspec.convert(text, Place)
    except msgspec.ValidationError:
        todo = choose_from(text, get_args(Place))
        raise ConfigError(f"{text!r} is no place to restore from", todo=todo) from None
    return place


def read_past(space: Space, db: Db | None, collection: str, as_of: str, place: str) -> Past:
    """Find a collection as it was.

    Args:
        db: The open store; needed for the store alone.
        as_of: A seq or an ISO 8601 time; the newest state when empty.
        place: store, mirror or repo.

    Raises:
        ConfigError: There is no such collection there, or the moment can't be read or had.
        MirrorDamaged, RemoteError: The place can't be read; also while the lines are taken.
    """
    moment = parse_moment(as_of) if as_of else None
    match parse_place(place):
        case "store":
            assert db is not None
            return _of_store(db, collection, moment)
        case "mirror":
            return _of_mirror(space, collection, moment)
        case "repo":
            return _of_repository(space, collection, moment)


def _of_store(db: Db, collection: str, moment: int | float | None) -> Past:
    number = batches.collection_id(db, collection)
    if number is None:
        raise unknown_name("collection", collection, (row["name"] for row in history.collections(db)))
    newest = ledger.newest_seq(db, number)
    wanted = newest if moment is None else moment
    wanted = min(wanted, newest) if isinstance(wanted, int) else history.seq_at(db, number, wanted)
    seq, begins = history.kept_seq(db, number, wanted), history.beginning(db, number)
    if begins and seq < begins[0]:
        raise _too_old(f"the database's history of {collection!r}", *begins)
    return Past(seq, (line for _, line in history.as_of(db, number, seq)), None if seq == wanted else wanted)


def _of_mirror(space: Space, collection: str, moment: int | float | None) -> Past:
    folder = space.home.mirror / collection
    found = MirrorHistory(folder)
    point = _newest(found.points(), moment, f"the mirror of {collection!r}")
    lines = _proven(found.at(point), point.records, point.root, str(folder))
    return Past(point.seq, lines, _asked(point.seq, moment, found.manifest.seq))


class Pushed(NamedTuple):
    """A collection as a commit of ours has it.

    Attributes:
        seq, time, root: What the commit says of it; time in Unix seconds.
        key: Its key's pointers.
        rows: (id, canonical line) in key order.
        newest: The seq of the newest commit.
        where: The commit, for people.
    """

    seq: int
    time: float
    root: str
    key: list[str]
    rows: list[tuple[str, bytes]]
    newest: int
    where: str


class _Commit(NamedTuple):
    seq: int
    time: float
    sha: str
    root: str


def read_commit(space: Space, collection: str, moment: int | float | None) -> Pushed:
    """A collection as the newest commit up to a moment has it; not proven by its root yet.

    Raises:
        ConfigError: There is no commit of it, or none so old.
        RemoteError: A file of it can't be read.
    """
    remote = open_remote(space)
    commits = [
        _Commit(int(one.trailers["AutoSync-Seq"]), stored_at(one), one.sha, one.trailers.get("AutoSync-Root", ""))
        for one in remote.history(f"{collection}/manifest.json")
        if one.trailers.get("AutoSync-Seq", "").isdecimal()
    ]
    if not commits:
        question = did_you_mean(collection, (source.into for source in space.settings.source))
        raise ConfigError(f"the repository has no commit of {collection!r}", where=remote.address, todo=question)
    chosen = _newest(commits, moment, f"the repository's history of {collection!r}")
    where = f"{remote.address}, commit {chosen.sha[:12]}"
    files = dict(remote.files(collection, chosen.sha))
    try:
        manifest = msgspec.json.decode(files.pop(f"{collection}/manifest.json"), type=dict[str, msgspec.Raw])
        key = msgspec.json.decode(manifest["key"], type=list[str])
        lines = b"".join(data for path, data in files.items() if path.endswith(".jsonl"))
        rows = sorted(zip(line_ids_reader(key)(lines), lines.splitlines(), strict=True))
    except (KeyError, ValueError, msgspec.DecodeError, BadRecord) as error:
        raise RemoteError(f"a file there is not as AutoSync wrote it: {error}", where=where) from None
    return Pushed(chosen.seq, chosen.time, chosen.root, key, rows, commits[0].seq, where)


def stored_at(commit: Head) -> float:
    """When a commit's state was stored; to the second where the commit doesn't say it."""
    said = commit.trailers.get("AutoSync-Time", "")
    return float(said) if re.fullmatch(r"-?\d+\.\d+", said, re.ASCII) else commit.time


def _of_repository(space: Space, collection: str, moment: int | float | None) -> Past:
    found = read_commit(space, collection, moment)
    lines = _proven(found.rows, len(found.rows), found.root, found.where)
    return Past(found.seq, lines, _asked(found.seq, moment, found.newest))


def _newest(points: list[P], moment: int | float | None, where: str) -> P:
    """The newest of some points, newest first, that is not after a moment."""
    for point in points:
        if moment is None or (point.seq <= moment if isinstance(moment, int) else point.time <= moment):
            return point
    raise _too_old(where, points[-1].seq, points[-1].time)


def _too_old(where: str, seq: int, time: float) -> ConfigError:
    since = datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds")
    return ConfigError(
        f"{where} reaches back to seq {seq} ({since}) only", todo="ask for that moment, or another place: --from"
    )


def _asked(seq: int, moment: int | float | None, newest: int) -> int | None:
    return moment if isinstance(moment, int) and seq < min(moment, newest) else None


def _proven(pairs: Iterable[tuple[str, bytes]], records: int, expected: str, where: str) -> Iterator[bytes]:
    """The lines of (id, line) pairs in key order; an error at their end when they have another root."""
    shards = []
    for start, held in split(pairs, mirror_layout(records).bits):
        shards.append(shard_of(start, body(held)))
        yield from held
    if expected and root(shards) != expected:
        raise _not_as_it_was(where)


def _not_as_it_was(where: str) -> AutoSyncError:
    return MirrorDamaged(
        "what was read is not what the collection was: its root differs",
        where=where,
        kept="everything; nothing was written",
        todo="restore from another place: --from store, mirror or repo",
    )


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
        open_to_others(temporary)
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
