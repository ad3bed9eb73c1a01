"""How a plain function becomes a stage: an async Prefect task that works in a thread, retried by policy, timed.

What a service asks to wait is waited for inside the task, or outside the lock when one is held.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from autosync.errors import AutoSyncError
from autosync.policy import LONGEST_WAIT, retries_at_once, retry_delays
from flows.waiting import Patience

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State, TaskRun
    from prefect.tasks import Task

P = ParamSpec("P")
R = TypeVar("R")
RETRIES = 3


@dataclass
class Recorder:
    """The stages of one run: name, state, started (Unix seconds), seconds, retries."""

    stages: list[dict[str, Any]] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[dict[str, Any]]:
        row: dict[str, Any] = {"name": name, "state": "running", "started": time.time(), "seconds": 0.0, "retries": -1}
        before = next((stage for stage in self.stages if stage["name"] == name), None)
        if before is not None and before["state"] != "done":  # this is its next try
            row["retries"] = before["retries"]
        self.stages = [stage for stage in self.stages if stage["name"] != name] + [row]
        clock = time.perf_counter()
        try:
            yield row
            row["state"] = "done"
        except BaseException as error:
            row["state"] = getattr(error, "outcome", "failed")
            raise
        finally:
            row["seconds"] = round(time.perf_counter() - clock, 4)
            row["retries"] = max(row["retries"], 0)


_recorder: ContextVar[Recorder | None] = ContextVar("recorder", default=None)
_row: ContextVar[dict[str, Any] | None] = ContextVar("row", default=None)


@contextmanager
def recording() -> Iterator[Recorder]:
    """Note the stages that run inside."""
    recorder = Recorder()
    token = _recorder.set(recorder)
    try:
        yield recorder
    finally:
        _recorder.reset(token)


def _may_help(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:  # noqa: ARG001  # Prefect's signature
    """Prefect's retry condition: only errors that say that a retry can help, and don't say when."""
    return isinstance(state.data, BaseException) and retries_at_once(state.data)


class Stage(Generic[P, R]):
    """An async function as a stage. Calling it runs a Prefect task; the task is made when first needed,
    so that commands which only look at things don't pay for the import of Prefect.
    """

    def __init__(
        self, function: Callable[P, Awaitable[R]], name: str, description: str, retries: int, longest_wait: float
    ) -> None:
        self.function, self.name, self.description = function, name, description
        self.retries, self.longest_wait = retries, longest_wait

    @cached_property
    def task(self) -> Task[..., Any]:
        """The Prefect task, for people who compose their own flows."""
        from prefect import task
        from prefect.cache_policies import NO_CACHE

        async def work(*args: Any, **kwargs: Any) -> R:
            row, patience = _row.get(), Patience(self.name, self.longest_wait)
            while True:
                if row is not None:
                    row["retries"] += 1
                try:
                    return await self.function(*args, **kwargs)
                except AutoSyncError as error:
                    await patience.wait(error)

        decorate: Any = task(
            name=self.name,
            description=self.description,
            tags=["autosync", f"stage:{self.name}"],
            retries=self.retries,
            retry_delay_seconds=retry_delays(self.retries),
            retry_jitter_factor=0.3,
            retry_condition_fn=_may_help,
            cache_policy=NO_CACHE,
            persist_result=False,
        )
        made: Task[..., Any] = decorate(wraps(self.function)(work))
        return made

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        recorder = _recorder.get() or Recorder()
        with recorder.stage(self.name) as row:
            token = _row.set(row)
            try:
                result: R = await self.task(*args, **kwargs)
            finally:
                _row.reset(token)
        return result


def async_stage(
    name: str, description: str, *, retries: int = RETRIES, longest_wait: float = LONGEST_WAIT
) -> Callable[[Callable[P, Awaitable[R]]], Stage[P, R]]:
    """Make an async function a stage: a Prefect task with name, tags and the retry policy, noted by the Recorder.

    Args:
        longest_wait: Seconds that it waits in all because a service asks for it.
    """
    return lambda function: Stage(function, name, description, retries, longest_wait)


def stage(
    name: str, description: str, *, retries: int = RETRIES, longest_wait: float = LONGEST_WAIT
) -> Callable[[Callable[P, R]], Stage[P, R]]:
    """The same for a plain function, which works in a thread so that the flow can renew its lease meanwhile."""

    def wrap(function: Callable[P, R]) -> Stage[P, R]:
        @wraps(function)
        async def in_thread(*args: P.args, **kwargs: P.kwargs) -> R:
            return await asyncio.to_thread(function, *args, **kwargs)

        return async_stage(name, description, retries=retries, longest_wait=longest_wait)(in_thread)

    return wrap
