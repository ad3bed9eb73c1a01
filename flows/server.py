"""Which Prefect server a command talks to: the user's own, the one of `autosync up`, else one started for the command.

Everything here works on the environment and must run before Prefect is imported.
"""

from __future__ import annotations

import json
import tempfile
import tomllib
import urllib.error
import urllib.request
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from autosync.errors import StoreError
from autosync.settings import Home

LEASES = "prefect.server.concurrency.lease_storage.filesystem"
QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": LEASES,
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "PREFECT_CLI_PROMPT": "false",
}
# On SQLite a request that reads and then writes fails when somebody has written in between, and Prefect's client asks
# again after 2 s. The server's own writes, one an event, did that to half of the requests of a run: they are gathered.
GATHERED = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "500",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "500",
}
STATE = "server.json"


def own_server(environ: Mapping[str, str]) -> str | None:
    """The Prefect server that the user has: PREFECT_API_URL, else the active profile's; None for none."""
    if environ.get("PREFECT_API_URL"):
        return environ["PREFECT_API_URL"]
    folder = Path(environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    path = Path(environ.get("PREFECT_PROFILES_PATH") or folder / "profiles.toml")
    try:
        profiles = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError):
        return None
    active = environ.get("PREFECT_PROFILE") or profiles.get("active")
    url = profiles.get("profiles", {}).get(active, {}).get("PREFECT_API_URL")
    return str(url) if url else None


def running_server(home: Home) -> str | None:
    """The API address of the server that `autosync up` runs for this home, when it answers."""
    try:
        url = str(json.loads((home.prefect / STATE).read_text())["api"])
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:  # noqa: S310  # our own server
            return url if answer.status == 200 else None
    except (OSError, ValueError, KeyError, urllib.error.URLError):
        return None


def prepare(home: Home, environ: MutableMapping[str, str]) -> str | None:
    """Set the environment for Prefect and Great Expectations before they are imported.

    Returns:
        The API address of a server that runs already; None when Prefect will start one for this command.
    """
    for name, value in (QUIET | GATHERED).items():
        environ.setdefault(name, value)
    environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    if url := own_server(environ):
        return url
    environ.setdefault("PREFECT_HOME", str(home.prefect))
    _make(Path(environ["PREFECT_HOME"]))
    environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    if url := running_server(home):
        environ["PREFECT_API_URL"] = url
        return url
    environ.setdefault("PREFECT_SERVER_ALLOW_EPHEMERAL_MODE", "true")
    return None


def _make(folder: Path) -> None:
    """Make Prefect's home and prove that it can be written, before Prefect fails on it with a long trace."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StoreError(
            f"the home folder can't be written: {error.strerror}",
            where=str(folder),
            kept="everything; nothing was started",
            todo="make it writable, make room on the disk, or choose another folder with --home",
        ) from None
