"""Which home made a backup, in which order a home made its own, and which of them are past their number.

A backup is a home's own only when the home's id stands in its name and in the manifest that the target keeps with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from autosync.ports import Stored

SUFFIX = ".db.gz"
_NAME = re.compile(r"autosync-([0-9a-f]{16})-([0-9]{6,12})-[0-9]{8}T[0-9]{6}Z-r[0-9]+\.db\.gz")
_UNMARKED = re.compile(r"autosync-[0-9]{8}T[0-9]{6}Z-r[0-9]+\.db\.gz")


@dataclass(frozen=True)
class Backups:
    """What lies at a target: a home's own backups and those of others, each newest first.

    Attributes:
        others: Those that another home made, or that nothing proves any home to have made.
    """

    own: tuple[Stored, ...]
    others: tuple[Stored, ...]

    @property
    def unmarked(self) -> tuple[Stored, ...]:
        """Those of the others that have a backup's name and no proof of any home."""
        return tuple(backup for backup in self.others if has_backup_name(backup.name) and not maker(backup))


def backup_name(home: str, number: int, time: float, revision: int) -> str:
    """The name of a home's backup.

    Args:
        home: The home's id.
        number: Grows with each backup of the home, whatever its clock says.
        time: Unix seconds.
        revision: The database's.
    """
    return f"autosync-{home}-{number:06d}-{datetime.fromtimestamp(time, UTC):%Y%m%dT%H%M%SZ}-r{revision}{SUFFIX}"


def has_backup_name(name: str) -> bool:
    """Whether a name has exactly the form of a backup's, with a home's id or, as older releases gave it, without."""
    return bool(_NAME.fullmatch(name) or _UNMARKED.fullmatch(name))


def maker(backup: Stored) -> str:
    """The id of the home that name and manifest agree on; "" without that proof."""
    match = _NAME.fullmatch(backup.name)
    return backup.home if match and match[1] == backup.home else ""


def divide(stored: Iterable[Stored], home: str) -> Backups:
    """The backups among what a target keeps, by whether a home made them.

    Args:
        home: The home's id; "" for a home that made none yet.
    """
    own, others = list[Stored](), list[Stored]()
    for backup in stored:
        if backup.name.endswith(SUFFIX):
            (own if home and maker(backup) == home else others).append(backup)
    own.sort(key=lambda backup: (_number(backup), backup.name), reverse=True)
    others.sort(key=lambda backup: (-backup.time, backup.name))
    return Backups(tuple(own), tuple(others))


def next_number(own: Sequence[Stored]) -> int:
    """The number of a home's next backup."""
    return max(map(_number, own), default=0) + 1


def expired(own: Sequence[Stored], keep: int, good: Callable[[Stored], bool]) -> list[Stored]:
    """A home's backups that may be deleted: those past `keep`, but neither the newest one nor the newest good one.

    Args:
        own: Newest first.
        good: Whether the bytes that lie there have the checksum they were put with. When no backup has, none may go.
    """
    past = own[max(keep, 1) :]
    newest = next(filter(good, own), None) if past else None
    return [backup for backup in past if newest and backup != newest]


def _number(backup: Stored) -> int:
    match = _NAME.fullmatch(backup.name)
    return int(match[2]) if match else 0
