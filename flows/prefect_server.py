"""Which Prefect server a command talks to: the user's own, the one of `autosync up`, else one started for the command.

Everything here works on the environment and must run before Prefect is imported.
"""

from __future__ import annotations

import json
import os
import secrets
import tempfile
import tomllib
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
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
SECRET = "api-secret"  # noqa: S105  # a file's name
API_URL, CLIENT_SECRET, SERVER_SECRET = "PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"


def own_server(environ: Mapping[str, str]) -> str | None:
    """The Prefect server that the user has: PREFECT_API_URL, else the active profile's; None for none."""
    if environ.get(API_URL):
        return environ[API_URL]
    folder = Path(environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    path = Path(environ.get("PREFECT_PROFILES_PATH") or folder / "profiles.toml")
    try:
        profiles = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError):
        return None
    active = environ.get("PREFECT_PROFILE") or profiles.get("active")
    url = profiles.get("profiles", {}).get(active, {}).get(API_URL)
    return str(url) if url else None


def served(url: str, secret: str) -> bool:
    """Whether a Prefect server of this machine answers at an API address and takes a secret."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    credentials = b64encode(secret.encode()).decode()
    request = urllib.request.Request(f"{url}/admin/version", headers={"Authorization": f"Basic {credentials}"})  # noqa: S310
    try:
        with direct.open(request, timeout=2) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def running_server(home: Home) -> str | None:
    """The API address of the server that `autosync up` runs for this home, when it answers."""
    url = _noted_server(home)
    return url if url and served(url, api_secret(home)) else None


def _noted_server(home: Home) -> str | None:
    try:
        return str(json.loads((home.prefect / STATE).read_text())["api"])
    except (OSError, ValueError, KeyError):
        return None


def api_secret(home: Home) -> str:
    """The secret that the servers of a home ask for, in the form of Prefect's API auth string; made once.

    Raises:
        StoreError: It can be neither read nor written.
    """
    path = home.prefect / SECRET
    try:
        with suppress(FileNotFoundError):
            if text := path.read_text("ascii").strip():
                return text
            path.unlink()  # a crash left it empty
        _make(home.prefect)
        handle, fresh = tempfile.mkstemp(prefix=f".{SECRET}-", dir=home.prefect)  # only its owner may read it
        try:
            with os.fdopen(handle, "w") as file:
                file.write(f"autosync:{secrets.token_urlsafe(32)}\n")
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):  # another process was faster: its secret counts
                os.link(fresh, path)
        finally:
            os.unlink(fresh)  # noqa: PTH108  # beside its mkstemp
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(
            f"the secret of Prefect's server can't be kept: {getattr(error, 'strerror', None) or 'it is no text'}",
            where=str(path),
            kept="everything; nothing was started",
            todo="make the folder writable; a damaged file may be deleted, another secret is made then",
        ) from None


def lease_folder(home: Home, environ: Mapping[str, str]) -> Path | None:
    """Where the servers that AutoSync starts for a home keep leases; None on a server that others may use too."""
    if environ.get("PREFECT_HOME") != str(home.prefect):
        return None
    return home.prefect / "concurrency_leases"


def prepare(home: Home, environ: MutableMapping[str, str]) -> str | None:
    """Set the environment for Prefect and Great Expectations before they are imported.

    Returns:
        The API address of a server that runs already; None when one must be started.
    """
    for name, value in (QUIET | GATHERED).items():
        environ.setdefault(name, value)
    environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
    if url := own_server(environ):
        if url == _noted_server(home):
            environ.setdefault(CLIENT_SECRET, api_secret(home))
        return url
    environ.setdefault("PREFECT_HOME", str(home.prefect))
    _make(Path(environ["PREFECT_HOME"]))
    environ[CLIENT_SECRET] = environ[SERVER_SECRET] = api_secret(home)
    environ["PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"] = "false"  # Prefect would start one that anybody may talk to
    if url := running_server(home):
        environ[API_URL] = url
        return url
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
