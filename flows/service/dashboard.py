"""The dashboard of a workspace: the store, the configuration and Prefect's address behind the pages and the API."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Any

import msgspec

from autosync.attention import freshness
from autosync.errors import ConfigError
from autosync.ports import Notice
from autosync.settings import Source
from blocks.store.reader import Reader
from flows.log import open_log
from flows.prefect_server import own_server, prepare, running_server
from flows.temporary_server import is_temporary
from flows.workspace import Workspace, now
from reports.dashboard import reading
from reports.dashboard.guard import LOOPBACK, Access, check_exposure

VARIABLE = "AUTOSYNC_DASHBOARD_TOKEN"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MODULE_SECONDS = 20.0
SERVER_SECONDS = 15.0
CLOUD = re.compile(r"https://api\.prefect\.cloud/api/accounts/([^/]+)/workspaces/([^/]+)")


def _time(seconds: float | None) -> datetime | None:
    """Never later than the time itself, so that `since` a time that was told finds what it was told of."""
    if seconds is None:
        return None
    whole = int(seconds)
    return EPOCH + timedelta(seconds=whole, microseconds=int((seconds - whole) * 1e6))


def _run(row: Mapping[str, Any] | None) -> reading.Run | None:
    return None if row is None else reading.Run(**_row(row))


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with its times as datetimes and its records as raw JSON."""
    times = ("started", "ended", "scheduled", "time", "since", "last_seen")
    made: dict[str, Any] = {name: _time(value) if name in times else value for name, value in row.items()}
    for side in ("before", "after", "doc"):
        if isinstance(made.get(side), str):
            made[side] = msgspec.Raw(made[side].encode())
    return made


@dataclass
class _Lasting:
    """A value that stays good for some seconds."""

    seconds: float
    make: Callable[[], Any]
    _lock: Lock = field(default_factory=Lock)
    _value: Any = None
    _until: float = 0.0

    def get(self) -> Any:
        with self._lock:
            if now() >= self._until:
                self._value, self._until = self.make(), now() + self.seconds
            return self._value


class StoreReading:
    """`Reading` of a workspace: rows of the store as the dashboard's values."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.reader = Reader(workspace.home.database)
        self._modules = _Lasting(MODULE_SECONDS, self._examine)
        self._server = _Lasting(SERVER_SECONDS, lambda: prefect_pages(workspace, os.environ))

    def revision(self) -> str:
        return self.reader.revision()

    def sources(self) -> list[reading.SourceState]:
        counts, held, behind = self.reader.records(), self.reader.quarantined(), self.reader.behind()
        return [
            self._state(source, counts.get(source.into, 0), held.get(source.name, 0), behind.get(source.into, {}))
            for source in self.workspace.settings.source
        ]

    def _state(self, source: Source, records: int, held: int, behind: Mapping[str, int]) -> reading.SourceState:
        newest, limits = self.reader.newest_run, source.freshness
        good = newest(source.name, "succeeded")
        ended = None if good is None else float(good["ended"])
        since = None if ended is None else max(0.0, now() - ended)
        return reading.SourceState(
            source=source.name,
            collection=source.into,
            freshness=freshness(since, limits.warn_after, limits.error_after),
            last_success=_time(ended),
            warn_after=limits.warn_after,
            error_after=limits.error_after,
            records=records,
            quarantined=held,
            behind=behind,
            last_run=_run(newest(source.name)),
            last_finished=_run(newest(source.name, "finished")),
        )

    def refusals(self) -> list[reading.Refusals]:
        return [reading.Refusals(**_row(row)) for row in self.reader.refusals()]

    def locks(self) -> list[reading.Lock]:
        return [reading.Lock(**_row(row)) for row in self.reader.locks()]

    def waiting(self) -> int:
        return self.reader.waiting()

    def runs(self, which: reading.RunFilter) -> list[reading.Run]:
        return [reading.Run(**_row(row)) for row in self.reader.runs(**asdict(which))]

    def run(self, run: str) -> reading.Run | None:
        return _run(self.reader.run(run))

    def stages(self, run: str) -> list[reading.Stage]:
        return [reading.Stage(**_row(row)) for row in self.reader.stages(run)]

    def changes(self, which: reading.ChangeFilter) -> list[reading.Change]:
        return [reading.Change(**_row(row)) for row in self.reader.changes(**asdict(which))]

    def record(self, collection: str, id: str) -> reading.Record | None:
        row = self.reader.record(collection, id)
        return None if row is None else reading.Record(collection, row["id"], _row(row)["doc"])

    def history(self, collection: str, id: str, before: int | None, limit: int) -> list[reading.Change]:
        return [reading.Change(**_row(row)) for row in self.reader.history(collection, id, before, limit)]

    def run_rows(self, since: float) -> Sequence[Mapping[str, Any]]:
        return self.reader.run_rows(since)

    def modules(self) -> Sequence[reading.Module]:
        found: list[reading.Module] = self._modules.get()
        return found

    def _examine(self) -> list[reading.Module]:
        from flows.operations.health import examine

        prepare(self.workspace.home, os.environ)
        return [reading.Module(row.module, row.status, row.text, row.seconds) for row in examine(self.workspace)]

    def run_link(self, run: str) -> str | None:
        pages = self._server.get()
        return f"{pages}/runs/flow-run/{run}" if pages else None

    def commit_link(self, run: str) -> str | None:
        body = self.reader.notice(f"changed:{run}")
        return (msgspec.json.decode(body, type=Notice).link or None) if body else None


def prefect_pages(workspace: Workspace, environ: Mapping[str, str]) -> str | None:
    """The address of Prefect's own pages; None when no server is known."""
    if url := environ.get("PREFECT_UI_URL"):
        return url.rstrip("/")
    api = own_server(environ) or running_server(workspace.home)
    if not api or is_temporary(api):
        return None
    if found := CLOUD.match(api):
        return f"https://app.prefect.cloud/account/{found[1]}/workspace/{found[2]}"
    return api.rstrip("/").removesuffix("/api")


def access(host: str, token: str | None, names: Sequence[str]) -> Access:
    """Who may read a dashboard on this host.

    Raises:
        ConfigError: Others could read everything without a token, or the token is weak.
    """
    check_exposure(host, token)
    anywhere = host in ("0.0.0.0", "::")  # noqa: S104  # compared, not bound
    return Access(token, None if anywhere and not names else LOOPBACK | {host} | set(names))


def serve(workspace: Workspace, host: str, port: int, names: Sequence[str], say: Callable[[str], None]) -> None:
    """Serve the dashboard until SIGINT or SIGTERM.

    Args:
        names: Further host names that people reach it by.
        say: Takes lines for the terminal.
    """
    admitted = access(host, os.environ.get(VARIABLE) or None, names)
    language = workspace.settings.report.language
    open_log(workspace.home.log)

    import uvicorn

    from reports.dashboard.app import create_app

    app = create_app(StoreReading(workspace), admitted, language=language)
    config = uvicorn.Config(
        app, host, port, log_level="warning", access_log=False, timeout_graceful_shutdown=2, server_header=False
    )
    say(f"Dashboard     http://{f'[{host}]' if ':' in host else host}:{port}")
    server = uvicorn.Server(config)
    try:
        server.run()
    except SystemExit:
        raise ConfigError(f"port {port} on {host} can't be used", todo="choose another with --port") from None
