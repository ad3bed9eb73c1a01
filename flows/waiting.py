"""Waiting as long as a service asks to: said in the run's state and logs, up to a limit, and while no lock is held.

Prefect's own retries come after delays that are fixed when a task is made, with a jitter that shortens them too; the
wait that an error asks for is ours.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

from autosync.errors import AutoSyncError
from autosync.policy import LONGEST_WAIT, wait_before_retry
from flows.log import event, mask
from flows.workspace import now

T = TypeVar("T")
JITTER = (0.01, 0.1)  # shares of the wait that are added
_locked: ContextVar[bool] = ContextVar("locked", default=False)
_waits: ContextVar[asyncio.Event | None] = ContextVar("waits", default=None)


class Patience:
    """Waits as errors ask, until that comes to `longest` seconds in all.

    Args:
        name: What goes on afterwards: a stage.
    """

    def __init__(self, name: str, longest: float = LONGEST_WAIT) -> None:
        self.name, self.longest = name, longest
        self._waited, self._tries = 0.0, 0

    async def wait(self, error: AutoSyncError) -> None:
        """Wait as long as the error asks, a little longer at random so that not all come back at once.

        Raises:
            AutoSyncError: The error, when it asks for no wait, or when somebody who holds a lock has to wait outside
                it; one that says when to run again, when the wait is too long.
        """
        if error.retry_after is None or _locked.get():
            raise error
        seconds = wait_before_retry(error.retry_after, self._tries)
        until = f"{datetime.fromtimestamp(now() + seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
        if self._waited + seconds > self.longest:
            raise type(error)(
                f"{error.what}; a run waits {self.longest:.0f} s at most",
                where=error.where,
                kept=error.kept,
                todo=f"nothing; the next run after {until} does the rest",
                retry_after=error.retry_after,
            ) from None
        self._waited, self._tries = self._waited + seconds, self._tries + 1
        await _say(f"{mask(error.what)}; {self.name} goes on at {until}, meanwhile no lock is held")
        if (waits := _waits.get()) is not None:
            waits.set()
        await asyncio.sleep(seconds * (1 + random.uniform(*JITTER)))  # noqa: S311  # spreads waiters, guards nothing
        await _set_state("Running", "")


@contextmanager
def locked() -> Iterator[None]:
    """Inside, nobody waits: an error that asks for it comes out, so that the lock is given back first."""
    token = _locked.set(True)
    try:
        yield
    finally:
        _locked.reset(token)


async def start(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a run as a task; come back when it has ended, or waits because a service asks to."""
    waits = asyncio.Event()
    token = _waits.set(waits)
    try:
        task = asyncio.create_task(work)
    finally:
        _waits.reset(token)
    waiting = asyncio.create_task(waits.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    return task


async def _say(text: str) -> None:
    """Say it in the run's state and log, in logs/app.log, and on the terminal of a command."""
    from prefect import get_run_logger, runtime
    from prefect.exceptions import MissingContextError

    source = (runtime.flow_run.parameters or {}).get("source", "-")
    event(str(runtime.flow_run.id), source, text, logging.WARNING)
    with suppress(MissingContextError):
        get_run_logger().warning(text)
    if runtime.deployment.id is None:
        print(f"autosync: {source}: {text}", file=sys.stderr, flush=True)
    await _set_state("Waiting", text)


async def _set_state(name: str, text: str) -> None:
    """Show in Prefect what the run does; one that is being cancelled is left alone."""
    import httpx
    from prefect import runtime
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectException
    from prefect.states import Running

    if runtime.flow_run.id is None:
        return
    run = UUID(runtime.flow_run.id)
    with suppress(httpx.HTTPError, PrefectException):  # the wait is what matters; it stands in the log, too
        async with get_client() as client:
            state = (await client.read_flow_run(run)).state
            if state is not None and state.is_running():
                await client.set_flow_run_state(run, Running(name=name, message=text), force=True)
