"""health: one row a module, each proven by doing something harmless with it."""

from __future__ import annotations

import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from autosync import attention
from autosync.block_settings import EMAIL, SLACK
from autosync.errors import AutoSyncError
from autosync.ports import Notifier
from blocks.store import history, ledger
from blocks.store.schema import damage
from flows.operations.backups import open_target
from flows.operations.copies import MIRROR, STORE, open_copy
from flows.operations.ingest import request_headers
from flows.operations.notify import open_email, open_slack
from flows.operations.push import open_remote
from flows.operations.status import all_facts, waiting_text
from flows.workspace import Workspace, now

Status = Literal["ok", "warning", "error", "off"]
LOW_DISK_SHARE, LOW_DISK_BYTES = 0.05, 500_000_000


@dataclass(frozen=True)
class Health:
    """How a module is: its name, status, what was found, and the seconds that the look took."""

    module: str
    status: Status
    text: str
    seconds: float


Found = tuple[Status, str]


def check_server(_space: Workspace) -> Found:
    """Prefect's server answers."""
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        return "off", "none runs; commands start their own. Start one with: autosync up"
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:  # noqa: S310  # the configured server
            return ("ok", url) if answer.status == 200 else ("error", f"{url} answered {answer.status}")
    except (OSError, urllib.error.URLError) as error:
        return "error", f"{url} does not answer: {error}"


def check_database(workspace: Workspace) -> Found:
    """SQLite finds its file whole."""
    if not workspace.home.database.exists():
        return "off", "nothing was synced yet"
    with workspace.database(read_only=True) as db:
        wrong = damage(db, quick=True)
        records = sum(row["records"] for row in history.collections(db))
    if wrong:
        return "error", f"damaged: {wrong[0]}. What to do: run: autosync rebuild"
    return "ok", f"{records:,} records"


def check_mirror(workspace: Workspace) -> Found:
    """Every mirror's manifest agrees with the store: seq and number of records."""
    if not workspace.home.database.exists():
        return "off", "nothing was synced yet"
    behind = []
    with workspace.database(read_only=True) as db:
        for row in history.collections(db):
            stored = open_copy(workspace, STORE, row["name"], db).at(None)
            mirrored = next(open_copy(workspace, MIRROR, row["name"]).points(), None)
            if mirrored is None or (mirrored.seq, mirrored.records) != (stored.seq, stored.records):
                behind.append(f"{row['name']} (seq {mirrored.seq if mirrored else 0} of {stored.seq})")
    return ("warning", f"behind: {', '.join(behind)}") if behind else ("ok", "every collection is up to date")


def check_repository(workspace: Workspace) -> Found:
    """The branch can be read."""
    remote = open_remote(workspace)
    head = remote.head()
    return "ok", f"{remote.address}, {head.sha[:10] if head else 'no commit yet'}"


def check_slack(workspace: Workspace) -> Found:
    """Slack answers and takes our credentials."""
    return _check_channel(open_slack(workspace), SLACK.label, workspace.settings.notify.slack)


def check_email(workspace: Workspace) -> Found:
    """The mail server answers and takes our credentials."""
    return _check_channel(open_email(workspace), EMAIL.label, workspace.settings.notify.email)


def _check_channel(notifier: Notifier | None, setting: str, name: str | None) -> Found:
    if notifier is None:
        return "off", f"no block is set in {setting}"
    notifier.check()
    return "ok", name or ""


def check_sources(workspace: Workspace) -> Found:
    """The block of every source that names one can be loaded."""
    names = [source.name for source in workspace.settings.source if request_headers(workspace, source) is not None]
    return ("ok", f"blocks loaded for: {', '.join(names)}") if names else ("off", "no source names a block")


def check_backup(workspace: Workspace) -> Found:
    """The backup target can be listed."""
    target = open_target(workspace)
    count = sum(1 for _ in target.list())
    return "ok", f"{count} in {target.address}"


def check_outbox(workspace: Workspace) -> Found:
    """No notice waits for delivery."""
    if not workspace.home.database.exists():
        return "off", "nothing was synced yet"
    with workspace.database(read_only=True) as db:
        count, error = ledger.waiting(db), ledger.delivery_error(db)
    return ("warning", waiting_text(count, error)) if count else ("ok", "empty")


def check_disk(workspace: Workspace) -> Found:
    """There is room."""
    folder = workspace.home.path
    while not folder.exists():
        folder = folder.parent
    usage = shutil.disk_usage(folder)
    low = usage.free < LOW_DISK_BYTES or usage.free < LOW_DISK_SHARE * usage.total
    return ("warning" if low else "ok"), f"{usage.free / 1e9:.1f} GB free of {usage.total / 1e9:.1f} GB"


def check_freshness(workspace: Workspace) -> Found:
    """Every source was synced within its limits, and its last run was good."""
    if not workspace.home.database.exists():
        return "off", "nothing was synced yet"
    with workspace.database(read_only=True) as db:
        sources = all_facts(db, workspace.settings.source, now())
    judged = {facts.source: worst_concern(facts) for facts in sources}
    named = {status: [name for name, own in judged.items() if own == status] for status in judged.values()}
    if bad := named.get("error"):
        return "error", f"stale or failing: {', '.join(bad)}"
    labels: dict[attention.Status, str] = {"warning": "late, or being tried again", "unknown": "not synced yet"}
    text = "; ".join(f"{label}: {', '.join(named[status])}" for status, label in labels.items() if status in named)
    return ("warning", text) if text else ("ok", f"{len(sources)} sources")


def worst_concern(facts: attention.SourceFacts) -> attention.Status:
    """The worst of a source's runs and freshness; its quarantine is no module's."""
    return attention.source_status(replace(facts, quarantined=0))


def examine(workspace: Workspace) -> list[Health]:
    """Look at every module. An error of one is a row, never the end of the look."""
    looks: list[tuple[str, Callable[[], Found]]] = [
        ("server", lambda: check_server(workspace)),
        ("database", lambda: check_database(workspace)),
        ("mirror", lambda: check_mirror(workspace)),
        ("repository", lambda: check_repository(workspace)),
        ("sources", lambda: check_sources(workspace)),
        ("slack", lambda: check_slack(workspace)),
        ("email", lambda: check_email(workspace)),
        ("backup", lambda: check_backup(workspace)),
        ("outbox", lambda: check_outbox(workspace)),
        ("disk", lambda: check_disk(workspace)),
        ("freshness", lambda: check_freshness(workspace)),
    ]
    return [_look(module, look) for module, look in looks]


def _look(module: str, look: Callable[[], Found]) -> Health:
    clock = time.perf_counter()
    try:
        status, text = look()
    except AutoSyncError as error:
        status, text = "error", str(error)
    return Health(module, status, text, round(time.perf_counter() - clock, 3))


def worst(rows: list[Health]) -> Status:
    """The worst status of all modules that are on."""
    order: list[Status] = ["error", "warning", "ok"]
    return next((status for status in order if any(row.status == status for row in rows)), "off")
