"""How long history is kept: every point for a while, then the last of each day, then the last of each month."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar

from autosync.settings import Retention

DAY = 86_400.0
T = TypeVar("T")


class Point(NamedTuple):
    """A moment of a collection that can be gone back to: the seq of its last change then, and Unix seconds."""

    seq: int
    time: float


def kept(points: Sequence[Point], rule: Retention, now: float) -> frozenset[int]:
    """The seqs of the points to keep.

    Args:
        points: In the order of their seqs.
        now: Unix seconds. What is in the future counts as young.
    """
    days = [datetime.fromtimestamp(point.time, UTC).strftime("%Y-%m-%d") for point in points]
    last_of_day = {day: point.seq for day, point in zip(days, points, strict=True)}
    last_of_month = {day[:7]: point.seq for day, point in zip(days, points, strict=True)}
    keep = {point.seq for point in points[-1:]}
    for day, point in zip(days, points, strict=True):
        age = now - point.time
        young = age < rule.days * DAY
        daily = age < (rule.days + rule.daily) * DAY and last_of_day[day] == point.seq
        if young or daily or last_of_month[day[:7]] == point.seq:
            keep.add(point.seq)
    return frozenset(keep)


def protected(points: Iterable[Point], cursors: Iterable[int]) -> frozenset[int]:
    """The seqs of the points that consumers need: the one where the slowest of them stands, and all after it.

    Args:
        points: In the order of their seqs.
        cursors: The last seq that each consumer has read; none when nobody reads.
    """
    seqs = [point.seq for point in points]
    lowest = min(cursors, default=seqs[-1] if seqs else 0)
    here = max((seq for seq in seqs if seq <= lowest), default=0)
    return frozenset(seq for seq in seqs if seq >= here)


def spans(items: Iterable[tuple[int, T]], keep: Container[int]) -> list[list[T]]:
    """Items by seq, cut after each one whose seq is kept: those of one span become one.

    Args:
        items: (seq, item) in the order of their seqs, the last of which is kept.
    """
    found: list[list[T]] = [[]]
    for seq, item in items:
        found[-1].append(item)
        if seq in keep:
            found.append([])
    return [span for span in found if span]


def portions(items: Sequence[T], size: Callable[[T], int], most: int) -> list[list[T]]:
    """Items in order, cut so that those of a portion are `most` together, but at least two: work in bounded steps."""
    found, total = list[list[T]](), 0
    for item in items:
        if not found or (len(found[-1]) > 1 and total + size(item) > most):
            found.append([])
            total = 0
        found[-1].append(item)
        total += size(item)
    return found
