"""Peak memory of a program with all processes that it starts, sampled from outside."""

from __future__ import annotations

import subprocess
import threading

import psutil

EVERY = 0.2


def tree_bytes(process: psutil.Process) -> int:
    """What a process and its descendants hold: pages that several of them share count once."""
    family = [process, *process.children(recursive=True)]
    if len(family) == 1:
        return int(process.memory_info().rss)
    total = 0
    for one in family:
        try:
            total += one.memory_full_info().pss
        except psutil.Error:  # it ended meanwhile
            continue
    return total


class Peak:
    """Watches a program until it ends; `bytes` is the most that was seen."""

    def __init__(self, program: subprocess.Popen[str]) -> None:
        self.bytes = 0
        self._program = program
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        try:
            process = psutil.Process(self._program.pid)
            while self._program.returncode is None:
                self.bytes = max(self.bytes, tree_bytes(process))
                threading.Event().wait(EVERY)
        except psutil.Error:
            return

    def done(self) -> int:
        """The peak, once the program has ended."""
        self._thread.join()
        return self.bytes
