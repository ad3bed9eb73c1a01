"""push: one atomic commit of the files that changed, on top of whatever the branch holds by then."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from autosync.block_settings import PUSH
from autosync.errors import RemoteMoved
from autosync.policy import Counts
from autosync.ports import Commit, FileChange, Head, Remote
from autosync.settings import Source
from autosync.shards import repo_layout
from blocks.mirror.files import FORMAT
from blocks.repository.git import GitRepository
from blocks.store import batches, history, ledger
from blocks.store.schema import Db
from blocks.store.shard_files import all_files, touched_files
from flows.workspace import Workspace, now

ABSORB_TRIES = 5


class Pushed(msgspec.Struct, frozen=True, kw_only=True):
    """The commit of the newest changes; `sha` is empty when there was nothing to push."""

    sha: str = ""
    link: str = ""
    seq: int = 0


def open_remote(workspace: Workspace) -> Remote:
    """The repository that the settings name: a Prefect block, a Git address, or the bare one in the home folder.

    Raises:
        ConfigError: The block doesn't exist or is no repository.
        RemoteUnavailable: The server that keeps the block doesn't answer.
    """
    push = workspace.settings.push
    if push.block:
        return workspace.port(PUSH, push.block)
    where = push.url or workspace.home.repository
    if isinstance(where, str) and "://" not in where and ":" not in where:
        where = workspace.base / where
    cache = workspace.home.path / "repository-cache"
    return GitRepository(where, branch=push.branch, cache=cache, private=push.url is None)


@dataclass(frozen=True)
class Job:
    """What is to be pushed: the changes of a collection after the cursor, up to `newest`."""

    db: Db
    source: Source
    collection: int
    cursor: ledger.Cursor
    newest: int
    run: str
    root: str

    @property
    def records(self) -> int:
        """The collection's live records."""
        return batches.record_count(self.db, self.source.into)

    @property
    def layout(self) -> list[int | bool | None]:
        """How the collection is cut into files now."""
        return list(repo_layout(self.records))

    def counts(self) -> Counts:
        """What the changes are, together."""
        return history.counts(self.db, self.collection, self.cursor.seq, self.newest)


def push(workspace: Workspace, name: str, run: str, root: str) -> Pushed:
    """Commit what changed since the last push.

    Args:
        root: The collection's root hash at its newest seq, for the commit's trailer.

    Raises:
        RemoteUnavailable: It may work later; nothing was lost, the next run pushes it too.
        RemoteError: The repository refuses for good.
    """
    source = workspace.source(name)
    with workspace.database() as db:
        target = workspace.target(db, source)
        if target is None:
            return Pushed()
        newest, cursor = ledger.newest_seq(db, target.collection), ledger.cursor(db, "push", target.collection)
        if newest <= cursor.seq:
            return Pushed(seq=newest)
        remote, job = open_remote(workspace), Job(db, source, target.collection, cursor, newest, run, root)
        sha = commit_changes(job, remote)
        link = remote.link(sha)
        info = {"sha": sha, "link": link, "layout": job.layout, "to": remote.address}
        ledger.advance(db, "push", target.collection, newest, now=now(), info=info)
    return Pushed(sha=sha, link=link, seq=newest)


def commit_changes(job: Job, remote: Remote) -> str:
    """Make the commit, or find the one that an earlier try made; a commit in between is absorbed."""
    for attempt in range(ABSORB_TRIES):
        head = remote.head()
        there = _manifest(job, remote) if head and head.sha != job.cursor.info.get("sha") else None
        if head and there and (there.get("seq"), there.get("root")) == (job.newest, job.root):
            return remote.find("AutoSync-Seq", str(job.newest)) or head.sha
        try:
            return remote.commit(_render(job, remote, head, there), parent=head.sha if head else None)
        except RemoteMoved:
            if attempt == ABSORB_TRIES - 1:
                raise
    raise AssertionError("unreachable")


def _manifest(job: Job, remote: Remote) -> dict[str, Any]:
    """The collection's manifest on the branch; {} when there is none that can be read."""
    try:
        found = msgspec.json.decode(remote.read(f"{job.source.into}/manifest.json") or b"{}")
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _render(job: Job, remote: Remote, head: Head | None, there: dict[str, Any] | None) -> Commit:
    """The commit: the touched files, or all of them when the branch is not where the cursor left it."""
    info, records, layout = job.cursor.info, job.records, job.layout
    moved = head is None or (there is not None and there.get("seq") != job.cursor.seq)
    whole = moved or not job.cursor.seq or info.get("layout") != layout or info.get("to") != remote.address
    files: Iterable[FileChange] = (
        all_files(job.db, job.collection, records)
        if whole
        else touched_files(job.db, job.collection, records, job.cursor.seq, job.newest)
    )
    manifest = {
        "format": FORMAT,
        "collection": job.source.into,
        "key": job.source.keys,
        "seq": job.newest,
        "records": records,
        "root": job.root,
        "layout": layout,
    }
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
    time = ledger.newest_time(job.db, job.collection)
    return Commit(
        message=f"sync({job.source.name}): {job.counts()}",
        trailers=(
            ("AutoSync-Seq", str(job.newest)),
            ("AutoSync-Time", repr(time)),  # exact; a commit's own time is in whole seconds
            ("AutoSync-Root", job.root),
            ("AutoSync-Run", job.run),
        ),
        files=_below(job.source.into, files, text),
        time=time,
        replace=(job.source.into,) if whole else (),
    )


def _below(folder: str, files: Iterable[FileChange], manifest: bytes) -> Iterator[FileChange]:
    """A collection's files below its folder, and the manifest."""
    for path, data in files:
        yield f"{folder}/{path}", data
    yield f"{folder}/manifest.json", manifest
