"""The stages in order as plain functions, without a Prefect server: what most behaviour needs to be seen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec

from autosync.settings import Home
from autosync.shards import root_of
from blocks.mirror import update as files
from blocks.mirror import versions as mirror_versions
from blocks.mirror.files import read_manifest
from blocks.store import batches, ledger
from blocks.store import staged_batch as staging
from flows.operations.ingest import Ingested, ingest
from flows.operations.mirror import Mirrored, mirror
from flows.operations.overrides import Override
from flows.operations.push import Pushed, push
from flows.operations.store import store
from flows.operations.verify import verify_all
from flows.workspace import Workspace, now

WRITES = frozenset(
    "os.rename os.remove os.mkdir os.rmdir shutil.rmtree shutil.move subprocess.Popen sqlite3.connect".split()
)
SHARED = Path(__file__).resolve().parents[2] / "shared"


def toml(value: Any) -> str:
    """A value as TOML writes it; JSON's notation is TOML's, except for tables."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(name)} = {toml(item)}" for name, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


class Crash(BaseException):
    """The process dies here: no code of ours may catch it."""


class _Life:
    """How many more writes the process lives for; None for ever."""

    left: int | None = None
    watched = False


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if _Life.left is None:
        return
    if event in WRITES or (event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR)):
        if _Life.left <= 0:  # once dead, nothing is written any more
            raise Crash(event)
        _Life.left -= 1


@contextmanager
def dying(writes: int) -> Iterator[list[Crash]]:
    """Let the process die after so many writes: files, renames, git processes, opened databases.

    What SQLite does inside a transaction is one write. Gives a list that holds the Crash if it came to it.
    """
    if not _Life.watched:
        sys.addaudithook(_watch)
        _Life.watched = True
    died: list[Crash] = []
    _Life.left = writes
    try:
        yield died
    except Crash as crash:
        died.append(crash)
    finally:
        _Life.left = None


def mirrored_states(folder: Path) -> Iterator[tuple[int, dict[str, bytes]]]:
    """(seq, id -> canonical bytes) of each state that a mirror's versions lead back to, newest first, proven by root.

    Ids are those of records with one key, `/id`. Nothing while its files are those of an update that died.
    """
    manifest = read_manifest(folder)
    if manifest is None or (folder / "pending").exists():
        return
    state = {str(msgspec.json.decode(line)["id"]): line for line in files.lines(folder, manifest)}
    yield manifest.seq, dict(state)
    for version in mirror_versions.chain(folder, manifest.seq):
        for id, before in mirror_versions.read_changes(version.path):
            state.pop(id, None)
            if bytes(before) != b"null":
                state[id] = bytes(before)
        assert version.header.root == root_of(sorted(state.items()), len(state)), version.path
        assert version.header.records == len(state)
        yield version.header.from_, dict(state)


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
    def workspace(self) -> Workspace:
        return Workspace(Home(self.folder / "home"), self.folder / "autosync.toml")

    def configure(self, **source: Any) -> None:
        """Write autosync.toml with one source named `things`; dicts become inline tables."""
        table: dict[str, Any] = {"name": "things", "location": "things.json", "key": "/id"} | source
        lines = ["[[source]]", *(f"{name} = {toml(value)}" for name, value in table.items())]
        (self.folder / "autosync.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def write(self, data: bytes | str | list[Any], name: str = "things.json") -> Path:
        """Write the source file."""
        path = self.folder / name
        body = (
            data if isinstance(data, bytes) else data.encode() if isinstance(data, str) else msgspec.json.encode(data)
        )
        path.write_bytes(body)
        return path

    def load(
        self, accept: str = "", override: Override | None = None, source: str = "things", run: str = ""
    ) -> Ingested:
        """ingest and store alone."""
        run = run or str(uuid4())
        found = ingest(self.workspace, source, run, accept, override)
        if found.batch:
            with self.workspace.database() as db:
                token = ledger.grant(db, f"source {source}", run, now=now())
            store(self.workspace, source, found.batch, run, token)
        return found

    def run(self, accept: str = "", override: Override | None = None, source: str = "things") -> Result:
        """ingest, store, mirror, push; raises what a stage raises."""
        run = str(uuid4())
        found = self.load(accept, override, source, run)
        mirrored = mirror(self.workspace, source)
        return Result(found, mirrored, push(self.workspace, source, run, mirrored.root))

    def load_at(self, time: float, source: str = "things") -> int:
        """ingest, store and mirror as if at a time; mirror and push have read it. Returns the newest seq."""
        workspace, run, settings = self.workspace, str(uuid4()), self.workspace.source(source)
        found = ingest(workspace, source, run)
        with workspace.database() as db:
            if found.batch:
                batch = staging.load(workspace.home.staging / found.batch)
                token = ledger.grant(db, f"source {source}", run, now=time)
                batches.apply(db, batch, settings, run=run, token=token, now=time)
                staging.discard(batch.folder)
            target = workspace.target(db, settings)
            assert target is not None, "a source without records has no collection"
            stats = ledger.cursor(db, "mirror", target.collection).info.get("stats")
            newest, records = ledger.newest_seq(db, target.collection), batches.record_count(db, source)
            done = files.update(db, target, upto=newest, records=records, now=time, stats=stats)
            for consumer in ("mirror", "push"):
                ledger.advance(db, consumer, target.collection, newest, now=time, info={"stats": done.stats})
        return newest

    def records(self, collection: str = "things") -> dict[str, str]:
        """The store's live records: id -> canonical text."""
        with self.workspace.database(read_only=True) as db:
            rows = db.execute(
                "SELECT id, doc FROM record JOIN collection USING (collection) WHERE name = ? AND doc IS NOT NULL",
                [collection],
            )
            return dict(rows.fetchall())

    def git(self, *args: str) -> str:
        """What git says about the home's repository."""
        command = ["git", "--git-dir", str(self.workspace.home.repository), *args]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def verify(self) -> dict[str, Any]:
        """What `autosync verify` finds."""
        return verify_all(self.workspace)
