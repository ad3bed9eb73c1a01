"""What a run came to: the run's row, the notice that tells people, the JSON that programs read."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from typing import Any

import msgspec

from autosync.attention import BAD
from autosync.errors import AutoSyncError
from autosync.policy import Counts
from autosync.ports import Level, Notice
from blocks.mirror import update as mirror
from blocks.store import history, ledger
from flows.log import mask
from flows.workspace import Workspace, now

NAMED = 3


@dataclass
class Outcome:
    """A run's result while it comes about."""

    source: str
    outcome: str = "unchanged"
    counts: Counts = field(default_factory=Counts)
    seq: int = 0
    root: str = ""
    commit: str = ""
    link: str = ""
    error: str = ""
    rebuilt: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @classmethod
    def of_error(cls, source: str, error: BaseException) -> Outcome:
        """The outcome of a run that an error ended."""
        known = isinstance(error, AutoSyncError)
        text = str(error) if known else f"{type(error).__name__}: {error}"
        return cls(source, outcome=getattr(error, "outcome", "failed") if known else "failed", error=mask(text))

    def changed(self, counts: Counts) -> None:
        """Note what the store stage did."""
        self.counts = counts
        self.outcome = "changed" if counts.changed else "unchanged"

    def __str__(self) -> str:
        if self.error:
            return f"{self.source} {self.outcome}: {self.error}"
        if not self.counts.changed:
            return f"{self.source}: nothing changed" + self._besides()
        commit = f", commit {self.commit[:10]}" if self.commit else ""
        return f"{self.source}: {self.counts}, seq {self.seq}{commit}" + self._besides()

    def _besides(self) -> str:
        refused = f", {self.counts.quarantined} rows in quarantine" if self.counts.quarantined else ""
        more = len(self.left_out) - NAMED
        return (
            refused
            + "".join(f"; left out: {text}" for text in self.left_out[:NAMED])
            + (f"; and {more:,} more, see autosync status" if more > 0 else "")
        )


def begin(workspace: Workspace, run: str, source: str, scheduled: datetime | None) -> None:
    """Note that a run began."""
    with workspace.database() as db:
        ledger.start_run(db, run, source, started=now(), scheduled=scheduled.timestamp() if scheduled else None)


def pending(workspace: Workspace, name: str) -> bool:
    """Whether a consumer is behind the store, because an earlier run ended between its stages, or somebody else
    wrote to the mirror.
    """
    source = workspace.source(name)
    with workspace.database() as db:
        target = workspace.target(db, source)
        if target is None:
            return False
        newest = ledger.newest_seq(db, target.collection)
        mirrored, pushed = (ledger.cursor(db, name, target.collection) for name in ("mirror", "push"))
        if min(mirrored.seq, pushed.seq) < newest:
            return True
        return not mirror.untouched(target, mirrored.info.get("stats", {}))


def finish(workspace: Workspace, run: str, outcome: Outcome, stages: list[dict[str, Any]]) -> bool:
    """Note a run's end and put its notice into the outbox. Returns whether notices wait."""
    try:
        with workspace.database() as db:
            facts: dict[str, Any] = {} if outcome.error else _facts(outcome)
            ledger.save_stages(db, run, stages)
            ledger.end_run(
                db,
                run,
                ended=now(),
                outcome=outcome.outcome,
                error=outcome.error or None,
                quarantined=outcome.counts.quarantined,
                **facts,
            )
            if notice := _notice(db, run, outcome):
                ledger.post(db, notice, now=now())
            return ledger.waiting(db) > 0
    except AutoSyncError:
        if not outcome.error:
            raise
        return False  # the database itself is what failed: the run's error says so, and this can't be noted in it


def _facts(outcome: Outcome) -> dict[str, Any]:
    counts = outcome.counts
    written = outcome.outcome == "changed"
    return {
        "seq": outcome.seq or None,
        "inserted": counts.inserted if written else 0,
        "updated": counts.updated if written else 0,
        "deleted": counts.deleted if written else 0,
        "commit_sha": outcome.commit or None,
        "root": outcome.root or None,
    }


def _notice(db: Any, run: str, outcome: Outcome) -> Notice | None:
    """Changes are told once a run; a failure once until the source succeeds again, and then that it does."""
    if outcome.error:
        good = history.newest_run(db, outcome.source, "succeeded")
        what = blake2b(outcome.error.encode(), digest_size=6).hexdigest()
        since = good["run"] if good else "start"
        return Notice(
            key=f"{outcome.outcome}:{outcome.source}:{what}:{since}",
            title=f"{outcome.source}: sync {outcome.outcome}",
            text=outcome.error,
            level="warning" if outcome.outcome == "refused" else "error",
        )
    last = history.newest_run(db, outcome.source, "finished", but=run)
    recovered = last is not None and last["outcome"] in BAD
    if outcome.outcome != "changed" and not recovered:
        return None
    counts, level = outcome.counts, "info"
    facts = [("inserted", counts.inserted), ("updated", counts.updated), ("deleted", counts.deleted)]
    if counts.quarantined:
        facts.append(("in quarantine", counts.quarantined))
        level = "warning"
    known: Level = "warning" if level == "warning" else "info"
    return Notice(
        key=f"changed:{run}",
        title=f"{outcome.source}: {counts}" + (" (works again)" if recovered else ""),
        text=str(outcome),
        level=known,
        facts=tuple((label, f"{value:,}") for label, value in facts),
        link=outcome.link,
    )


def as_json(workspace: Workspace, run: str) -> dict[str, Any]:
    """A run in the fixed form that `autosync run --json` prints."""
    with workspace.database(read_only=True) as db:
        row = history.run(db, run)
        stages = history.stages(db, run)
    return {
        "source": row["source"],
        "outcome": row["outcome"],
        "seq": row["seq"],
        "inserted": row["inserted"],
        "updated": row["updated"],
        "deleted": row["deleted"],
        "quarantined": row["quarantined"],
        "commit": row["commit_sha"],
        "root": row["root"],
        "error": row["error"],
        "stages": stages,
    }


def empty_json(source: str, error: str) -> dict[str, Any]:
    """The same form for a run that could not even be noted."""
    nothing: dict[str, Any] = dict.fromkeys(["inserted", "updated", "deleted", "quarantined"], 0)
    return {
        "source": source,
        "outcome": "failed",
        "seq": None,
        **nothing,
        "commit": None,
        "root": None,
        "error": error,
        "stages": [],
    }


def encode(value: Any) -> str:
    """JSON for programs: two-space indent, one line feed at the end is the caller's."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
