"""The source reader port: `look` at a source, then read it, or know that it is as it was.

A kind of source is one module with a Reader and a Fingerprint of its own, and a line in blocks/sources/registry.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol, Self, TypeVar

import msgspec

from autosync.change_detection import Block
from autosync.file_states import PartChanges, PartState
from autosync.settings import Source
from blocks.sources.own_folders import OwnFolder


class Fingerprint(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a cheap look at a source compares: each kind of source has a fingerprint type of its own.

    The store keeps it as JSON text, which later versions must be able to read.
    """

    def text(self) -> str:
        """The JSON that the store keeps."""
        return msgspec.json.encode(self).decode()

    def with_lines(self, lines: int) -> Self:  # noqa: ARG002  # for kinds that can grow
        """The same of JSON Lines in which each of so many lines is a record of its own; only some kinds tell."""
        return self


class _LeftOut(msgspec.Struct):
    left_out: list[str] = []


def left_out(fingerprint: str) -> list[str]:
    """What was not looked at, by a fingerprint of any kind as text."""
    return msgspec.json.decode(fingerprint, type=_LeftOut).left_out if fingerprint else []


AnyFingerprint = TypeVar("AnyFingerprint", bound=Fingerprint)


class Previous(NamedTuple):
    """What is remembered of the last input that was taken of a source.

    Attributes:
        fingerprint: As text; "" when the source must be read in any case.
        digest: Of the content; "" when no content counts as known.
        seed: Keys the hashes.
        files: Gives what the files of a folder were, by name.
    """

    fingerprint: str = ""
    digest: str = ""
    seed: int = 0
    files: Callable[[], Mapping[str, PartState]] = dict

    def as_kind(self, kind: type[AnyFingerprint]) -> AnyFingerprint | None:
        """The fingerprint; None when there is none, or a source of another kind left it."""
        try:
            return msgspec.json.decode(self.fingerprint, type=kind) if self.fingerprint else None
        except msgspec.DecodeError:
            return None


class Context(NamedTuple):
    """What surrounds a source.

    Attributes:
        base: Folder that a relative location starts from.
        scratch: Folder for what must be downloaded, made when it is needed; the caller deletes it.
        own: The folders that AutoSync writes to, which are no input.
        headers: Request headers for an address, such as Authorization.
    """

    base: Path
    scratch: Path
    own: Sequence[OwnFolder] = ()
    headers: Mapping[str, str] | None = None


class Known(Protocol):
    """What change detection knows of an input from last time, so that it needn't be read (`ChangeDetector`)."""

    def known(self, parts: Sequence[bytes], /) -> Sequence[bool]:
        """Take the packed row hashes of files whose content is as it was; for each whether it could, else read it."""
        ...

    def known_lines(self, lines: int, /) -> bool:
        """Take so many lines that stand before added ones; whether it could, else read them all."""
        ...


class NothingKnown:
    """Known of an input that must be read whole."""

    def known(self, parts: Sequence[bytes], /) -> Sequence[bool]:
        """None of the files."""
        return [False] * len(parts)

    def known_lines(self, _lines: int, /) -> bool:
        """None of the lines."""
        return False


class Unchanged(NamedTuple):
    """The source's content is as it was; its present fingerprint, to be kept for the next look."""

    fingerprint: Fingerprint


class Content(NamedTuple):
    """What a reading showed.

    Attributes:
        digest: Identifies the content.
        fingerprint: What the next look compares; None for what no look will compare.
        lines: Of JSON Lines that may grow, how many there are; else 0.
        files: How what is kept of a folder's files must change.
    """

    digest: str
    fingerprint: Fingerprint | None
    lines: int = 0
    files: PartChanges = PartChanges()


class Reading(ABC):
    """An input to read, once, from its begin to its end."""

    @abstractmethod
    def blocks(self, known: Known) -> Iterator[Block]:
        """Blocks of raw rows, in order, but for those that are known.

        Raises:
            SourceError: Not JSON, truncated, nothing at the pointer.
            SourceUnavailable: It changed while it was read.
        """

    @abstractmethod
    def content(self) -> Content:
        """What it showed, once all blocks were taken."""


class Reader(ABC):
    """One source of a kind.

    Attributes:
        local: Whether its location is a path of this machine, whose files the observer watches.
    """

    local: ClassVar[bool] = False

    def __init__(self, source: Source, context: Context) -> None:
        self.source, self.context = source, context

    @classmethod
    @abstractmethod
    def reads(cls, location: str, base: Path) -> bool:
        """Whether a location is of this kind."""

    @abstractmethod
    def look(self, previous: Previous) -> Unchanged | Reading:
        """Look whether the source changed, as cheaply as it can be told.

        Raises:
            SourceError, SourceUnavailable: It can't be read.
            ConfigError: It can't be a source: its location, or what it lies in.
        """
