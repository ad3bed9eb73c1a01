"""What runs leave behind: runs and stages, fences, cursors of consumers, outbox, quarantine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import msgspec

from autosync.change_detection import Refusal
from autosync.ports import Notice
from blocks.store.schema import Db, transaction

CLAIM_SECONDS = 120.0


@dataclass(frozen=True)
class Cursor:
    """How far a consumer has read a collection's changes, and what it noted with it."""

    seq: int
    info: dict[str, Any]


def start_run(db: Db, run: str, source: str, *, started: float, scheduled: float | None) -> None:
    """Note that a run began; a run that is retried begins again."""
    with transaction(db):
        db.execute(
            "INSERT INTO run (run, source, started, scheduled) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (run) DO UPDATE SET started = excluded.started, ended = NULL, outcome = NULL, error = NULL",
            [run, source, started, scheduled],
        )


def end_run(db: Db, run: str, *, ended: float, outcome: str, **facts: Any) -> None:
    """Note a run's end and what it did; `facts` are columns of the table run."""
    names = ["ended", "outcome", *facts]
    with transaction(db):
        db.execute(
            f"UPDATE run SET {', '.join(f'{name} = ?' for name in names)}, "
            "retries = (SELECT coalesce(sum(retries), 0) FROM stage WHERE stage.run = run.run) WHERE run = ?",
            [ended, outcome, *facts.values(), run],
        )


def save_stages(db: Db, run: str, stages: Sequence[dict[str, Any]]) -> None:
    """Keep the stages of a run: name, state, started (Unix seconds), seconds, retries."""
    with transaction(db, revise=False):
        db.executemany(
            "INSERT OR REPLACE INTO stage VALUES (?, ?, ?, ?, ?, ?)",
            [(run, s["name"], s["state"], s["started"], s["seconds"], s["retries"]) for s in stages],
        )


def grant(db: Db, name: str, run: str, *, now: float) -> int:
    """A fencing token for a place, larger than every one before; older holders can no longer write."""
    with transaction(db, revise=False):
        row = db.execute(
            "INSERT INTO fence (name, token, run, since) VALUES (?, 1, ?, ?) ON CONFLICT (name) DO UPDATE "
            "SET token = token + 1, run = excluded.run, since = excluded.since, released = NULL RETURNING token",
            [name, run, now],
        ).fetchone()
    return int(row[0])


def release(db: Db, name: str, token: int, *, now: float) -> None:
    """Note that the holder of a token is done; a newer holder is left alone."""
    with transaction(db, revise=False):
        db.execute("UPDATE fence SET released = ? WHERE name = ? AND token = ?", [now, name, token])


def release_run(db: Db, run: str, *, now: float) -> None:
    """Note that whatever a run held is free, because the run is over."""
    with transaction(db, revise=False):
        db.execute("UPDATE fence SET released = ? WHERE run = ? AND released IS NULL", [now, run])


def cursor(db: Db, consumer: str, collection: int) -> Cursor:
    """A consumer's cursor; seq 0 when it has read nothing."""
    row = db.execute(
        "SELECT seq, info FROM consumer WHERE consumer = ? AND collection = ?", [consumer, collection]
    ).fetchone()
    return Cursor(row[0], msgspec.json.decode(row[1])) if row else Cursor(0, {})


def advance(db: Db, consumer: str, collection: int, seq: int, *, now: float, info: dict[str, Any]) -> None:
    """Move a consumer's cursor. Needs no more than this statement to be durable."""
    with transaction(db):
        db.execute(
            "INSERT OR REPLACE INTO consumer VALUES (?, ?, ?, ?, ?)",
            [consumer, collection, seq, now, msgspec.json.encode(info).decode()],
        )


def newest_seq(db: Db, collection: int) -> int:
    """The last change's seq of a collection, 0 when it has none."""
    row = db.execute("SELECT coalesce(max(last_seq), 0) FROM batch WHERE collection = ?", [collection]).fetchone()
    return int(row[0])


def newest_time(db: Db, collection: int) -> float:
    """When a collection's newest change was stored (Unix seconds), 0 when it has none."""
    row = db.execute(
        "SELECT time FROM batch WHERE collection = ? ORDER BY last_seq DESC LIMIT 1", [collection]
    ).fetchone()
    return float(row[0]) if row else 0.0


def post(db: Db, notice: Notice, *, now: float) -> bool:
    """Put a notice into the outbox; False when one with its key is there already."""
    with transaction(db):
        body = msgspec.json.encode(notice).decode()
        done = db.execute(
            "INSERT INTO outbox (key, created, body) VALUES (?, ?, ?) ON CONFLICT (key) DO NOTHING",
            [notice.key, now, body],
        )
    return done.rowcount == 1


def claim(db: Db, *, now: float) -> tuple[int, Notice] | None:
    """Take the oldest waiting notice for delivery; nobody else gets it for CLAIM_SECONDS. None when none waits."""
    with transaction(db, revise=False):
        row = db.execute(
            "UPDATE outbox SET claimed = ?, attempts = attempts + 1 WHERE notice = (SELECT notice FROM outbox "
            "WHERE delivered IS NULL AND (claimed IS NULL OR claimed < ?) ORDER BY notice LIMIT 1) "
            "RETURNING notice, body",
            [now, now - CLAIM_SECONDS],
        ).fetchone()
    return (row[0], msgspec.json.decode(row[1], type=Notice)) if row else None


def waiting(db: Db) -> int:
    """How many notices are not delivered yet."""
    return int(db.execute("SELECT count(*) FROM outbox WHERE delivered IS NULL").fetchone()[0])


def delivery_error(db: Db) -> str:
    """Why the delivery of the waiting notices failed last, "" when it wasn't tried or didn't fail."""
    row = db.execute(
        "SELECT error FROM outbox WHERE delivered IS NULL AND error IS NOT NULL ORDER BY notice LIMIT 1"
    ).fetchone()
    return str(row[0]) if row else ""


def delivered(db: Db, number: int, channel: str, *, now: float) -> None:
    """Note that a notice reached people over a channel."""
    with transaction(db):
        db.execute(
            "UPDATE outbox SET delivered = ?, channel = ?, error = NULL WHERE notice = ?",
            [now, channel, number],
        )


def undelivered(db: Db, number: int, error: str) -> None:
    """Note that a delivery failed; the notice stays in the outbox."""
    with transaction(db):
        db.execute("UPDATE outbox SET claimed = NULL, error = ? WHERE notice = ?", [error, number])


def quarantine(db: Db, source: str, run: str, refused: Sequence[Refusal], *, now: float, whole: bool) -> None:
    """Keep refused rows with reason and raw text; the same row again only counts up.

    What the source's kept state says was true of the rows before: until a batch is stored, it must be read again.

    Args:
        whole: The input was read as a whole: what is not refused any more is resolved.
    """
    rows = [
        (source, blake2b(refusal.raw, digest_size=16).digest(), run, now, now, *refusal[:3], refusal.raw)
        for refusal in refused
    ]
    with transaction(db):
        db.executemany(
            "INSERT INTO quarantine (source, digest, run, first_seen, last_seen, place, id, reason, raw) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (source, digest) DO UPDATE SET run = excluded.run, "
            "last_seen = excluded.last_seen, place = excluded.place, reason = excluded.reason, state = 'open'",
            rows,
        )
        resolved = 0
        if whole:
            resolved = db.execute(
                "UPDATE quarantine SET state = 'resolved' WHERE source = ? AND state = 'open' AND last_seen < ?",
                [source, now],
            ).rowcount
        if rows or resolved:
            db.execute("UPDATE source_state SET fingerprint = '', digest = '' WHERE source = ?", [source])


def open_items(db: Db, source: str | None = None) -> list[dict[str, Any]]:
    """Open quarantine rows, newest first, without their raw text."""
    rows = db.execute(
        "SELECT item, source, run, first_seen, last_seen, place, id, reason, length(raw) AS bytes FROM quarantine "
        "WHERE state = 'open' AND (? IS NULL OR source = ?) ORDER BY item DESC",
        [source, source],
    )
    names = [column[0] for column in rows.description]
    return [dict(zip(names, row, strict=True)) for row in rows]


def item(db: Db, number: int) -> dict[str, Any] | None:
    """One quarantine row with its raw bytes."""
    row = db.execute(
        "SELECT item, source, run, first_seen, last_seen, place, id, reason, state, raw FROM quarantine WHERE item = ?",
        [number],
    )
    found = row.fetchone()
    return dict(zip([column[0] for column in row.description], found, strict=True)) if found else None
