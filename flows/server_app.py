"""Prefect's server as AutoSync starts it: it answers only loopback names, and no page of another origin.

Prefect has no setting for the Host header, so its application stands behind Starlette's TrustedHostMiddleware here.
Settings, the API secret among them, come by the environment.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

HOST = "127.0.0.1"
ALLOWED_HOSTS = ("localhost", "127.0.0.1", "[::1]")
STOP_SECONDS = 3
TEMPORARY = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1"}


def origins(port: int) -> list[str]:
    """The origins of the server's own UI, under each name that a person may open it by."""
    return [f"http://{host}:{port}" for host in ("localhost", "127.0.0.1")]


def create() -> ASGIApp:
    """Prefect's application behind a check of the Host header, against DNS rebinding."""
    from prefect.server.api.server import create_app
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    return TrustedHostMiddleware(create_app(final=True), allowed_hosts=ALLOWED_HOSTS, www_redirect=False)


def main() -> None:
    """Serve until SIGTERM or SIGINT; a temporary server only as long as its parent holds its standard input open."""
    parser = argparse.ArgumentParser(description="Prefect's server for one AutoSync home.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--temporary", action="store_true", help="no UI, no services; ends with its parent")
    options = parser.parse_args()
    os.umask(0o077)
    os.environ["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] = ",".join(origins(options.port))
    if options.temporary:
        os.environ.update(TEMPORARY)
    import uvicorn

    server = uvicorn.Server(
        uvicorn.Config(
            create(),
            host=HOST,
            port=options.port,
            log_level="error" if options.temporary else "warning",
            timeout_graceful_shutdown=STOP_SECONDS,
            lifespan="on",
        )
    )
    if options.temporary:
        threading.Thread(target=_end_with_parent, args=[server], daemon=True).start()
    server.run()


def _end_with_parent(server: uvicorn.Server) -> None:
    sys.stdin.buffer.read()
    server.should_exit = True


if __name__ == "__main__":
    main()
