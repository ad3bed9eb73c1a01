"""An ASGI application behind a real socket for a test, and a client for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import uvicorn
from starlette.types import ASGIApp

START_SECONDS = 30.0


@contextmanager
def serving(app: ASGIApp, **more: Any) -> Iterator[httpx.Client]:
    """Serve an application on a free loopback port until the block ends."""
    server = uvicorn.Server(
        uvicorn.Config(app, "127.0.0.1", 0, log_level="critical", access_log=False, timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        end = time.monotonic() + START_SECONDS
        while not server.started:
            assert thread.is_alive() and time.monotonic() < end, "the server did not start"
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False, **more) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(10)


def ask(api: httpx.Client, path: str, expected: int = 200, /, **parameters: Any) -> Any:
    """An answer's JSON; its status and kind are checked."""
    answer = api.get(f"/api/v1/{path}", params=parameters)
    assert answer.status_code == expected, answer.text[:2000]
    kind = "application/json" if expected == 200 else "application/problem+json"
    assert answer.headers["content-type"] == kind
    return answer.json()
