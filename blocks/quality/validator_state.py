"""The validator's state file, and the lock beside it that says whether the validator lives.

The lock goes with the process, however that ends. So a state file without it is stale, whatever process has
the number in it by now, and two validators can't stand on one file.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import msgspec

from blocks.files import replacing

TICK = 0.05


class State(msgspec.Struct, frozen=True):
    """Where a validator listens, the key (hex) that it asks for, and whether it is ready to work."""

    pid: int
    port: int
    key: str
    ready: bool

    def __repr__(self) -> str:
        return f"State(pid={self.pid}, port={self.port}, key=***, ready={self.ready})"


def beside(state: Path, suffix: str) -> Path:
    """A file that belongs to the state file."""
    return state.with_name(state.name + suffix)


def read(state: Path) -> State | None:
    """What the file says; None when there is none."""
    try:
        return msgspec.json.decode(state.read_bytes(), type=State)
    except (OSError, msgspec.DecodeError):
        return None


def write(state: Path, note: State) -> None:
    """Replace the file at once; only its owner may read it."""
    with replacing(state, mode=0o600) as file:
        file.write(msgspec.json.encode(note))


def claim(state: Path) -> int | None:
    """The lock of a living validator, held until the process ends; None when another one has it.

    Tried for a moment, because somebody who only looks holds it for an instant.
    """
    handle = os.open(beside(state, ".lock"), os.O_CREAT | os.O_RDWR, 0o600)
    for _ in range(20):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except BlockingIOError:
            time.sleep(TICK)
    os.close(handle)
    return None


def serving(state: Path) -> bool:
    """Whether a validator lives, be it ready or still starting."""
    try:
        handle = os.open(beside(state, ".lock"), os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(handle)


def ready(state: Path) -> bool:
    """Whether a validator with Great Expectations imported is waiting for requests."""
    note = read(state)
    return note is not None and note.ready and serving(state)
