"""Progress of long work: a bar on a terminal, a Prefect progress artifact elsewhere, nothing for short work."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
SHOW_AFTER = 2.0
EVERY = 2.0


def progress(label: str, items: Iterable[T], size: Callable[[T], int], total: int | None = None) -> Iterator[T]:
    """Pass items through while people see how far the work is.

    Args:
        size: How many units an item is.
        total: Units in all, None when unknown.
    """
    show = _Bar(label, total) if sys.stderr.isatty() else _Artifact(label, total)
    done, started, last = 0, time.monotonic(), 0.0
    try:
        for item in items:
            yield item
            done += size(item)
            clock = time.monotonic()
            if clock - started > SHOW_AFTER and clock - last > (EVERY if isinstance(show, _Artifact) else 0.1):
                show.update(done)
                last = clock
    finally:
        show.close(done)


class _Bar:
    """A rich progress bar on standard error, made when there is something to show."""

    def __init__(self, label: str, total: int | None) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
        from rich.console import Console

        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._label, self._total, self._task = label, total, None

    def update(self, done: int) -> None:
        if self._task is None:
            self._bar.start()
            self._task = self._bar.add_task(self._label, total=self._total)  # type: ignore[assignment]
        self._bar.update(self._task, completed=done)  # type: ignore[arg-type]

    def close(self, done: int) -> None:  # noqa: ARG002  # like the artifact's
        self._bar.stop()


class _Artifact:
    """A progress artifact on the run's page; outside a run nothing is shown."""

    def __init__(self, label: str, total: int | None) -> None:
        self._label, self._total, self._id = label, total, None

    def update(self, done: int) -> None:
        if "prefect" not in sys.modules:  # a command without a run: importing Prefect would cost seconds
            return
        from prefect.artifacts import create_progress_artifact, update_progress_artifact
        from prefect.context import FlowRunContext, TaskRunContext

        if TaskRunContext.get() is None and FlowRunContext.get() is None:
            return
        percent = min(100.0 * done / self._total, 100.0) if self._total else 0.0
        text = f"{self._label}: {done:,}" + (f" of {self._total:,}" if self._total else "")
        if self._id is None:
            self._id = create_progress_artifact(progress=percent, description=text)  # type: ignore[assignment]
        else:
            update_progress_artifact(artifact_id=self._id, progress=percent, description=text)

    def close(self, done: int) -> None:
        if self._id is not None:
            self._total = max(done, 1)
            self.update(done)
