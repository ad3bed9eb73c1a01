"""The stages of a run as bars: where each begins and how long it is, in shares of a whole of 1000."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reports.dashboard.reading import Run, Stage

__all__ = ["Bar", "timeline"]

WHOLE = 1000.0
LEAST = 6.0


@dataclass(frozen=True)
class Bar:
    """A stage's bar; `x` and `width` are in thousandths of the run."""

    stage: Stage
    x: float
    width: float


def timeline(stages: Sequence[Stage], run: Run) -> list[Bar]:
    """The bars of a run's stages; even the shortest can be seen, and none leaves the run."""
    if not stages:
        return []
    start = min(run.started, *(stage.started for stage in stages)).timestamp()
    ends = [stage.started.timestamp() + stage.seconds for stage in stages]
    end = max(*ends, run.ended.timestamp() if run.ended else start, start + 1e-6)
    return [_bar(stage, start, end - start) for stage in stages]


def _bar(stage: Stage, start: float, length: float) -> Bar:
    width = min(max(stage.seconds / length * WHOLE, LEAST), WHOLE)
    x = min(max((stage.started.timestamp() - start) / length * WHOLE, 0.0), WHOLE - width)
    return Bar(stage, round(x, 1), round(width, 1))
