"""Deployments as the scheduler: what has a schedule is run by the server and a worker, without anybody asking."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from autosync.errors import StoreError
from blocks.store.reader import Reader
from tests.integration.service import Service, up

PATIENCE = 120
CONFIG = """
[[source]]
name = "things"
location = "things.json"
key = "/id"
schedule = 5
"""


def runs(service: Service) -> list[tuple[str, int]]:
    """Outcome and inserted records of every scheduled run that ended, oldest first."""
    rows: list[dict[str, Any]] = []
    with suppress(StoreError):  # the first run is just making it
        rows = Reader(service.home / "autosync.db").run_rows(0)
    return [(row["outcome"], row["inserted"]) for row in rows if row["scheduled"] and row["outcome"]]


def wait_for(found: Callable[[], bool], service: Service) -> None:
    end = time.monotonic() + PATIENCE
    while not found():
        assert time.monotonic() < end, (runs(service), (service.home / "logs" / "app.log").read_text()[-4000:])
        time.sleep(0.5)


def test_a_source_with_a_schedule_is_synced_again_and_again(tmp_path: Path) -> None:
    """The server plans the runs, the worker does them; a change is stored by the next one. Nothing is complained of."""
    (tmp_path / "autosync.toml").write_text(CONFIG)
    (tmp_path / "things.json").write_text('[{"id": 1}]')
    with up(Service(tmp_path), "--no-observe") as service:
        wait_for(lambda: ("changed", 1) in runs(service), service)
        (tmp_path / "things.json").write_text('[{"id": 1}, {"id": 2}, {"id": 3}]')
        wait_for(lambda: ("changed", 2) in runs(service), service)
        assert service.json("verify")["equal"] is True
        assert "Traceback" not in (service.home / "logs" / "app.log").read_text()
