"""A Git tree that is sent to GitHub while its files are still being rendered, in requests of at most 2 MB."""

from __future__ import annotations

import json

from autosync.errors import RemoteError
from blocks.repository.git import KEPT
from blocks.repository.github_api import Entry, GitHubApi, GitHubRefused, blob_sha

REQUEST_BYTES = 2_000_000  # GitHub fails somewhat above 2.5 MB
INLINE_BYTES = 1_000_000
BLOB_BYTES = 40_000_000


class TreeWriter:
    """Takes the changes of one commit, deletions first, each once; every request builds on the tree of the one before.

    A deletion and a file that needs the deleted name (as its own folder's, or the other way round) contradict each
    other in one request, so the deletion goes into an earlier one.

    Args:
        base: The tree to change; None for a new one.
        replaced: Path -> blob sha of the files in folders that are written anew: of these, files that come out equal
            are not sent, and those that no change names are deleted.
    """

    def __init__(self, api: GitHubApi, base: str | None, replaced: dict[str, str]) -> None:
        self._api, self._tree, self._new = api, base, base is None
        self._unnamed = dict(replaced)
        self._folders = {folder for path in replaced for folder in _folders(path)}
        self._entries, self._size = list[Entry](), 0
        self._deleted, self._emptied = set[str](), set[str]()

    def change(self, path: str, data: bytes | None) -> None:
        """Write a file, or delete it (None)."""
        sha = self._unnamed.pop(path, None)
        if data is None:
            if not self._new:
                self._delete(path)
        elif sha is None or sha != blob_sha(data):
            self._make_way(path)
            entry, size = self._entry(path, data)
            self._add(entry, size)

    def finish(self) -> str:
        """The sha of the whole tree."""
        for path in self._unnamed:
            self._delete(path)
        if self._entries or self._tree is None:
            self._tree = self._send()
        return self._tree

    def _make_way(self, path: str) -> None:
        """Delete, in an earlier request, the files that a file of this name can't stand beside."""
        folders = _folders(path)
        blocking = [folder for folder in folders if folder in self._unnamed]
        if path in self._folders:
            blocking += [below for below in self._unnamed if below.startswith(f"{path}/")]
        for file in blocking:
            del self._unnamed[file]
            self._delete(file)
        if path in self._emptied or not self._deleted.isdisjoint(folders):
            self._tree = self._send()

    def _delete(self, path: str) -> None:
        self._add({"path": path, "mode": "100644", "type": "blob", "sha": None}, _cost(path))
        self._deleted.add(path)
        self._emptied.update(_folders(path))

    def _add(self, entry: Entry, size: int) -> None:
        if self._entries and self._size + size > REQUEST_BYTES:
            self._tree = self._send()
        self._entries.append(entry)
        self._size += size

    def _send(self) -> str:
        """Post what waits; of deletions, GitHub refuses those of what isn't there."""
        entries, self._entries, self._size = self._entries, [], 0
        deleted, self._deleted, self._emptied = self._deleted, set(), set()
        try:
            return self._api.create_tree(entries, self._tree)
        except GitHubRefused as error:
            if error.status != 422 or not deleted or self._tree is None:
                raise
            missing = deleted - self._api.listing(self._tree, "").keys()
            left = [entry for entry in entries if entry["path"] not in missing]
            return self._api.create_tree(left, self._tree) if left else self._tree

    def _entry(self, path: str, data: bytes) -> tuple[Entry, int]:
        """One entry and about how many bytes of a request it takes; what is large or no text goes as a blob first."""
        if len(data) > BLOB_BYTES:
            raise RemoteError(
                f"{path} has {len(data):,} bytes; GitHub takes {BLOB_BYTES:,}", kept=KEPT, todo="split it"
            )
        entry: Entry = {"path": path, "mode": "100644", "type": "blob"}
        text = _text(data) if len(data) <= INLINE_BYTES else None
        size = len(json.dumps(text)) + _cost(path) if text is not None else 0
        if text is None or size > REQUEST_BYTES:
            return {**entry, "sha": self._api.create_blob(data)}, _cost(path)
        return {**entry, "content": text}, size


def _cost(path: str) -> int:
    return len(json.dumps(path)) + 120


def _folders(path: str) -> list[str]:
    """The folders that a path lies in, outermost first."""
    return [path[:end] for end, sign in enumerate(path) if sign == "/"]


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
