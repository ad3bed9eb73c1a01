"""What `autosync status` shows: per source the last run, freshness, cursors, quarantine, what is left out; locks."""

from __future__ import annotations

from collections import Counter
from typing import Any

from autosync.attention import BAD, SourceFacts, freshness
from autosync.settings import Source
from blocks.sources.reader import left_out
from blocks.store import batches, history, ledger
from blocks.store.schema import Db
from flows.workspace import Workspace, now


def source_facts(db: Db, source: Source, time: float, quarantined: int) -> SourceFacts:
    """How a source stands at a time (Unix seconds), as its runs tell."""
    last, finished = history.newest_run(db, source.name), history.newest_run(db, source.name, "finished")
    success = history.newest_run(db, source.name, "succeeded")
    age = None if success is None else max(0.0, time - success["ended"])
    failed = finished is not None and finished["outcome"] in BAD
    return SourceFacts(
        source=source.name,
        freshness=freshness(age, source.freshness.warn_after, source.freshness.error_after),
        success_age=age,
        finished=finished is not None,
        error=(finished["error"] or finished["outcome"]) if finished and failed else None,
        running_age=time - last["started"] if last and last["ended"] is None else None,
        quarantined=quarantined,
    )


def all_facts(db: Db, sources: list[Source], time: float) -> list[SourceFacts]:
    """How every source stands at a time (Unix seconds)."""
    counts = Counter(row["source"] for row in ledger.open_items(db))
    return [source_facts(db, source, time, counts[source.name]) for source in sources]


def describe_status(here: Workspace) -> dict[str, Any]:
    """Everything that `status` shows."""
    with here.database(read_only=True) as db:
        cursors, sources = history.cursors(db), []
        counts = {row["name"]: row["records"] for row in history.collections(db)}
        states = all_facts(db, here.settings.source, now())
        for source, facts in zip(here.settings.source, states, strict=True):
            last = history.newest_run(db, source.name)
            sources.append(
                {
                    "source": source.name,
                    "last_run": last and last["started"],
                    "outcome": last and last["outcome"],
                    "error": last and last["error"],
                    "age": facts.success_age,
                    "freshness": facts.freshness,
                    "records": counts.get(source.into, 0),
                    "left_out": left_out(batches.state(db, source.name).fingerprint),
                    "quarantine": facts.quarantined,
                    "cursors": [cursor for cursor in cursors if cursor["collection"] == source.into],
                }
            )
        return {"sources": sources, "locks": history.locks(db), "waiting": ledger.waiting(db)}


def waiting_text(count: int, error: str) -> str:
    """How many notices wait, and why."""
    waiting = "1 notice waits" if count == 1 else f"{count:,} notices wait"
    return f"{waiting} in the outbox" + (f": {error}" if error else "")
