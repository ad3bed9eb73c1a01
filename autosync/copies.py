"""What every copy of a collection does alike: choose a point in time, and prove rows by their root."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from autosync.errors import ConfigError, MirrorDamaged
from autosync.ports import PointInTime, Proof
from autosync.records import BadRecord, key_reader, parse
from autosync.shards import body, mirror_layout, root, shard_of, split

Row = tuple[str, bytes]


def newest_at(points: Iterable[PointInTime], moment: int | float | None, where: str) -> PointInTime:
    """The newest of some points, newest first, that is not after a seq or a time.

    Args:
        points: At least one.
        where: Whose points they are, for people.

    Raises:
        ConfigError: All are after it.
    """
    point = None
    for point in points:
        if moment is None or (point.seq if isinstance(moment, int) else point.time) <= moment:
            return point
    assert point is not None
    raise too_old(where, point.seq, point.time)


def too_old(where: str, seq: int, time: float) -> ConfigError:
    """A copy's history begins at a seq, and something before it was asked for."""
    since = datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds")
    return ConfigError(
        f"{where} reaches back to seq {seq} ({since}) only", todo="ask for that moment, or another copy: --from"
    )


def proven(rows: Iterable[Row], records: int, expected: str, where: str) -> Iterator[Row]:
    """Rows in key order as they are; an error at their end when they have another root than expected.

    Args:
        records: How many they are.
        expected: Their root; "" to prove nothing.
    """
    ids, shards = list[str](), []

    def noted() -> Iterator[Row]:
        for id, line in rows:
            ids.append(id)
            yield id, line

    for start, lines in split(noted(), mirror_layout(records).bits):
        shards.append(shard_of(start, body(lines)))
        yield from zip(ids, lines, strict=False)  # the first id of the next shard may be noted already
        del ids[: len(lines)]
    if expected and root(shards) != expected:
        raise MirrorDamaged(
            "what was read is not what the collection was: its root differs",
            where=where,
            kept="everything; nothing was written",
            todo="take another copy: --from",
        )


def proof_of(rows: Iterable[Row], records: int, seq: int | None) -> Proof:
    """The proof of rows in key order.

    Args:
        records: How many they should be: it decides how they are cut into shards.
    """
    shards = [shard_of(start, body(lines)) for start, lines in split(rows, mirror_layout(records).bits)]
    return Proof(root(shards), sum(shard.records for shard in shards), seq)


def proof_of_lines(key: Sequence[str], lines: Iterable[bytes], seq: int | None, where: str) -> Proof:
    """The proof of canonical lines in any order: each is parsed for its id and taken as it stands.

    Raises:
        MirrorDamaged: One is no record.
    """
    read_key, rows = key_reader(key), list[Row]()
    for number, line in enumerate(lines, 1):
        try:
            rows.append((read_key(parse(line)[0]), line))
        except BadRecord as problem:
            raise MirrorDamaged(f"a record can't be read: {problem}", where=f"{where}, record {number}") from None
    rows.sort(key=lambda row: row[0])
    return proof_of(rows, len(rows), seq)
