"""ingest: look at a source, detect what changed, check it, stage it as a batch; the bad rows go to quarantine."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import msgspec

from autosync.block_settings import source_block
from autosync.change_detection import Block, ChangeDetector, Staged
from autosync.policy import Counts, guard_deletes, guard_input
from autosync.row_hashes import RowHashes, rules_version
from autosync.settings import Source
from blocks.sources.parser_process import ProcessParser
from blocks.sources.reader import Content, Context, Previous, Unchanged, left_out
from blocks.sources.registry import reader_of
from blocks.store import batches, ledger
from blocks.store import file_states as parts
from blocks.store import row_hashes as hashes
from blocks.store import staged_batch as staging
from blocks.store.schema import Db
from flows.operations.overrides import Input, Override, Restored, accepted, open_override
from flows.operations.quality import VALIDATOR, check_dataset
from flows.progress import progress
from flows.workspace import Workspace, now


class Ingested(msgspec.Struct, frozen=True, kw_only=True):
    """What ingest found; `batch` is empty when the source is as it was, `left_out` what it passes over from now on."""

    batch: str = ""
    counts: Counts = Counts()
    state_version: int = 0
    rows: int = 0
    deletes_withheld: bool = False
    left_out: list[str] = []


@dataclass(frozen=True)
class Attempt:
    """One attempt to ingest a source: what it works with.

    Attributes:
        db: The open store, which may be read-only.
        folder: Where the batch is staged.
        state: What the store keeps of the source.
        rules: The version of the source's rules.
        override: What to take instead of the source.
        accept: The code of an input that may pass a guard.
    """

    workspace: Workspace
    db: Db
    source: Source
    folder: Path
    state: batches.SourceState
    rules: str
    override: Override | None = None
    accept: str = ""

    def previous(self) -> Previous:
        """What the store keeps of the source, as far as its rules are the same."""
        state = self.state
        if state.rules != self.rules:
            return Previous(seed=state.seed)
        digest = state.digest if state.fingerprint else ""
        return Previous(state.fingerprint, digest, state.seed, partial(parts.kept, self.db, self.source.name))

    def seen(self) -> RowHashes:
        """The rows that the source showed last time, as far as its rules are the same and nothing else is taken."""
        if self.state.rules != self.rules or self.override is not None:
            return RowHashes([], self.state.seed)
        return hashes.kept(self.db, self.source.name, self.state.seed)


class Detected(NamedTuple):
    """An input in which changes were detected: the source's rules for it, what it showed, what it does."""

    input: Input
    content: Content
    staged: Staged


def ingest(workspace: Workspace, name: str, run: str, accept: str = "", override: Override | None = None) -> Ingested:
    """Stage what changed in a source.

    Args:
        accept: The code of an input that may pass a guard.
        override: What to take instead of the source.

    Raises:
        SourceError: The source can't be read or isn't JSON; nothing was changed.
        Refused: It came back empty, mostly broken, or deletes too much.
    """
    source = workspace.source(name)
    folder = workspace.home.staging / f"{now():.0f}-{uuid4().hex[:12]}"
    staging.discard_stale(workspace.home.staging, now() - 86_400)
    with workspace.database() as db, ExitStack() as unless_staged:
        unless_staged.callback(staging.discard, folder)
        attempt = begin(workspace, db, source, folder, override, accept)
        batch = examine(attempt, workspace.home.path / VALIDATOR, workspace.home.quality / source.name)
        if isinstance(batch, Unchanged):
            return _unchanged(attempt, batch.fingerprint.text())
        whole = override is None and source.mode == "snapshot"
        ledger.quarantine(db, source.name, run, batch.staged.refused, now=now(), whole=whole)
        check_guards(batch, source, accept, override)
        staging.save(folder, batch.ticket, batch.staged)
        unless_staged.pop_all()
    return _ingested(attempt, batch.ticket)


def begin(
    workspace: Workspace, db: Db, source: Source, folder: Path, override: Override | None = None, accept: str = ""
) -> Attempt:
    """An attempt to ingest a source, with what the store keeps of it."""
    return Attempt(
        workspace, db, source, folder, batches.state(db, source.name), rules_version(source), override, accept
    )


def examine(attempt: Attempt, validator: Path, docs: Path) -> Unchanged | staging.Batch:
    """Look, detect and check; the batch, whose rows are in its folder.

    Args:
        validator: The state file of the validator for dataset checks.
        docs: Folder of their Data Docs.
    """
    found = look(attempt)
    detected = found if isinstance(found, Unchanged) else detect(attempt, found)
    if isinstance(detected, Unchanged):
        return detected
    checked = check(attempt, detected, validator, docs)
    return staging.Batch(ticket_of(attempt, checked), checked.staged, attempt.folder)


def look(attempt: Attempt) -> Unchanged | Input:
    """Look whether the source changed; what is taken instead of it counts as changed."""
    workspace, source = attempt.workspace, attempt.source
    if attempt.override is not None:
        return open_override(workspace, attempt.db, source, attempt.override)
    context = Context(workspace.base, attempt.folder, workspace.own, request_headers(workspace, source))
    looked = reader_of(source, context).look(attempt.previous())
    return looked if isinstance(looked, Unchanged) else Input(source, looked, "source")


def detect(attempt: Attempt, given: Input) -> Unchanged | Detected:
    """Read an input and detect which rows are new, changed, gone or refused; those to write go to the folder."""
    db, source = attempt.db, given.source
    collection = batches.collection_id(db, source.into)
    with closing(staging.Stage(attempt.folder)) as writer, closing(ProcessParser(source, attempt.folder)) as parser:
        detector = ChangeDetector(source, attempt.seen(), partial(batches.lookup, db, collection), writer, parser)
        for block in progress(f"ingest {source.name}", given.reading.blocks(detector), size=_size):
            detector.block(block)
        content = given.reading.content()
        if content.fingerprint is not None and content.digest == attempt.previous().digest:
            return Unchanged(content.fingerprint)  # files that were only touched
        staging.save_parts(attempt.folder, content.files)
        staged = detector.finish(
            writer.read,
            partial(batches.live, db, collection),
            batches.record_count(db, source.into),
            partial(batches.holders, db, collection),
        )
    return Detected(given, content, staged)


def check(attempt: Attempt, detected: Detected, validator: Path, docs: Path) -> Detected:
    """Check the changed rows as a data set; rows that a check names join the refused ones."""
    is_accepted = attempt.accept == detected.content.digest[:8]
    source, staged = detected.input.source, detected.staged
    checked = check_dataset(source, attempt.folder, staged, validator, docs, accepted=is_accepted)
    return detected._replace(staged=checked)


def ticket_of(attempt: Attempt, detected: Detected) -> staging.Ticket:
    """What the store needs to know of a batch beside its rows."""
    (source, _, origin), content, staged = detected
    deleted, refused = len(staged.deletes), len(staged.refused)
    return staging.Ticket(
        batch=attempt.folder.name,
        source=source.name,
        collection=source.into,
        key=source.keys,
        mode=source.mode,
        origin=origin,
        code=content.digest[:8],
        rules=attempt.rules,
        fingerprint=_fingerprint(content, staged),
        digest=content.digest,
        seed=attempt.state.seed,
        state_version=attempt.state.version,
        before=batches.record_count(attempt.db, source.into),
        rows=staged.rows,
        counts=Counts(staged.inserted, staged.updated, deleted, refused, staged.unchanged),
        fields=[list(path) for path in staged.fields],
        deletes_withheld=staged.deletes_withheld,
        repeated=staged.repeated,
        replayed=accepted(attempt.db, attempt.override, staged),
    )


def _fingerprint(content: Content, staged: Staged) -> str:
    """What is compared next time; of JSON Lines also their number, when each is a record of its own."""
    if content.fingerprint is None:
        return ""
    grows = content.lines and staged.each_taken(content.lines)
    return (content.fingerprint.with_lines(content.lines) if grows else content.fingerprint).text()


def check_guards(batch: staging.Batch, source: Source, accept: str, override: Override | None = None) -> None:
    """Raise Refused when the batch needs somebody's word first."""
    ticket, refused = batch.ticket, len(batch.staged.refused)
    guard_input(ticket.rows, refused, source.guard, source=source.name, accept=accept, code=ticket.code)
    again = override.command(ticket.collection) if isinstance(override, Restored) else ""
    guard_deletes(
        ticket.counts.deleted,
        ticket.before,
        source.guard,
        source=source.name,
        accept=accept,
        code=ticket.code,
        again=again,
    )


def request_headers(workspace: Workspace, source: Source) -> dict[str, str] | None:
    """The headers that a source's block gives, None when it names none.

    Raises:
        ConfigError: The block doesn't exist or is no source block.
        RemoteUnavailable: The server that keeps the block doesn't answer.
    """
    if not source.block:
        return None
    return workspace.port(source_block(source.name), source.block).request_headers()


def _unchanged(attempt: Attempt, fingerprint: str) -> Ingested:
    """Keep the fingerprint of unchanged content for the next look, where it is another one."""
    if fingerprint != attempt.state.fingerprint:
        batches.touch(attempt.db, attempt.source.name, fingerprint)
    return Ingested(state_version=attempt.state.version, left_out=_newly_left_out(attempt, fingerprint))


def _ingested(attempt: Attempt, ticket: staging.Ticket) -> Ingested:
    return Ingested(
        batch=ticket.batch,
        counts=ticket.counts,
        state_version=ticket.state_version,
        rows=ticket.rows,
        deletes_withheld=ticket.deletes_withheld,
        left_out=_newly_left_out(attempt, ticket.fingerprint),
    )


def _newly_left_out(attempt: Attempt, fingerprint: str) -> list[str]:
    """What is not looked at now, and was so far."""
    before = left_out(attempt.state.fingerprint)
    return [text for text in left_out(fingerprint) if text not in before]


def _size(block: Block) -> int:
    return len(block.rows)
