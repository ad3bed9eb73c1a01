"""Identity of a process across reuse of its number: pid, start time and boot, and the proof that it is gone."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ProcessId", "current_process", "is_dead"]

_ENDED_STATES = ("Z", "X")  # a zombie waits for its parent only


@dataclass(frozen=True)
class ProcessId:
    """A process of one boot of one machine.

    Attributes:
        pid: Its number, which the system gives out again.
        start: When it started, as the system counts: clock ticks since boot on Linux, so that no clock step changes it.
        boot: The boot, on Linux with the PID namespace; "" when the system tells none.
    """

    pid: int
    start: str
    boot: str


def current_process() -> ProcessId:
    """This process."""
    pid = os.getpid()
    return ProcessId(pid, _start_of(pid) or "", _boot())


def is_dead(process: ProcessId) -> bool:
    """Whether a process provably ended: same boot and namespace, and its number is free or another process's."""
    return bool(process.boot) and process.boot == _boot() and _start_of(process.pid) != process.start


def _boot() -> str:
    if sys.platform == "linux":
        try:
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
        except OSError:
            return ""
    return _output("sysctl", "-n", "kern.bootsessionuuid")


def _start_of(pid: int) -> str | None:
    """When a process started; None when there is no such process."""
    if sys.platform != "linux":
        return _output("ps", "-o", "lstart=", "-p", str(pid)) or None
    try:
        # proc(5): pid (comm) state ppid ... starttime is field 22; comm may hold spaces and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in _ENDED_STATES else fields[19]


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout.strip()
    except OSError:
        return ""
