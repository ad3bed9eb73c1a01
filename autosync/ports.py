"""What a consumer needs from the outside, as Protocols that the blocks fulfil.

Each port has one contract test-suite in tests/contract that every implementation passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

Level = Literal["info", "warning", "error"]
FileChange = tuple[str, bytes | None]
"""A path in a repository and the file's new bytes, or None to delete it."""


@dataclass(frozen=True)
class Commit:
    """One commit to make: the files that change and what it says.

    Attributes:
        message: Subject and body without trailers.
        trailers: Git trailers (`AutoSync-Seq` ...), in order.
        files: The changes, each path once, deletions first: a deleted file's name may be a written one's folder. They
            are read once, while they are sent, so that files which are rendered on the way need no memory.
        time: Unix seconds, UTC, of the newest change that it holds.
        replace: Folders whose files not named in `files` are deleted (a full rewrite).
    """

    message: str
    trailers: tuple[tuple[str, str], ...]
    files: Iterable[FileChange]
    time: float
    replace: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The whole commit message, trailers included."""
        lines = "\n".join(f"{name}: {value}" for name, value in self.trailers)
        return f"{self.message}\n\n{lines}\n" if lines else f"{self.message}\n"


@dataclass(frozen=True)
class Head:
    """A commit of a branch: its sha, message, trailers and time (Unix seconds)."""

    sha: str
    message: str
    trailers: Mapping[str, str] = field(default_factory=dict)
    time: float = 0.0


class Remote(Protocol):
    """A Git repository that takes one atomic commit at a time."""

    @property
    def address(self) -> str:
        """Where people find it, without credentials."""
        ...

    def head(self) -> Head | None:
        """The branch's newest commit, or None when the branch doesn't exist yet."""
        ...

    def find(self, trailer: str, value: str) -> str | None:
        """The sha of the newest commit on the branch (among the last 100) that carries this trailer line."""
        ...

    def commit(self, commit: Commit, *, parent: str | None) -> str:
        """Make one commit on top of `parent` and move the branch to it, or nothing at all.

        Returns the new sha. Raises RemoteMoved when the branch no longer stands at `parent`,
        RemoteUnavailable when it may work later, RemoteError when it never will.
        """
        ...

    def read(self, path: str) -> bytes | None:
        """A file at the branch's head, or None."""
        ...

    def files(self, under: str, at: str = "") -> Iterator[tuple[str, bytes]]:
        """Every file below a folder at the branch's head, or at a commit, as (path, bytes), in path order."""
        ...

    def history(self, path: str) -> Iterator[Head]:
        """The branch's commits that changed a path, newest first; none when it never existed."""
        ...

    def link(self, sha: str) -> str:
        """An address that shows the commit to a person."""
        ...


@dataclass(frozen=True)
class Notice:
    """Something to tell people.

    Attributes:
        key: Identifies the notice; the same key is never delivered twice.
        title: One line.
        text: A few lines of plain text.
        level: How bad it is.
        facts: Short label -> value pairs shown beside the text.
        link: Where to read on.
    """

    key: str
    title: str
    text: str
    level: Level = "info"
    facts: tuple[tuple[str, str], ...] = ()
    link: str = ""


class Notifier(Protocol):
    """Delivers notices to people."""

    @property
    def name(self) -> str: ...

    def send(self, notice: Notice) -> None:
        """Deliver it, or raise RemoteUnavailable / RemoteError."""
        ...

    def check(self) -> None:
        """Prove that the service answers and accepts our credentials without telling anybody anything."""
        ...


class Mailer(Notifier, Protocol):
    """A notifier that also mails texts with files."""

    def send_message(
        self,
        subject: str,
        text: str,
        html: str | None = None,
        attachments: Iterable[tuple[str, bytes]] = (),
        *,
        key: str = "",
    ) -> None:
        """Mail a text, with its HTML form and attached files (name, bytes), or raise as `send` does."""
        ...


class Headers(Protocol):
    """The headers that a request to a source carries."""

    def request_headers(self) -> dict[str, str]:
        """The headers in plain text, for the request only."""
        ...


@dataclass(frozen=True)
class Stored:
    """One file that a backup target keeps.

    Attributes:
        size: In bytes.
        sha256: Hex; "" when it isn't known.
        time: Unix seconds.
        home: The id of the home that put it, as its manifest says; "" without a manifest that names it.
    """

    name: str
    size: int
    sha256: str
    time: float
    home: str = ""


class BackupTarget(Protocol):
    """Keeps backup files, each with a manifest that names the home that put it. Others' files may lie beside them."""

    @property
    def address(self) -> str: ...

    def put(self, path: Path, name: str, home: str) -> Stored:
        """Upload a file under a name, resumable, and prove by checksum that it arrived.

        Replaces whole an older one that this home put, and never a file that it didn't.
        """
        ...

    def get(self, name: str, path: Path, home: str = "") -> None:
        """Download to `path`; the file appears only when its checksum is right.

        Args:
            home: Only what this home put; "" for whoever's.
        """
        ...

    def list(self) -> Iterable[Stored]:
        """What lies there, newest first."""
        ...

    def verify(self, name: str, home: str) -> bool:
        """Whether this home put it, and the bytes that lie there have the checksum they were put with."""
        ...

    def delete(self, name: str, home: str) -> None:
        """Remove what this home put. What isn't there is no error; RemoteError for what this home didn't put."""
        ...


class PointInTime(NamedTuple):
    """A state of a collection that a copy has.

    Attributes:
        seq: Of the last change that is in it.
        time: When it was stored (Unix seconds); -inf for that before the first change.
        root: Its root, where the copy noted it; else "".
        records: How many it holds, where the copy noted it.
        commit: The sha of the commit that holds it, where the copy is a repository.
    """

    seq: int
    time: float
    root: str = ""
    records: int | None = None
    commit: str = ""


class Replaced(NamedTuple):
    """What the step that follows a point replaced: enough to turn the state after it back.

    Attributes:
        point: The state before the step.
        rows: id -> canonical line at the point, None for a record that was not there.
        proven: Whether the rows were proven already; else the point's root proves what they lead to.
    """

    point: PointInTime
    rows: Mapping[str, bytes | None]
    proven: bool


class Proof(NamedTuple):
    """What a copy really holds: root and number of records, recomputed from its rows, and the seq that it says."""

    root: str
    records: int
    seq: int | None


class Copy(Protocol):
    """One of a collection's copies: store, mirror or repository."""

    @property
    def key(self) -> list[str]:
        """The JSON pointers of the collection's key at the newest point; errors as of `at`."""
        ...

    def points(self) -> Iterator[PointInTime]:
        """Every point in time that it has, newest first; none while there is no such collection."""
        ...

    def at(self, moment: int | float | None) -> PointInTime:
        """The newest point that is not after a seq (int) or a time (Unix seconds, float); the newest of all when None.

        A copy that knows of every change names the seq that was asked for where the state didn't change since.

        Raises:
            ConfigError: There is no such collection, or it doesn't reach back so far.
            MirrorDamaged, RemoteError: The copy can't be read.
        """
        ...

    def rows(self, point: PointInTime) -> Iterator[tuple[str, bytes]]:
        """(id, canonical line) at a point in key order; by its root, if noted, they are proven as the last is taken.

        Raises:
            MirrorDamaged, RemoteError: The copy can't be read, or is not what it was.
        """
        ...

    def replaced(self) -> Iterator[Replaced]:
        """What each step replaced, newest first, as far as it is kept step by step; none where states are kept whole.

        Raises:
            ConfigError: There is no such collection.
            MirrorDamaged: There is no mirror, or steps that should lead further back are missing or damaged.
        """
        ...

    def prove(self, point: PointInTime | None = None) -> Proof | None:
        """Recompute the root at a point; of what lies there now, whoever wrote it, when None.

        Returns:
            None, or the proof of no records, while there is no such collection.

        Raises:
            MirrorDamaged, RemoteError: The copy can't be read; of a point, also as of `rows`.
        """
        ...
