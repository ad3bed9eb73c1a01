"""What a source's history says about when to sync it: the predictive schedule, shown and not yet imposed."""

from __future__ import annotations

from typing import Any

from blocks.store import batches, history
from flows.workspace import Workspace, now

HISTORY_DAYS = 90


def arrivals(workspace: Workspace, name: str) -> list[float]:
    """When runs of a source brought changes, Unix seconds, in order."""
    with workspace.database(read_only=True) as db:
        if batches.collection_id(db, workspace.source(name).into) is None:
            return []
        return history.arrivals(db, name, now() - HISTORY_DAYS * 86_400)


def learnt(workspace: Workspace, name: str, budget: float) -> dict[str, Any]:
    """What the policy learnt of a source, and when it would sync next.

    Args:
        budget: Syncs a day.
    """
    import numpy as np

    from analytics.predictive_sync import profile

    times = arrivals(workspace, name)
    found = profile(np.array(times, dtype=np.float64), budget, now())
    return {"source": name, "changes": len(times), "budget_per_day": budget, "profile": found}
