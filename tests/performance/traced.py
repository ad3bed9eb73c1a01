"""`autosync` with a stopwatch: `python -m tests.performance.traced FILE ARGS...` runs `autosync ARGS`.

Writes to FILE as JSON: seconds of each stage's own work, without Prefect's task around it; how many requests
Prefect's client made; and the seconds that it waited before it asked again, by status (503: its database is locked).
"""

from __future__ import annotations

import atexit
import json
import logging
import re
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from flows.cli import main
from flows.tasks import Stage

work: dict[str, float] = {}
waits: list[dict[str, Any]] = []
requests: list[str] = []


def timed(name: str, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """The function, its seconds added up under a name."""

    async def run(*args: Any, **kwargs: Any) -> Any:
        listen()
        clock = time.perf_counter()
        try:
            return await function(*args, **kwargs)
        finally:
            work[name] = work.get(name, 0.0) + time.perf_counter() - clock

    return run


class Notes(logging.Handler):
    """Reads requests and waits out of the clients' log lines."""

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        if found := re.search(r"Another attempt will be made in ([\d.]+)s", said):
            status = re.search(r"status code (\d+)", said)
            waits.append({"status": status[1] if status else "no answer", "seconds": float(found[1])})
        elif said.startswith("HTTP Request"):
            requests.append(said)


_notes = Notes()


def listen() -> None:
    """Hear what the clients log; again, since Prefect sets its loggers up when the first flow runs."""
    for name, level in (("prefect.client", logging.DEBUG), ("httpx", logging.INFO)):
        logger = logging.getLogger(name)
        logger.addHandler(_notes)
        logger.setLevel(level)
        logger.propagate = False


def trace(target: Path) -> None:
    """Attach the stopwatch; the file is written when the program ends."""
    make = Stage.__init__

    def made(
        self: Stage[..., Any], function: Any, name: str, description: str, retries: int, longest_wait: float
    ) -> None:
        make(self, timed(name, function), name, description, retries, longest_wait)

    Stage.__init__ = made  # type: ignore[method-assign]
    listen()
    atexit.register(
        lambda: target.write_text(json.dumps({"work": work, "requests": len(requests), "waits": waits}, indent=2))
    )


if __name__ == "__main__":
    trace(Path(sys.argv[1]))
    sys.argv = ["autosync", *sys.argv[2:]]
    main()
