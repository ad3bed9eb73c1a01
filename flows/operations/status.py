"""What `autosync status` shows: per source the last run, freshness, cursors, quarantine, what is left out; locks."""

from __future__ import annotations

from typing import Any

from blocks.sources.files import left_out
from blocks.store import batches, history, ledger
from flows.workspace import Space, now


def describe_status(here: Space) -> dict[str, Any]:
    """Everything that `status` shows."""
    with here.database(read_only=True) as db:
        cursors, items, sources = history.cursors(db), ledger.open_items(db), []
        counts = {row["name"]: row["records"] for row in history.collections(db)}
        for source in here.settings.source:
            last = next(iter(history.runs(db, source.name, limit=1)), None)
            good = history.rows(
                db,
                "SELECT max(ended) AS ended FROM run WHERE source = ? AND outcome IN ('changed', 'unchanged')",
                [source.name],
            )[0]["ended"]
            since = None if good is None else now() - good
            limits = source.freshness
            sources.append(
                {
                    "source": source.name,
                    "last_run": last and last["started"],
                    "outcome": last and last["outcome"],
                    "error": last and last["error"],
                    "age": since,
                    "freshness": freshness(since, limits.warn_after, limits.error_after),
                    "records": counts.get(source.into, 0),
                    "left_out": left_out(batches.state(db, source.name).fingerprint),
                    "quarantine": sum(item["source"] == source.name for item in items),
                    "cursors": [cursor for cursor in cursors if cursor["collection"] == source.into],
                }
            )
        return {"sources": sources, "locks": history.locks(db), "waiting": ledger.waiting(db)}


def freshness(since: float | None, warn: float | None, error: float | None) -> str:
    """fresh, warn, error or unknown, from the age of the newest successful run in seconds."""
    if since is None:
        return "unknown"
    if error is not None and since > error:
        return "error"
    return "warn" if warn is not None and since > warn else "fresh"


def waiting_text(count: int, error: str) -> str:
    """How many notices wait, and why."""
    waiting = "1 notice waits" if count == 1 else f"{count:,} notices wait"
    return f"{waiting} in the outbox" + (f": {error}" if error else "")
