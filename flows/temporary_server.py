"""A Prefect server for the time of one command, where no other one runs."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import IO

from autosync.errors import AutoSyncError
from autosync.settings import Home
from flows.log import mask, note
from flows.loopback import free_port
from flows.prefect_server import API_URL, CLIENT_SECRET, SERVER_SECRET, prepare, served

START_SECONDS = 120.0
STOP_SECONDS = 5.0
STARTS = 3


@dataclass
class TemporaryServer:
    """The server process. It ends with this process however that ends, because its standard input does."""

    url: str
    process: subprocess.Popen[bytes]
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=5))

    def copy_errors(self, errors: IO[bytes]) -> None:
        """Keep what it complains of in logs/app.log, until it ends."""
        for line in errors:
            text = line.decode("utf-8", "replace").rstrip()
            self.last_lines.append(text)
            note("server", text)

    def stop(self) -> None:
        """Ask it to end, then make it."""
        if self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


_running: list[TemporaryServer] = []


def reach_server(home: Home, environ: MutableMapping[str, str]) -> None:
    """Begin to start a server unless one runs already, and point Prefect to it; before Prefect is imported.

    `wait_until_served` waits for it, so that the import of Prefect goes on meanwhile.
    """
    if prepare(home, environ) is None:
        _start(environ)


def wait_until_served(environ: MutableMapping[str, str]) -> None:
    """Wait until a server that was begun to start answers.

    Raises:
        AutoSyncError: It ended, or took longer than START_SECONDS.
    """
    if not _running:
        return
    end = time.monotonic() + START_SECONDS
    for _ in range(STARTS):
        server = _running[-1]
        while server.process.poll() is None and time.monotonic() < end:
            if served(server.url, environ[SERVER_SECRET]):
                return
            time.sleep(0.1)
        server.stop()
        if time.monotonic() >= end:
            break
        _start(environ)  # somebody else may have taken its port
    _running.pop().stop()
    complaint = mask("; ".join(server.last_lines))
    raise AutoSyncError(
        "Prefect's own server for this command did not start" + (f": {complaint}" if complaint else ""),
        where=server.url,
        kept="everything; nothing was started",
        todo="see logs/app.log in the home folder; is the folder writable?",
    )


def is_temporary(url: str | None) -> bool:
    """Whether an API address is that of a server which this process started for itself."""
    return any(server.url == url for server in _running)


def without_server(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for programs that are not ours: without the server that this process started for itself."""
    ours = (API_URL, CLIENT_SECRET, SERVER_SECRET) if is_temporary(environ.get(API_URL)) else ()
    return {name: value for name, value in environ.items() if name not in ours}


def _start(environ: MutableMapping[str, str]) -> None:
    port = free_port(0)
    environ[API_URL] = url = f"http://127.0.0.1:{port}/api"
    command = [sys.executable, "-m", "flows.server_app", "--temporary", "--port", str(port)]
    process = subprocess.Popen(
        command,
        env={**os.environ, **environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C reaches only the command, which then ends it in order
    )
    server = TemporaryServer(url, process)
    assert process.stderr
    threading.Thread(target=server.copy_errors, args=[process.stderr], daemon=True).start()
    _running.append(server)
    atexit.register(server.stop)
