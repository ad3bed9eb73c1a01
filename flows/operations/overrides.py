"""What a sync can take instead of its source: refused rows once more, or the collection as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from hashlib import blake2b
from itertools import islice
from typing import Any, NamedTuple

import msgspec
from pydantic import BaseModel, Field

from autosync.change_detection import Block, Staged
from autosync.settings import Expect, Source
from blocks.sources.reader import Content, Known, Reading
from blocks.store import ledger
from blocks.store.schema import Db
from flows.operations.restore import Place, read_past
from flows.workspace import Workspace

BLOCK_ROWS = 16_384


class Replay(BaseModel, frozen=True):
    """Quarantine rows to take instead of the source, with a corrected text for one where given."""

    items: list[int] = Field(description="Items of `autosync quarantine list`.")
    text: str | None = Field(default=None, description="The corrected text of the one item.")


class Restored(BaseModel, frozen=True):
    """The collection as it was, to take instead of the source."""

    as_of: str = Field(default="", description="A seq or an ISO 8601 time; the newest state when empty.")
    place: Place = Field(default="store", description="Where to read it from.")

    def command(self, collection: str) -> str:
        """The command that writes this state back."""
        as_of = f" --as-of {self.as_of}" if self.as_of else ""
        return f"autosync restore {collection}{as_of} --from {self.place} --apply"


Override = Replay | Restored


class Input(NamedTuple):
    """An input to take: the source's rules for it, its reading, what its changes are called."""

    source: Source
    reading: Reading
    origin: str


class GivenRows(Reading):
    """Rows that are taken whole instead of a source's, and identify themselves.

    Args:
        rows: Gives their blocks.
        digest: Identifies them.
    """

    def __init__(self, rows: Callable[[], Iterator[Block]], digest: str) -> None:
        self._rows, self._digest = rows, digest

    def blocks(self, known: Known) -> Iterator[Block]:  # noqa: ARG002  # nothing of them is known
        """All of them."""
        return self._rows()

    def content(self) -> Content:
        """What identifies them; no look at the source will compare it."""
        return Content(self._digest, None)


def open_override(workspace: Workspace, db: Db, source: Source, override: Override) -> Input:
    """Open what is taken instead of a source.

    Rows from quarantine are checked as ever and leave the other records alone. A collection as it was passed its
    checks then, and is taken whole: what is not in it is deleted.
    """
    if isinstance(override, Replay):
        source = msgspec.structs.replace(source, mode="upsert")
        return Input(source, GivenRows(partial(_replayed, db, override), f"replay{override.items}"), "replay")
    source = msgspec.structs.replace(source, mode="snapshot", expect=Expect())
    past = read_past(workspace, db, source.into, override.as_of, override.place)
    digest = blake2b(f"{source.into} {override.place} {past.seq}".encode()).hexdigest()
    return Input(source, GivenRows(partial(_restored, past.lines, past.seq), digest), "restore")


def accepted(db: Db, override: Override | None, staged: Staged) -> list[int]:
    """Quarantine items whose text was not refused again."""
    if not isinstance(override, Replay):
        return []
    refused = {refusal.raw for refusal in staged.refused}
    return [row["item"] for row in _items(db, override) if _raw(row, override) not in refused]


def _restored(lines: Iterator[bytes], seq: int) -> Iterator[Block]:
    first = 1
    while rows := list(islice(lines, BLOCK_ROWS)):
        yield Block(rows, partial(_record, seq, first))
        first += len(rows)


def _record(seq: int, first: int, n: int) -> str:
    return f"seq {seq}, record {first + n}"


def _raw(row: dict[str, Any], replay: Replay) -> bytes:
    return bytes(row["raw"]) if replay.text is None else replay.text.encode()


def _items(db: Db, replay: Replay) -> list[dict[str, Any]]:
    return [row for number in replay.items if (row := ledger.item(db, number)) is not None]


def _replayed(db: Db, replay: Replay) -> Iterator[Block]:
    rows = _items(db, replay)
    yield Block([_raw(row, replay) for row in rows], lambda n: f"quarantine {rows[n]['item']}, {rows[n]['place']}")
