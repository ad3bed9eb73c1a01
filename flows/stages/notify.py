"""notify: deliver what the outbox holds, each notice once: Slack, else email, else the console."""

from __future__ import annotations

import msgspec

from autosync.errors import AutoSyncError, RemoteUnavailable
from autosync.ports import Notice, Notifier
from blocks.notify.console import ConsoleNotifier
from blocks.store import ledger
from flows.tasks import stage
from flows.workspace import Space, now


class Notified(msgspec.Struct, frozen=True, kw_only=True):
    """Notices delivered, and those that stay in the outbox."""

    delivered: int = 0
    waiting: int = 0


def open_notifiers(space: Space) -> list[Notifier]:
    """The channels that the settings name, in order; the console when none is set."""
    names = [name for name in (space.settings.notify.slack, space.settings.notify.email) if name]
    if not names:
        return [ConsoleNotifier()]
    return [space.block(name).notifier() for name in names]


def deliver(notice: Notice, channels: list[Notifier]) -> tuple[str, list[str]]:
    """Try the channels in order.

    Returns:
        The channel that took the notice ("" for none), and what the others said.
    """
    said: list[str] = []
    for channel in channels:
        try:
            channel.send(notice)
            return channel.name, said
        except AutoSyncError as error:
            said.append(f"{channel.name}: {error.what}")
    return "", said


def notify(space: Space) -> Notified:
    """Deliver waiting notices, oldest first.

    Raises:
        RemoteUnavailable: No channel took one; it stays in the outbox and is tried again.
    """
    done, channels = 0, list[Notifier]()
    with space.database() as db:
        while claimed := ledger.claim(db, now=now()):
            number, notice = claimed
            channels = channels or open_notifiers(space)
            channel, said = deliver(notice, channels)
            if not channel:
                ledger.undelivered(db, number, "; ".join(said))
                raise RemoteUnavailable(
                    f"no channel took the notice {notice.title!r}: {'; '.join(said)}",
                    where="notify",
                    kept="the notices, in the outbox; the sync itself is done",
                    todo="see: autosync health; they are sent with the next run",
                )
            ledger.delivered(db, number, channel, now=now())
            done += 1
        return Notified(delivered=done, waiting=ledger.waiting(db))


notify_stage = stage("notify", "Deliver the notices that wait in the outbox, each once.")(notify)
