"""notify: deliver what the outbox holds, each notice once: Slack, else email, else the console."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from autosync.block_settings import EMAIL, SLACK
from autosync.errors import AutoSyncError, ConfigError, RemoteUnavailable
from autosync.ports import Mailer, Notice, Notifier
from blocks.notify.console import ConsoleNotifier
from blocks.store import ledger
from flows.workspace import Workspace, now

LONGEST_NOTICE_WAIT = 60.0
"""Seconds that a run, whose work is done, waits for a messenger that asks for it; the next run delivers, too."""


class Notified(msgspec.Struct, frozen=True, kw_only=True):
    """Notices delivered, and those that stay in the outbox."""

    delivered: int = 0
    waiting: int = 0


class Channels(NamedTuple):
    """The notifiers that the settings name, in order, and the errors of those that can't be opened."""

    open: list[Notifier]
    errors: list[AutoSyncError]

    @property
    def retryable(self) -> bool:
        """Whether one that can't be opened now may be later without anybody changing anything."""
        return any(error.retryable for error in self.errors)


def open_slack(workspace: Workspace) -> Notifier | None:
    """The notifier of [notify] slack; None when none is set."""
    name = workspace.settings.notify.slack
    return workspace.port(SLACK, name) if name else None


def open_email(workspace: Workspace) -> Mailer | None:
    """The notifier of [notify] email; None when none is set."""
    name = workspace.settings.notify.email
    return workspace.port(EMAIL, name) if name else None


def open_channels(workspace: Workspace) -> Channels:
    """The channels that the settings name, in order; the console when none is set."""
    channels = Channels([], [])
    for open_channel in (open_slack, open_email):
        try:
            if notifier := open_channel(workspace):
                channels.open.append(notifier)
        except AutoSyncError as error:
            channels.errors.append(error)
    return channels if channels.open or channels.errors else Channels([ConsoleNotifier()], [])


def deliver(notice: Notice, channels: list[Notifier]) -> tuple[str, dict[str, AutoSyncError]]:
    """Try the channels in order.

    Returns:
        The channel that took the notice ("" for none), and the errors of the others.
    """
    errors: dict[str, AutoSyncError] = {}
    for channel in channels:
        try:
            channel.send(notice)
            return channel.name, errors
        except AutoSyncError as error:
            errors[channel.name] = error
    return "", errors


def undelivered(notice: Notice, channels: Channels, errors: dict[str, AutoSyncError]) -> AutoSyncError:
    """The error for a notice that no channel took; it asks for the longest wait that one of them asked for."""
    error = RemoteUnavailable if channels.open or channels.retryable else ConfigError
    waits = [error.retry_after for error in errors.values() if error.retry_after is not None]
    return error(
        f"no channel took the notice {notice.title!r}: {_reasons(channels, errors)}",
        where="notify",
        kept="the notice stays in the outbox; the sync itself is complete",
        todo="see: autosync health; it is sent with the next run",
        retry_after=max(waits, default=None),
    )


def _reasons(channels: Channels, errors: dict[str, AutoSyncError]) -> str:
    closed = [str(error) for error in channels.errors]
    return "; ".join([*closed, *(f"{name}: {error.what}" for name, error in errors.items())])


def notify(workspace: Workspace) -> Notified:
    """Deliver waiting notices, oldest first.

    Raises:
        ConfigError: No channel can be opened as the settings name it; the notices stay in the outbox.
        RemoteUnavailable: No channel took one; it stays in the outbox and is tried again.
    """
    count, channels = 0, Channels([], [])
    with workspace.database() as db:
        while claimed := ledger.claim(db, now=now()):
            number, notice = claimed
            channels = channels if channels.open else open_channels(workspace)
            channel, errors = deliver(notice, channels.open)
            if not channel:
                error = undelivered(notice, channels, errors)
                ledger.undelivered(db, number, _reasons(channels, errors))
                raise error
            ledger.delivered(db, number, channel, now=now())
            count += 1
        return Notified(delivered=count, waiting=ledger.waiting(db))
