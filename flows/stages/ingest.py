"""ingest: look, read, sift, check; the changed rows are staged as a batch, the bad ones go to quarantine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from uuid import uuid4

import msgspec

from autosync.block_settings import source_block
from autosync.change_detection import Block, Sifter, Staged
from autosync.policy import Counts, guard_deletes, guard_input
from autosync.row_hashes import Seen, rules_version
from autosync.settings import Source
from blocks.sources.files import Fingerprint, left_out
from blocks.sources.parser_process import ProcessParser
from blocks.sources.reading import Input, Known, open_source
from blocks.store import batches, ledger
from blocks.store import file_states as parts
from blocks.store import row_hashes as hashes
from blocks.store import staged_batch as staging
from blocks.store.schema import Db
from flows.progress import progress
from flows.stages.overrides import Instead, Restored, accepted, open_instead
from flows.stages.quality import VALIDATOR, check_dataset
from flows.tasks import stage
from flows.workspace import Space, now


class Ingested(msgspec.Struct, frozen=True, kw_only=True):
    """What ingest found; `batch` is empty when the source is as it was, `left_out` what it passes over from now on."""

    batch: str = ""
    counts: Counts = Counts()
    state_version: int = 0
    rows: int = 0
    deletes_withheld: bool = False
    left_out: list[str] = []


def ingest(space: Space, name: str, run: str, accept: str = "", instead: Instead | None = None) -> Ingested:
    """Stage what changed in a source.

    Args:
        accept: The code of an input that may pass a guard.
        instead: What to take instead of the source.

    Raises:
        SourceError: The source can't be read or isn't JSON; nothing was changed.
        Refused: It came back empty, mostly broken, or deletes too much.
    """
    source = space.source(name)
    folder = space.home.staging / f"{now():.0f}-{uuid4().hex[:12]}"
    staging.discard_stale(space.home.staging, now() - 86_400)
    with space.database() as db, ExitStack() as unless_staged:
        unless_staged.callback(staging.discard, folder)
        before = left_out(batches.state(db, source.name).fingerprint)
        found = examine(space, db, source, folder, instead, accept)
        now_left_out = left_out(found if isinstance(found, str) else found[0].fingerprint)
        new = [text for text in now_left_out if text not in before]
        if isinstance(found, str):
            batches.touch(db, source.name, found) if found else None
            return Ingested(state_version=batches.state(db, source.name).version, left_out=new)
        ticket, staged = found
        ledger.quarantine(
            db, source.name, run, staged.refused, now=now(), whole=instead is None and source.mode == "snapshot"
        )
        check_guards(ticket, len(staged.refused), source, accept, instead)
        staging.save(folder, ticket, staged)
        unless_staged.pop_all()
    return Ingested(
        batch=ticket.batch,
        counts=ticket.counts,
        state_version=ticket.state_version,
        rows=ticket.rows,
        deletes_withheld=ticket.deletes_withheld,
        left_out=new,
    )


def check_guards(
    ticket: staging.Ticket, refused: int, source: Source, accept: str, instead: Instead | None = None
) -> None:
    """Raise Refused when the batch needs somebody's word first."""
    counts, code = ticket.counts, ticket.code
    guard_input(ticket.rows, refused, source.guard, source=source.name, accept=accept, code=code)
    again = instead.command(ticket.collection) if isinstance(instead, Restored) else ""
    guard_deletes(
        counts.deleted, ticket.before, source.guard, source=source.name, accept=accept, code=code, again=again
    )


def examine(
    space: Space,
    db: Db,
    source: Source,
    folder: Path,
    instead: Instead | None = None,
    accept: str = "",
    docs: Path | None = None,
) -> str | tuple[staging.Ticket, Staged]:
    """Read and sift a source into a folder; the fingerprint as text when nothing changed ("" for the kept one).

    Args:
        docs: Folder for the Data Docs of dataset checks; the home's when None.
    """
    state = batches.state(db, source.name)
    rules = rules_version(source)
    known = state.rules == rules
    previous: Fingerprint | None = msgspec.json.decode(state.fingerprint) if known and state.fingerprint else None
    collection = batches.collection_id(db, source.into)
    writer, parser = staging.Stage(folder), None
    try:
        if instead is None:
            before = partial(parts.kept, db, source.name) if known else dict
            opened = open_source(
                source,
                space.base,
                folder,
                previous,
                state.digest,
                state.seed,
                request_headers(space, source),
                before,
                space.own,
            )
            if not isinstance(opened, Input):
                return "" if opened == previous else msgspec.json.encode(opened).decode()
            blocks: Callable[[Known], Iterator[Block]] = opened.blocks
            digest, origin = "", "source"
        else:
            opened = None
            source, blocks, digest, origin = open_instead(space, db, source, instead)
        seen = hashes.kept(db, source.name, state.seed) if known and opened is not None else Seen([], state.seed)
        parser = ProcessParser(source, folder)
        sifter = Sifter(source, seen, partial(batches.lookup, db, collection), writer, parser)
        lines = _sift(sifter, opened, blocks)
        if opened is not None:
            digest = opened.digest
            if previous is not None and digest == state.digest:
                return msgspec.json.encode(opened.fingerprint).decode()  # files that were only touched
            staging.save_parts(folder, opened.changes())
        staged = sifter.finish(
            writer.read,
            partial(batches.live, db, collection),
            batches.record_count(db, source.into),
            partial(batches.holders, db, collection),
        )
    finally:
        writer.close()
        if parser is not None:
            parser.close()
    validator = space.home.path / VALIDATOR if docs is None else docs / VALIDATOR
    staged = check_dataset(
        source, folder, staged, validator, docs or space.home.quality / source.name, accepted=accept == digest[:8]
    )
    fingerprint = _fingerprint(opened, staged, lines) if opened is not None else ""
    ticket = _ticket(db, source, state, staged, folder, rules, fingerprint, digest, origin)
    return msgspec.structs.replace(ticket, replayed=accepted(db, instead, staged)), staged


def _sift(sifter: Sifter, opened: Input | None, blocks: Callable[[Known], Iterator[Block]]) -> int:
    """Give the sifter all rows, of a file that has grown only the added ones; how many lines that makes."""
    if opened is not None and opened.grown is not None and sifter.known_lines(opened.grown.lines):
        unread, lines = opened.added(), opened.grown.lines
    else:
        unread, lines = blocks(sifter.known), 0
    for block in progress(f"ingest {sifter.source.name}", unread, size=_size):
        sifter.block(block)
        lines += len(block.rows)
    return lines


def _fingerprint(opened: Input, staged: Staged, lines: int) -> str:
    """What is compared next time; of JSON Lines also their number, when each is a record of its own."""
    grows = opened.is_lines and staged.each_taken(lines)
    return msgspec.json.encode(opened.fingerprint | ({"lines": lines} if grows else {})).decode()


def _ticket(
    db: Db,
    source: Source,
    state: batches.SourceState,
    staged: Staged,
    folder: Path,
    rules: str,
    fingerprint: str,
    digest: str,
    origin: str,
) -> staging.Ticket:
    return staging.Ticket(
        batch=folder.name,
        source=source.name,
        collection=source.into,
        key=source.keys,
        mode=source.mode,
        origin=origin,
        code=digest[:8],
        rules=rules,
        fingerprint=fingerprint,
        digest=digest,
        seed=state.seed,
        state_version=state.version,
        before=batches.record_count(db, source.into),
        rows=staged.rows,
        counts=Counts(staged.inserted, staged.updated, len(staged.deletes), len(staged.refused), staged.unchanged),
        fields=[list(path) for path in staged.fields],
        deletes_withheld=staged.deletes_withheld,
        repeated=staged.repeated,
    )


def request_headers(space: Space, source: Source) -> dict[str, str] | None:
    """The headers that a source's block gives, None when it names none.

    Raises:
        ConfigError: The block doesn't exist or is no source block.
        RemoteUnavailable: The server that keeps the block doesn't answer.
    """
    if not source.block:
        return None
    return space.port(source_block(source.name), source.block).request_headers()


def _size(block: Block) -> int:
    return len(block.rows)


ingest_stage = stage("ingest", "Look at the source, read and check what changed, stage it as a batch.")(ingest)
