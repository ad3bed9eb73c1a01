"""analyze: KPIs from the runs, as values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blocks.store import history
from flows.space import Space, now
from flows.stages.task import stage

if TYPE_CHECKING:
    import pandas as pd

RUN_COLUMNS = ["source", "started", "ended", "outcome", "retries", "inserted", "updated", "deleted", "quarantined"]


def run_frame(space: Space, since: float = 0) -> pd.DataFrame:
    """The runs as analytics takes them; times in Unix seconds."""
    import pandas as pd

    with space.database(read_only=True) as db:
        rows = [row for row in history.runs(db, since=since, limit=100_000) if row["ended"] is not None]
    frame = pd.DataFrame(rows, columns=[*RUN_COLUMNS, "scheduled"])
    return frame.astype({"started": "float64", "ended": "float64", "scheduled": "float64", "outcome": "str"})


def source_frame(space: Space) -> pd.DataFrame:
    """The sources with their freshness limits in seconds."""
    import pandas as pd

    rows = [
        {"source": s.name, "warn_after": s.freshness.warn_after, "error_after": s.freshness.error_after}
        for s in space.settings.source
    ]
    frame = pd.DataFrame(rows, columns=["source", "warn_after", "error_after"])
    return frame.astype({"warn_after": "float64", "error_after": "float64"})


def analyze(space: Space, days: float = 30) -> Any:
    """The KPIs of the last `days` days."""
    from analytics.kpi_tracker import track

    time = now()
    return track(run_frame(space, time - days * 86_400), source_frame(space), time)


analyze_stage = stage("analyze", "Compute KPIs from the runs.")(analyze)
