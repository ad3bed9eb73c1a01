"""`autosync up`: server, worker and deployments in the foreground, each a child that is ended by its own pid."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import IO

from autosync.errors import AutoSyncError, ConfigError
from blocks.files import write_whole
from flows.log import note, open_log
from flows.loopback import free_port
from flows.operations.quality import VALIDATOR
from flows.prefect_server import API_URL, CLIENT_SECRET, SECRET, STATE, own_server, prepare, running_server
from flows.workspace import Workspace

START_SECONDS = 120.0
STOP_SECONDS = 15.0
PAGES_PORT = 4280
CLIENT_ENVIRONMENT = "client.env"
RESTARTS = 5


@dataclass
class Child:
    """A process that belongs to this command; restarted a few times when it ends by itself."""

    name: str
    command: list[str]
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0

    def start(self) -> None:
        """Start it in its own session, so that Ctrl-C reaches only this command, which then ends it in order."""
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.process.stderr
        threading.Thread(target=self._note, args=[self.process.stderr], daemon=True).start()

    def _note(self, said: IO[bytes]) -> None:
        """Keep what it complains of in logs/app.log, until it ends."""
        for line in said:
            note(self.name, line.decode("utf-8", "replace").rstrip())

    def stop(self) -> None:
        """Ask it to end, then make it."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass
class Service:
    """The children and whether to go on."""

    workspace: Workspace
    say: Callable[[str], None]
    children: list[Child] = field(default_factory=list)
    stopping: bool = False

    def stop(self, _signal: int = 0, _frame: FrameType | None = None) -> None:
        """Ask the service to end; it does so at its next look."""
        self.stopping = True

    def add(self, name: str, *command: str) -> Child:
        """Start a child."""
        child = Child(name, [sys.executable, *command])
        child.start()
        self.children.append(child)
        return child

    def watch(self) -> None:
        """Restart children that end by themselves, until asked to stop."""
        while not self.stopping:
            for child in self.children:
                if child.process is not None and child.process.poll() is not None:
                    child.restarts += 1
                    if child.restarts > RESTARTS:
                        raise AutoSyncError(
                            f"{child.name} ended {child.restarts} times, last with status {child.process.returncode}",
                            where="autosync up",
                            kept="all data",
                            todo=f"see {self.workspace.home.log} and start it again",
                        )
                    self.say(f"{child.name} ended with status {child.process.returncode}; started again")
                    child.start()
            time.sleep(0.3)

    def close(self) -> None:
        """End the children in the opposite order of their start."""
        for child in reversed(self.children):
            child.stop()


def up(workspace: Workspace, port: int, say: Callable[[str], None], *, observe: bool = True) -> None:
    """Run until SIGINT or SIGTERM.

    Args:
        port: For the Prefect server, where the user has none.
        say: Takes lines for the terminal.
        observe: Sync a source's file within seconds of a save.
    """
    if not own_server(os.environ) and (url := running_server(workspace.home)):
        raise ConfigError(f"autosync up already runs for this home: {url}", where=str(workspace.home.path))
    workspace.settings  # noqa: B018  # a wrong configuration is told before anything starts
    os.environ["AUTOSYNC_HOME"], os.environ["AUTOSYNC_CONFIG"] = str(workspace.home.path), str(workspace.config)
    open_log(workspace.home.log)
    service = Service(workspace, say)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, service.stop)
    server = prepare(workspace.home, os.environ)
    try:
        if server is None:
            server = _start_server(service, free_port(port))
        _deploy(workspace, say, server)
        service.add("worker", "-m", "prefect", "worker", "start", "--pool", "autosync", "--type", "process")
        if observe:
            service.add("observer", "-m", "flows.service.observer")
        pages = str(free_port(PAGES_PORT))
        service.add("dashboard", "-m", "flows.cli", "dashboard", "--port", pages)
        say(f"Dashboard     http://127.0.0.1:{pages}")
        _start_validator(service)
        say("Ready. Ctrl-C ends it.")
        service.watch()
    finally:
        say("Stopping ...")
        service.close()
        for name in (STATE, CLIENT_ENVIRONMENT):
            (workspace.home.prefect / name).unlink(missing_ok=True)


def _start_server(service: Service, port: int) -> str:
    url, state = f"http://127.0.0.1:{port}/api", service.workspace.home.prefect / STATE
    os.environ |= {API_URL: url, "PREFECT_SERVER_UI_API_URL": url}
    service.say("Starting the Prefect server ...")
    child = service.add("server", "-m", "flows.server_app", "--port", str(port))
    write_whole(state, json.dumps({"api": url, "pid": child.process.pid if child.process else 0}).encode())
    end = time.monotonic() + START_SECONDS
    while running_server(service.workspace.home) is None:
        if service.stopping or time.monotonic() > end or (child.process and child.process.poll() is not None):
            raise AutoSyncError("the Prefect server did not start", where=url, todo="is the home folder writable?")
        time.sleep(0.2)
    return url


def _deploy(workspace: Workspace, say: Callable[[str], None], server: str) -> None:
    from flows.service.deployments import match

    names = asyncio.run(match(workspace))
    say(f"Prefect UI    {server.removesuffix('/api')}")
    if server == running_server(workspace.home):
        say(f"  it asks for the secret in {os.path.relpath(workspace.home.prefect / SECRET)}")
        settings = workspace.home.prefect / CLIENT_ENVIRONMENT
        exports = (f"export {name}={os.environ[name]}\n".encode() for name in (API_URL, CLIENT_SECRET))
        write_whole(settings, exports, mode=0o600)
        say(f"Other shells  source {os.path.relpath(settings)}; prefect deployment run 'sync/SOURCE'")
    say(f"Deployments   {', '.join(names)}")


def _start_validator(service: Service) -> None:
    """Keep Great Expectations warm, where some source has dataset checks."""
    if any(source.expect.dataset for source in service.workspace.settings.source):
        service.add(
            "validator", "-m", "blocks.quality.validator", "--state", str(service.workspace.home.path / VALIDATOR)
        )
