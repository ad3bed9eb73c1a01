"""Errors, named by what the caller can do about them.

Every error says what happened, where, what was kept safe and what to do; `retryable`
says whether the same call may succeed later without anybody changing anything.
"""

from __future__ import annotations


class AutoSyncError(Exception):
    """Base of every error a user may see.

    Args:
        what: One sentence: what happened.
        where: File, line, pointer, record or stage, as far as known.
        kept: What was left untouched.
        todo: What the user can do about it.
        retry_after: Seconds that the other side asked to wait before the next try; None when it asked for nothing.
    """

    retryable = False
    outcome = "failed"

    def __init__(
        self, what: str, *, where: str = "", kept: str = "", todo: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(what)
        self.what, self.where, self.kept, self.todo, self.retry_after = what, where, kept, todo, retry_after

    def __str__(self) -> str:
        parts = [self.what]
        if self.where:
            parts.append(f"Where: {self.where}.")
        if self.kept:
            parts.append(f"Kept safe: {self.kept}.")
        if self.todo:
            parts.append(f"What to do: {self.todo}")
        return " ".join(part if part.endswith((".", "!", "?")) else part + "." for part in parts)


class ConfigError(AutoSyncError):
    """autosync.toml or an option is wrong; nothing was started."""


class SourceError(AutoSyncError):
    """The source can't be read as it is: not JSON, missing, wrong encoding."""


class SourceUnavailable(SourceError):
    """The source did not answer this time, or asked to wait."""

    retryable = True


class Refused(AutoSyncError):
    """A guard refused the batch. Nothing was written; an override can be given."""

    outcome = "refused"


class StoreError(AutoSyncError):
    """The database can't be written or read."""


class StoreBusy(StoreError):
    """Another writer holds the database."""

    retryable = True


class StaleLock(AutoSyncError):
    """A newer run holds this source; this one must stop writing."""


class LockTimeout(AutoSyncError):
    """The lock was not granted in time."""

    retryable = True


class MirrorDamaged(AutoSyncError):
    """Files of the mirror differ from what its manifest says."""


class RemoteError(AutoSyncError):
    """The repository, messenger, mail server or drive refused the call for good."""


class RemoteUnavailable(RemoteError):
    """The remote did not answer, or asked to wait."""

    retryable = True


class RemoteMoved(RemoteUnavailable):
    """Somebody else's commit came in between: read the branch again, then retry."""
