"""A store with a month of history to look at: three sources, hundreds of runs, failures, refusals, quarantine."""

from __future__ import annotations

import random
from hashlib import sha1
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from autosync.errors import Refused, SourceUnavailable
from autosync.ports import Notice
from autosync.settings import Home
from blocks.store import ledger
from blocks.store.schema import Db, transaction
from flows.operations.ingest import ingest
from flows.operations.store import store
from flows.workspace import Workspace, now

DAYS = 30
CONFIG = """
[[source]]
name = "contacts"
location = "contacts.json"
key = "/id"
[source.expect]
required = ["/email"]
[source.freshness]
warn_after = 7200
error_after = 86400

[[source]]
name = "orders"
location = "orders.json"
key = "/number"
[source.guard]
max_delete = 1.0
[source.freshness]
warn_after = 3600
error_after = 14400

[[source]]
name = "readings"
location = "readings.json"
key = ["/station", "/at"]
mode = "upsert"
"""
STAGES = (("ingest", 0.31), ("lock", 0.05), ("store", 0.22), ("mirror", 0.18), ("push", 0.94), ("notify", 0.12))
PEOPLE = ("سارا محمدی", "Ada Lovelace", "山田 花子", "Grace Hopper", "نیما یوشیج", "Søren Ødegård", "مریم میرزاخانی")


def build(folder: Path) -> Workspace:
    """Fill a folder with a configuration, sources and a store that looks as after a month."""
    chance = random.Random(7)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "autosync.toml").write_text(CONFIG)
    workspace = Workspace(Home(folder / "home"), folder / "autosync.toml")
    with workspace.database() as db:
        _runs(db, chance)
    _changes(workspace, chance)
    with workspace.database() as db:
        _note(db, run_id(chance), "orders", now() - 400, "failed", 0.8, {"error": str(_error("failed"))})
        ledger.post(db, Notice(key="busy", title="readings: +4", text="readings: +4"), now=now() - 600)
    return workspace


def people(version: int) -> list[dict[str, Any]]:
    """Contacts as they were at a version; one lacks its address and goes to quarantine."""
    found: list[dict[str, Any]] = [
        {"id": n, "name": {"full": name}, "email": f"person{n}@example.org", "tags": ["a", "b"], "balance": 10**17 + n}
        for n, name in enumerate(PEOPLE)
    ]
    for step in range(version):
        one = found[step % len(found)]
        one["tags"] = [*one["tags"], f"t{step}"]
        one["name"]["nick"] = f"v{step}"
    return [*found, {"id": 99, "name": {"full": "No Address"}}]


def orders(version: int) -> list[dict[str, Any]]:
    """Orders as they were at a version: their state moves on, old ones go."""
    states = ("new", "paid", "packed", "sent", "delivered")
    return [
        {
            "number": f"A-{n:04}",
            "state": states[min(version - n // 3, 4)],
            "total": f"{n * 7 + 3}.90",
            "paid": n % 2 == 0,
        }
        for n in range(max(0, version * 3 - 12), version * 3 + 3)
    ]


def readings(version: int) -> list[dict[str, Any]]:
    """Four stations an hour."""
    return [{"station": f"st/{s}", "at": f"2026-01-01T{version:02}:00Z", "celsius": s + version / 10} for s in range(4)]


def sync(workspace: Workspace, source: str, rows: list[dict[str, Any]], run: str, at: float) -> None:
    """One run of ingest and store whose batch is noted for a time."""
    (workspace.base / f"{source}.json").write_bytes(msgspec.json.encode(rows))
    found = ingest(workspace, source, run, "", None)
    if found.batch:
        with workspace.database() as db:
            token = ledger.grant(db, f"source {source}", run, now=at)
        store(workspace, source, found.batch, run, token)
        with workspace.database() as db, transaction(db):
            db.execute("UPDATE batch SET time = ? WHERE run = ?", [at, run])
            db.execute("UPDATE fence SET released = since")


def _changes(workspace: Workspace, chance: random.Random) -> None:
    sources = {"contacts": people, "orders": orders, "readings": readings}
    for version in range(12):
        for number, (source, rows) in enumerate(sources.items()):
            at = now() - (11.5 - version) * 3600 * 2 - number * 60
            run = str(UUID(int=chance.getrandbits(128), version=4))
            note(
                workspace,
                run,
                source,
                at,
                "changed",
                inserted=4,
                updated=version and 1,
                quarantined=source == "contacts",
            )
            sync(workspace, source, rows(version), run, at + 1)


def note(
    workspace: Workspace, run: str, source: str, at: float, outcome: str, seconds: float = 1.9, **facts: Any
) -> None:
    """One run as `begin` and `finish` note it."""
    with workspace.database() as db:
        _note(db, run, source, at, outcome, seconds, facts)


def _note(db: Db, run: str, source: str, at: float, outcome: str, seconds: float, facts: dict[str, Any]) -> None:
    ledger.start_run(db, run, source, started=at, scheduled=at - 0.7)
    ends = len(STAGES) if outcome in ("changed", "unchanged") else 1
    stages, clock = list[dict[str, Any]](), at
    for name, share in STAGES[:ends]:
        state = outcome if ends == 1 else "done"
        stages.append({"name": name, "state": state, "started": clock, "seconds": share * seconds / 1.9, "retries": 0})
        clock += share * seconds / 1.9
    ledger.save_stages(db, run, stages)
    if outcome == "changed":
        facts |= {"commit_sha": sha1(f"{source} {at}".encode()).hexdigest()}
    ledger.end_run(db, run, ended=clock, outcome=outcome, **facts)


def _runs(db: Db, chance: random.Random) -> None:
    """Runs every two hours of a month before the newest."""
    db.execute("PRAGMA synchronous = OFF")
    start = now() - DAYS * 86_400
    for step in range(DAYS * 12 - 13):
        for source in ("contacts", "orders", "readings"):
            at = start + step * 7200 + chance.random() * 120
            outcome = chance.choices(("unchanged", "changed", "failed", "refused"), (62, 33, 3, 2))[0]
            facts: dict[str, Any] = {"error": str(_error(outcome))} if outcome in ("failed", "refused") else {}
            if outcome == "changed":
                facts |= {
                    "inserted": chance.randrange(40),
                    "updated": chance.randrange(90),
                    "deleted": chance.randrange(5),
                }
            _note(db, run_id(chance), source, at, outcome, chance.lognormvariate(0.7, 0.4), facts)


def run_id(chance: random.Random) -> str:
    """A run's id."""
    return str(UUID(int=chance.getrandbits(128), version=4))


def _error(outcome: str) -> Exception:
    if outcome == "refused":
        return Refused(
            "41 of 120 records would be deleted, more than the guard's 20 %",
            where="source orders",
            kept="everything; nothing was written",
            todo="look at it with: autosync plan orders",
        )
    return SourceUnavailable(
        "the source did not answer within 30 s",
        where="https://orders.example.org/export.json",
        kept="the last good state",
        todo="check that the address answers, then: autosync run orders",
    )
