"""A run that is killed while it holds the locks costs the next one nothing, on every server that users have."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.loopback import free_port
from tests.integration.service import ROOT, START_SECONDS, Service, up

CONFIG = '[[source]]\nname = "things"\nlocation = "things.json"\nkey = "/id"\n[source.guard]\nmax_delete = 1\n'
RECORDS = 3000
WAIT_SECONDS = 45  # a lease lasts 60 s
LEASE_SECONDS = 100  # until a server of the user's own frees one that ran out
KINDS = ["temporary", "up", "own"]


class OwnServer(Service):
    """A home whose user has a Prefect server with Prefect's own settings: no secret, leases in memory."""

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {"PREFECT_API_URL": str(self.api)}


@pytest.fixture(scope="module", params=KINDS)
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "autosync.toml").write_text(CONFIG)
    write(folder, 0)
    if request.param == "temporary":
        yield Service(folder)
    elif request.param == "up":
        with up(Service(folder), "--no-observe") as running:
            yield running
    else:
        yield from own_server(folder)


def own_server(folder: Path) -> Iterator[Service]:
    port = free_port(0)
    service = OwnServer(folder, f"http://127.0.0.1:{port}/api")
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, env=service.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + START_SECONDS
        while True:
            with suppress(OSError), urllib.request.urlopen(f"{service.api}/health", timeout=5):
                break
            assert process.poll() is None and time.monotonic() < end, "the server did not start"
            time.sleep(0.2)
        yield service
    finally:
        process.terminate()
        process.wait(30)


def write(folder: Path, version: int) -> None:
    rows = [{"id": f"k{n}", "version": version} for n in range(RECORDS)]
    (folder / "things.json").write_text(json.dumps(rows))


def query(service: Service, sql: str) -> list[tuple[Any, ...]]:
    with suppress(sqlite3.Error), closing(sqlite3.connect(service.home / "autosync.db", timeout=30)) as db:
        return db.execute(sql).fetchall()
    return []


def kill_when(service: Service, sql: str) -> int:
    """Start a run and kill it as soon as a query answers with rows. Returns its pid."""
    process = subprocess.Popen(
        service.command("run"),
        env=service.environment,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not query(service, sql):
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return process.pid


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.parametrize(
    "moment",
    [
        "SELECT 1 FROM _lease WHERE lease IS NULL",
        "SELECT 1 FROM _lease WHERE lease IS NOT NULL",
        "SELECT 1 FROM batch WHERE last_seq > (SELECT max(seq) FROM consumer WHERE consumer = 'push')",
    ],
    ids=["asking", "granted", "stored"],
)
def test_the_next_run_goes_on_at_once(service: Service, moment: str) -> None:
    """Killed while it asks for the locks, while it has them, or between store and push: the next run doesn't wait.

    But for one moment on a server of the user's own: granted, and killed before the answer was noted. That server
    lists no leases, so that this one must run out.
    """
    write(service.folder, 0)
    service.run("run")
    write(service.folder, time.time_ns())
    killed = kill_when(service, moment)
    found = service.json("run")["runs"][0]
    assert found["outcome"] in ("changed", "unchanged") and found["commit"], found
    waited = {stage["name"]: stage["seconds"] for stage in found["stages"]}["lock"]
    unlisted = isinstance(service, OwnServer) and "IS NULL" in moment
    assert waited < (LEASE_SECONDS if unlisted else WAIT_SECONDS), found
    assert query(service, "SELECT * FROM _lease") == []
    assert query(service, "SELECT * FROM fence WHERE released IS NULL") == []
    assert service.json("verify")["equal"] is True
    if "IS NULL" not in moment:  # it met the lease, and says so
        assert f"process {killed} is gone" in (service.home / "logs" / "app.log").read_text()


def test_a_temporary_server_ends_with_its_command(tmp_path: Path) -> None:
    """A killed command leaves no server behind, and the server is none of those that anybody may talk to."""
    service = Service(tmp_path)
    (tmp_path / "autosync.toml").write_text(CONFIG)
    write(tmp_path, 0)
    service.run("run")
    write(tmp_path, 1)
    process = subprocess.Popen(service.command("run"), env=service.environment, cwd=ROOT, stdout=subprocess.DEVNULL)
    until(lambda: len(psutil.Process(process.pid).children()) == 1)
    server = psutil.Process(process.pid).children()[0]
    assert "flows.server_app" in server.cmdline()
    secret = (service.home / "prefect" / "api-secret").read_text().strip()
    assert not any(secret in word for word in server.cmdline())
    process.send_signal(signal.SIGKILL)
    process.wait()
    until(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE)


def test_a_holder_that_lives_is_waited_for_and_named(tmp_path: Path) -> None:
    """Who waits says for whom: run, source and process; a process that merely sleeps is not dead."""
    service = Service(tmp_path)
    (tmp_path / "autosync.toml").write_text(CONFIG)
    write(tmp_path, 0)
    service.run("run")
    write(tmp_path, 1)
    holder = subprocess.Popen(service.command("run"), env=service.environment, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        while not query(service, "SELECT 1 FROM consumer WHERE consumer = 'mirror' AND seq = 6000"):
            assert holder.poll() is None  # it pushes then, and has no transaction open
        holder.send_signal(signal.SIGSTOP)
        waiting = subprocess.Popen(
            service.command("run"), env=service.environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        assert waiting.stderr
        line = waiting.stderr.readline().decode()
        assert f"process {holder.pid}" in line and "of source things" in line, line
        holder.send_signal(signal.SIGCONT)
        assert (holder.wait(120), waiting.wait(120)) == (0, 0)
    finally:
        holder.kill()
    assert service.json("verify")["equal"] is True


def test_slots_without_a_lease_are_freed(tmp_path: Path) -> None:
    """A temporary server that died between taking the slots and noting the lease blocks no later run."""
    service = Service(tmp_path)
    (tmp_path / "autosync.toml").write_text(CONFIG)
    write(tmp_path, 0)
    service.run("run")
    with closing(sqlite3.connect(service.home / "prefect" / "prefect.db")) as db, db:
        db.execute("UPDATE concurrency_limit_v2 SET active_slots = 1 WHERE name LIKE 'autosync-%'")
    write(tmp_path, 1)
    assert service.json("run")["runs"][0]["outcome"] == "changed"


def test_an_expired_lease_of_an_older_version_is_freed(tmp_path: Path) -> None:
    """A home that a killed run of the version before left blocked works again: its lease has run out."""
    service = Service(tmp_path)
    (tmp_path / "autosync.toml").write_text(CONFIG)
    write(tmp_path, 0)
    service.run("run")
    write(tmp_path, 1)
    kill_when(service, "SELECT 1 FROM _lease WHERE lease IS NOT NULL")
    with closing(sqlite3.connect(service.home / "autosync.db")) as db, db:
        db.execute("DROP TABLE _lease")
    leases = [path for path in (service.home / "prefect" / "concurrency_leases").glob("*-*.json") if held(path)]
    assert len(leases) == 1
    text = json.dumps(json.loads(leases[0].read_text()) | {"expiration": "2026-01-01T00:00:00+00:00"})
    leases[0].write_text(text)
    assert service.json("run")["runs"][0]["commit"]
    assert not leases[0].exists()


def held(path: Path) -> bool:
    return bool(json.loads(path.read_text())["resource_ids"])
