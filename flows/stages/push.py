"""push: one atomic commit of the files that changed, on top of whatever the branch holds by then."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from autosync.errors import ConfigError, RemoteMoved
from autosync.policy import Counts
from autosync.ports import Commit, Head, Remote
from autosync.settings import Source
from autosync.shards import repo_layout
from blocks.git import GitRepository
from blocks.mirror import FORMAT
from blocks.store import ledger
from blocks.store.files import AllFiles, touched_files
from blocks.store.schema import Db
from flows.space import Space, now
from flows.stages.task import stage

ABSORB_TRIES = 5


class Pushed(msgspec.Struct, frozen=True, kw_only=True):
    """The commit of the newest changes; `sha` is empty when there was nothing to push."""

    sha: str = ""
    link: str = ""
    seq: int = 0


class Prefixed(Mapping[str, bytes | None]):
    """A collection's files below its folder, together with the manifest, without copying them."""

    def __init__(self, folder: str, files: Mapping[str, bytes | None], manifest: bytes) -> None:
        self.folder, self.files, self.manifest = folder, files, manifest

    def _each(self) -> Any:
        for path, data in self.files.items():
            yield f"{self.folder}/{path}", data
        yield f"{self.folder}/manifest.json", self.manifest

    def __iter__(self) -> Any:
        return (path for path, _ in self._each())

    def __len__(self) -> int:
        return len(self.files) + 1

    def __getitem__(self, path: str) -> bytes | None:
        return (
            self.manifest
            if path == f"{self.folder}/manifest.json"
            else self.files[path.removeprefix(f"{self.folder}/")]
        )

    def items(self) -> Any:
        """Pairs of path and bytes, rendered while they are iterated."""
        return self._each()


def open_remote(space: Space) -> Remote:
    """The repository that the settings name: a Prefect block, a Git address, or the bare one in the home folder.

    Raises:
        ConfigError: The block doesn't exist or is no repository.
    """
    push = space.settings.push
    if push.block:
        from blocks.catalog import load_block

        block = load_block(push.block)
        if not hasattr(block, "remote"):
            raise ConfigError(f"the block {push.block!r} is no repository", todo="name a repository block in [push]")
        remote: Remote = block.remote()
        return remote
    where = push.url or space.home.repository
    if isinstance(where, str) and "://" not in where and ":" not in where:
        where = space.base / where
    return GitRepository(where, branch=push.branch, cache=space.home.path / "repository-cache")


def push(space: Space, name: str, run: str, root: str) -> Pushed:
    """Commit what changed since the last push.

    Args:
        root: The collection's root hash at its newest seq, for the commit's trailer.

    Raises:
        RemoteUnavailable: It may work later; nothing was lost, the next run pushes it too.
        RemoteError: The repository refuses for good.
    """
    source = space.source(name)
    with space.database() as db:
        target = space.target(db, source)
        if target is None:
            return Pushed()
        newest, cursor = ledger.newest_seq(db, target.collection), ledger.cursor(db, "push", target.collection)
        if newest <= cursor.seq:
            return Pushed(seq=newest)
        remote = open_remote(space)
        sha = _commit(db, source, target.collection, remote, cursor, newest, run, root)
        info = {"sha": sha, "link": remote.link(sha), "layout": _layout(db, target.collection), "to": remote.address}
        ledger.advance(db, "push", target.collection, newest, now=now(), info=info)
    return Pushed(sha=sha, link=info["link"], seq=newest)


def _commit(
    db: Db, source: Source, collection: int, remote: Remote, cursor: ledger.Cursor, newest: int, run: str, root: str
) -> str:
    """Make the commit, or find the one that an earlier try made; a commit in between is absorbed."""
    for attempt in range(ABSORB_TRIES):
        head = remote.head()
        known = head is not None and head.sha == cursor.info.get("sha")
        if head is not None and not known and (done := _already_there(remote, head, source, newest, root)):
            return done
        try:
            commit = _render(db, source, collection, cursor, newest, run, root, remote)
            return remote.commit(commit, parent=head.sha if head else None)
        except RemoteMoved:
            if attempt == ABSORB_TRIES - 1:
                raise
    raise AssertionError("unreachable")


def _already_there(remote: Remote, head: Head, source: Source, newest: int, root: str) -> str | None:
    """The commit of an earlier try whose answer was lost: same seq, same root."""
    if head.trailers.get("AutoSync-Seq") == str(newest) and head.trailers.get("AutoSync-Root") == root:
        return head.sha
    found = remote.find("AutoSync-Seq", str(newest))
    if found is None:
        return None
    text = remote.read(f"{source.into}/manifest.json")
    there = msgspec.json.decode(text) if text else {}
    return found if there.get("root") == root and there.get("seq") == newest else None


def _layout(db: Db, collection: int) -> list[int | bool | None]:
    return list(repo_layout(_records(db, collection)))


def _records(db: Db, collection: int) -> int:
    return int(db.execute("SELECT records FROM collection WHERE collection = ?", [collection]).fetchone()[0])


def _render(
    db: Db, source: Source, collection: int, cursor: ledger.Cursor, newest: int, run: str, root: str, remote: Remote
) -> Commit:
    records, layout = _records(db, collection), _layout(db, collection)
    whole = not cursor.seq or cursor.info.get("layout") != layout or cursor.info.get("to") != remote.address
    files: Mapping[str, bytes | None] = (
        AllFiles(db, collection, records) if whole else touched_files(db, collection, records, cursor.seq, newest)
    )
    manifest = {
        "format": FORMAT,
        "collection": source.into,
        "key": source.keys,
        "seq": newest,
        "records": records,
        "root": root,
        "layout": layout,
    }
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
    counts = _counts(db, collection, cursor.seq, newest)
    return Commit(
        message=f"sync({source.name}): {counts}",
        trailers=(("AutoSync-Seq", str(newest)), ("AutoSync-Root", root), ("AutoSync-Run", run)),
        files=Prefixed(source.into, files, text),
        time=now(),
        replace=(source.into,) if whole else (),
    )


def _counts(db: Db, collection: int, after: int, upto: int) -> Counts:
    row = db.execute(
        "SELECT sum(inserted), sum(updated), sum(deleted) FROM batch "
        "WHERE collection = ? AND last_seq > ? AND last_seq <= ?",
        [collection, after, upto],
    ).fetchone()
    return Counts(*(value or 0 for value in row))


push_stage = stage("push", "Make one atomic commit of the changed files.")(push)
