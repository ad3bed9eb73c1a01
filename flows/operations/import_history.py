"""import-git without Prefect: the history of a JSON file in a Git repository becomes a collection's change log."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from autosync.errors import ConfigError
from autosync.records import Pointer
from autosync.settings import Source, check_collection
from blocks.repository.git_history import VersionRows, open_history
from blocks.store import ledger
from blocks.store.importing import Version, import_versions
from blocks.store.schema import Db
from flows.progress import progress
from flows.workspace import Workspace, now


def imported_source(
    workspace: Workspace, path: str, key: Sequence[str], records: str = "", collection: str = ""
) -> tuple[Source, bool]:
    """The file as a source, and whether the configuration has a source that feeds its collection.

    Args:
        path: The file; its name without the ending is the collection's when that is empty.

    Raises:
        ConfigError: A name that no collection can have, no key, or another key than that source has.
    """
    name = collection or Path(path).stem
    check_collection(name, "--collection")
    if not key or any(not Pointer(text).tokens for text in key):
        raise ConfigError("a record's key is needed", todo="name it as in --key /id, once for each of its parts")
    configured = workspace.settings.source if workspace.config.exists() else []
    feeding = next((source for source in configured if source.into == name), None)
    if feeding and [Pointer(text).tokens for text in feeding.keys] != [Pointer(text).tokens for text in key]:
        raise ConfigError(
            f"the source {feeding.name!r}, which feeds {name!r}, has the key {feeding.keys}, not {list(key)}",
            where=str(workspace.config),
            todo="give the same key, or another name with --collection NAME",
        )
    source = Source(
        name=feeding.name if feeding else name, location=path, key=list(key), collection=name, records=records
    )
    return source, feeding is not None


def import_history(
    workspace: Workspace, source: Source, fed: bool, repository: str, branch: str = "", *, token: int | None = None
) -> dict[str, Any]:
    """Write the history of a file to the store, all of it or nothing.

    Args:
        source, fed: From `imported_source`.
        repository: A folder, or an address that git clones from.
        branch: A branch, tag or commit; HEAD when empty.
        token: The fencing token of the place `source NAME`. When None, the place is taken by a token alone: a run of
            the source that is under way can no longer write; it says so, and the next one goes on.

    Returns:
        repository, path, collection, head, and what `Imported` has.

    Raises:
        ConfigError: No repository, branch or file of that name; the collection has changes already.
        SourceError: No version can be read.
        RemoteError: git failed.
        StaleLock: A run of the source began meanwhile.
    """
    fed_by = source.name if fed else None
    with (
        open_history(repository, source.location, branch) as history,
        _scratch(workspace) as scratch,
        workspace.database() as db,
        _place(db, f"source {source.name}", token) as holding,
    ):
        seed = secrets.randbits(62)
        rows = VersionRows(history, source.records, scratch, seed)
        versions = (
            Version(found.sha, found.time, rows.blocks(found))
            for found in progress(f"import {source.into}", history.versions(), size=lambda _: 1)
        )
        done = import_versions(db, source, versions, fed_by=fed_by, token=holding, seed=seed, now=now())
    known = {"repository": history.address, "path": history.path, "collection": source.into, "head": history.head}
    return known | msgspec.structs.asdict(done)


@contextmanager
def _scratch(workspace: Workspace) -> Iterator[Path]:
    workspace.home.staging.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="import-", dir=workspace.home.staging) as folder:
        yield Path(folder)


@contextmanager
def _place(db: Db, place: str, token: int | None) -> Iterator[int]:
    if token is not None:
        yield token
        return
    token = ledger.grant(db, place, "import-git", now=now())
    try:
        yield token
    finally:
        ledger.release(db, place, token, now=now())
