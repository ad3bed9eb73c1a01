"""The copies of a collection by the words of the command line: store, mirror, repo."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Literal

from autosync.errors import ConfigError
from autosync.ports import Copy
from autosync.suggestions import choose_from
from blocks.mirror.copy import MirrorCopy
from blocks.mirror.files import MANIFEST
from blocks.repository.copy import RepositoryCopy
from blocks.store import history
from blocks.store.copy import StoreCopy
from blocks.store.schema import Db
from flows.operations.push import open_remote
from flows.workspace import Workspace

CopyName = Literal["store", "mirror", "repo"]
STORE: CopyName = "store"
MIRROR: CopyName = "mirror"


@dataclass(frozen=True)
class CopyKind:
    """A kind of copy.

    Attributes:
        label: What people call it.
        open: A collection there, which need not exist; a store that is open already spares opening another.
        collections: The names of all collections there.
        older_states: What to tell of states that a rebuild from it doesn't bring back.
    """

    label: str
    open: Callable[[Workspace, str, Db | None], Copy]
    collections: Callable[[Workspace], set[str]]
    older_states: str = ""


def _open_store(workspace: Workspace, collection: str, db: Db | None) -> Copy:
    if db is None:
        return StoreCopy(partial(workspace.database, read_only=True), collection)
    already: AbstractContextManager[Db] = nullcontext(db)
    return StoreCopy(lambda: already, collection)


def _in_store(workspace: Workspace) -> set[str]:
    with workspace.database(read_only=True) as db:
        return {row["name"] for row in history.collections(db)}


def _open_mirror(workspace: Workspace, collection: str, _db: Db | None) -> Copy:
    return MirrorCopy(workspace.home.mirror / collection)


def _in_mirror(workspace: Workspace) -> set[str]:
    return {path.parent.name for path in workspace.home.mirror.glob(f"*/{MANIFEST}")}


def _open_repository(workspace: Workspace, collection: str, _db: Db | None) -> Copy:
    return RepositoryCopy(open_remote(workspace), collection, [source.into for source in workspace.settings.source])


def _in_repository(workspace: Workspace) -> set[str]:
    paths = (path for path, _ in open_remote(workspace).files(""))
    return {path.split("/")[0] for path in paths if path.count("/") == 1 and path.endswith(f"/{MANIFEST}")}


COPIES: dict[CopyName, CopyKind] = {
    STORE: CopyKind("store", _open_store, _in_store),
    MIRROR: CopyKind("mirror", _open_mirror, _in_mirror),
    "repo": CopyKind(
        "repository",
        _open_repository,
        _in_repository,
        older_states="The changes before the newest commit are in the repository's history.",
    ),
}
OTHERS = tuple(name for name in COPIES if name != STORE)


def parse_copy(text: str, purpose: str = "restore", names: Iterable[CopyName] = tuple(COPIES)) -> CopyName:
    """`--from`: one of some copies' names; ConfigError when it is none."""
    for name in names:
        if name == text:
            return name
    raise ConfigError(f"{text!r} is no copy to {purpose} from", todo=choose_from(text, names))


def open_copy(workspace: Workspace, name: CopyName, collection: str, db: Db | None = None) -> Copy:
    """A collection in one of its copies.

    Args:
        db: The store if it is open; a copy that needs it opens it for reading otherwise.
    """
    return COPIES[name].open(workspace, collection, db)
