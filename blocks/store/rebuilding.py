"""Making a store anew from what mirror or repository still have: records, and the change log as far as they tell."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from autosync.errors import MirrorDamaged
from autosync.fields import Fields
from autosync.parsing import PARSED_AT_ONCE
from autosync.records import parse
from autosync.shards import level
from blocks.store.batches import ensure_collection, widen_view
from blocks.store.history import REBUILT
from blocks.store.schema import Db, transaction

Lines = dict[str, bytes]


class Change(NamedTuple):
    """One change of a record: its id, op, and canonical line before it."""

    id: str
    op: str
    before: bytes | None


@dataclass(frozen=True)
class Step:
    """The changes after one seq, up to and with another, which was stored at a time (Unix seconds)."""

    after: int
    seq: int
    time: float
    changes: list[Change]


@dataclass(frozen=True)
class Found:
    """A collection as a copy has it: its lines now, and how it came to them, newest step first.

    The oldest step begins after seq 0 and makes the records that were there at its end.
    """

    name: str
    key: list[str]
    root: str
    lines: Lines
    steps: list[Step] = field(default_factory=list)


def step(state: Lines, replaced: Mapping[str, bytes | None], *, after: int, seq: int, time: float) -> Step:
    """The step that led to a state, given what it replaced; the state is turned back to what it was before."""
    changes = list[Change]()
    for id, before in replaced.items():
        now = state.get(id)
        if now != before:
            op = "insert" if before is None else "delete" if now is None else "update"
            changes.append(Change(id, op, before))
            if before is None:
                del state[id]
            else:
                state[id] = before
    return Step(after, seq, time, changes)


def write(db: Db, collections: Sequence[Found], sources: Mapping[str, str]) -> None:
    """Write collections into an empty store, in one transaction. Every change keeps a seq of its step.

    Args:
        sources: Collection -> the source that feeds it.
    """
    steps = [(number, one) for number, found in enumerate(collections) for one in found.steps]
    seqs = _assign([one for _, one in steps])
    order = sorted(range(len(steps)), key=lambda n: steps[n][1].seq)
    with transaction(db):
        numbers, recs, first = list[int](), list[dict[str, int]](), 1
        for found in collections:
            numbers.append(ensure_collection(db, found.name, sources.get(found.name), found.key))
            mentioned = (change.id for one in found.steps for change in one.changes)
            ids = sorted(found.lines.keys() | set(mentioned))
            recs.append({id: rec for rec, id in enumerate(ids, first)})
            first += len(ids)
            _write_records(db, found, numbers[-1], recs[-1])
        for batch, n in enumerate(order, 1):
            number, one = steps[n]
            source = sources.get(collections[number].name) or collections[number].name
            _write_step(db, one, batch, numbers[number], recs[number], source, seqs[n])


def _assign(steps: Sequence[Step]) -> list[list[int]]:
    """Give the changes of each step seqs of its own in (after, seq], `seq` among them.

    Steps of different collections overlap. Going down from the newest seq, each goes to the step that must have its
    own soonest, the one that begins last; each step's changes had seqs of their own once, so that there are enough.
    """
    given: list[list[int]] = [[] for _ in steps]
    coming = sorted(range(len(steps)), key=lambda n: steps[n].seq)
    open_steps, seq = list[tuple[int, int]](), 0
    while coming or open_steps:
        seq = steps[coming[-1]].seq if not open_steps else seq - 1
        own = coming and steps[coming[-1]].seq == seq
        n = coming.pop() if own else heapq.heappop(open_steps)[1]
        if seq <= steps[n].after:
            raise MirrorDamaged(
                f"more changes are told after seq {steps[n].after} than there can be",
                kept="the store as it was",
                todo="rebuild from another copy: --from",
            )
        given[n].append(seq)
        if len(given[n]) < len(steps[n].changes):
            heapq.heappush(open_steps, (-steps[n].after, n))
    return [seqs[::-1] for seqs in given]


def _write_records(db: Db, found: Found, collection: int, recs: Mapping[str, int]) -> None:
    rows = ((rec, collection, id, _text(found.lines.get(id)), level(id)) for id, rec in recs.items())
    db.executemany("INSERT INTO record (rec, collection, id, doc, level) VALUES (?, ?, ?, ?, ?)", rows)
    db.execute("UPDATE collection SET records = ? WHERE collection = ?", [len(found.lines), collection])
    fields = Fields()
    for some in _pieces(list(found.lines.values())):
        fields.note([parse(line)[0] for line in some], b"\n".join(some))
    widen_view(db, collection, found.name, fields.paths)


def _pieces(lines: list[bytes]) -> Iterator[list[bytes]]:
    return (lines[first : first + PARSED_AT_ONCE] for first in range(0, len(lines), PARSED_AT_ONCE))


def _write_step(
    db: Db, one: Step, batch: int, collection: int, recs: Mapping[str, int], source: str, seqs: Sequence[int]
) -> None:
    rows = [
        (seq, batch, recs[change.id], change.op, _text(change.before))
        for seq, change in zip(seqs, one.changes, strict=False)  # a step without changes has a seq all the same
    ]
    db.executemany("INSERT INTO change (seq, batch, rec, op, before) VALUES (?, ?, ?, ?, ?)", rows)
    counts = [sum(change.op == op for change in one.changes) for op in ("insert", "update", "delete")]
    db.execute(
        "INSERT INTO batch VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
        list(chain([batch, collection, source, REBUILT, REBUILT, one.time, one.after + 1, one.seq], counts)),
    )


def _text(line: bytes | None) -> str | None:
    return None if line is None else line.decode()
