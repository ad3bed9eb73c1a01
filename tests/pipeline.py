"""The stages in order as plain functions, without a Prefect server: what most behaviour needs to be seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec

from autosync.settings import Home
from blocks.store import ledger
from flows.space import Space, now
from flows.stages.ingest import Ingested, Replay, ingest
from flows.stages.mirror import Mirrored, mirror
from flows.stages.push import Pushed, push
from flows.stages.store import store
from flows.verification import verify_all

SHARED = Path(__file__).resolve().parents[2] / "shared"


@dataclass(frozen=True)
class Result:
    """What one pass through the stages did."""

    found: Ingested
    mirrored: Mirrored
    pushed: Pushed


@dataclass
class Pipeline:
    """A home, a configuration and a source file in a folder."""

    folder: Path

    @property
    def space(self) -> Space:
        return Space(Home(self.folder / "home"), self.folder / "autosync.toml")

    def configure(self, **source: Any) -> None:
        """Write autosync.toml with one source named `things`; values are given as TOML would have them."""
        table: dict[str, Any] = {"name": "things", "location": "things.json", "key": "/id"} | source
        (self.folder / "autosync.toml").write_bytes(msgspec.toml.encode({"source": [table]}))

    def write(self, data: bytes | str | list[Any], name: str = "things.json") -> Path:
        """Write the source file."""
        path = self.folder / name
        body = (
            data if isinstance(data, bytes) else data.encode() if isinstance(data, str) else msgspec.json.encode(data)
        )
        path.write_bytes(body)
        return path

    def run(self, accept: str = "", replay: Replay | None = None, source: str = "things") -> Result:
        """ingest, store, mirror, push; raises what a stage raises."""
        run = str(uuid4())
        found = ingest(self.space, source, run, accept, replay)
        if found.batch:
            with self.space.database() as db:
                token = ledger.grant(db, f"source {source}", run, now=now())
            store(self.space, source, found.batch, run, token)
        mirrored = mirror(self.space, source)
        return Result(found, mirrored, push(self.space, source, run, mirrored.root))

    def records(self, collection: str = "things") -> dict[str, str]:
        """The store's live records: id -> canonical text."""
        with self.space.database(read_only=True) as db:
            rows = db.execute(
                "SELECT id, doc FROM record JOIN collection USING (collection) WHERE name = ? AND doc IS NOT NULL",
                [collection],
            )
            return dict(rows.fetchall())

    def verify(self) -> dict[str, Any]:
        """What `autosync verify` finds."""
        return verify_all(self.space)
