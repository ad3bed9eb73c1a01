"""A real `autosync up` for tests: its own home, free ports, ended by its own pid."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_SECONDS = 180.0
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Service:
    """A folder with a configuration, and the Prefect server that runs for it (None for none) with its secret."""

    folder: Path
    api: str | None = None
    secret: str = ""

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a user who has nothing set."""
        dropped = ("PREFECT_", "AUTOSYNC_", "GIT_")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
        return clean | {"HOME": str(self.folder), "COLUMNS": "200"}

    def command(self, *args: str) -> list[str]:
        """The command line of `autosync` for this folder."""
        config = str(self.folder / "autosync.toml")
        return [sys.executable, "-m", "flows.cli", "--home", str(self.home), "--config", config, *args]

    def run(self, *args: str, status: int | None = 0, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        """Run `autosync ARGS` and check its exit status."""
        done = subprocess.run(
            self.command(*args), env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=timeout
        )
        assert status is None or done.returncode == status, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *args: str, status: int | None = 0) -> Any:
        """Run a command with --json and parse what it prints."""
        return json.loads(self.run(*args, "--json", status=status).stdout)

    def prefect(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run Prefect's own command line against the server."""
        environment = self.environment | {"PREFECT_API_URL": str(self.api), "AUTOSYNC_HOME": str(self.home)}
        environment["PREFECT_API_AUTH_STRING"] = self.secret
        environment["AUTOSYNC_CONFIG"] = str(self.folder / "autosync.toml")
        return subprocess.run(
            [sys.executable, "-m", "prefect", *args],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=240,
        )

    def post(self, path: str, body: Any) -> Any:
        """Ask the Prefect API."""
        request = urllib.request.Request(
            f"{self.api}{path}",
            json.dumps(body).encode(),
            {"content-type": "application/json", "authorization": f"Basic {b64encode(self.secret.encode()).decode()}"},
            method="POST",
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")


@contextmanager
def up(service: Service, *options: str) -> Iterator[Service]:
    """Run `autosync up` until the block ends."""
    log = (service.folder / "up.log").open("wb")
    process = subprocess.Popen(
        service.command("up", "--port", "0", *options),
        env=service.environment,
        cwd=ROOT,
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        end = time.monotonic() + START_SECONDS
        while "Ready" not in (said := (service.folder / "up.log").read_text()):
            assert process.poll() is None and time.monotonic() < end, said
            time.sleep(0.2)
        service.api = json.loads((service.home / "prefect" / "server.json").read_text())["api"]
        service.secret = (service.home / "prefect" / "api-secret").read_text().strip()
        yield service
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        finally:
            process.kill()
            log.close()
