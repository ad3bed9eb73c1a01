"""The validator: a process that has Great Expectations imported, so that a changed batch doesn't wait for that.

It listens on the loopback address, lets in who knows the key in its state file, and answers one request at a
time. Bytes of JSON travel, never pickles; the rows stay in their file.
"""

from __future__ import annotations

import argparse
import atexit
import math
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener, answer_challenge, deliver_challenge
from pathlib import Path
from threading import Lock, Thread
from typing import NoReturn

import msgspec

from autosync.errors import AutoSyncError, ConfigError, RemoteError, RemoteUnavailable, StoreError
from autosync.settings import DatasetCheck
from blocks.quality import expectations
from blocks.quality.expectations import Verdict
from blocks.quality.validator_state import TICK, State, beside, claim, read, ready, serving, write
from blocks.store.staged_batch import read_rows

__all__ = ["Request", "Verdict", "ask", "ready", "serve", "start"]

KEPT = "everything as it was; nothing of this batch was stored"
WATCH = 0.5
_ERRORS: dict[str, type[AutoSyncError]] = {"ConfigError": ConfigError, "StoreError": StoreError}
_children: list[subprocess.Popen[bytes]] = []


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be checked.

    Attributes:
        rows: Folder of the staged batch.
        checks: The dataset checks of the source.
        docs: Folder for the Data Docs.
        name: The source.
        skip: Positions of rows that are left out.
    """

    rows: str
    checks: list[DatasetCheck]
    docs: str
    name: str
    skip: list[int] = []


class _Reply(msgspec.Struct, frozen=True, kw_only=True):
    verdict: Verdict | None = None
    kind: str = ""
    what: str = ""
    where: str = ""
    kept: str = ""
    todo: str = ""


# The process


class _Desk:
    """Answers clients one after the other, and notices when nobody needs it any more."""

    def __init__(self, state: Path, key: bytes) -> None:
        self.state, self.key = state, key
        self.turn, self.used = Lock(), math.inf  # until it is ready it is not idle

    def attend(self, client: Connection) -> None:
        with client:
            try:
                deliver_challenge(client, self.key)
                answer_challenge(client, self.key)
                while True:
                    request = msgspec.json.decode(client.recv_bytes(1 << 26), type=Request)
                    with self.turn:
                        reply = _answer(request)
                        self.used = time.monotonic()
                    client.send_bytes(msgspec.json.encode(reply))
            except (AuthenticationError, EOFError, OSError, msgspec.DecodeError):
                return  # a stranger, or a client that has left

    def watch(self, idle: float, parent: int) -> None:
        while os.getppid() == parent:
            if idle and not self.turn.locked() and time.monotonic() - self.used > idle:
                break
            time.sleep(WATCH)
        self.leave()

    def leave(self) -> NoReturn:
        self.state.unlink(missing_ok=True)
        os._exit(0)


def _rows(request: Request) -> Iterator[tuple[str, bytes]]:
    skip = set(request.skip)
    return (row for n, row in enumerate(read_rows(Path(request.rows))) if n not in skip)


def _answer(request: Request) -> _Reply:
    try:
        return _Reply(verdict=expectations.validate(_rows(request), request.checks, Path(request.docs), request.name))
    except AutoSyncError as error:
        kind, where, kept, todo = type(error).__name__, error.where, error.kept, error.todo
        return _Reply(kind=kind, what=error.what, where=where, kept=kept, todo=todo)
    except Exception as error:  # noqa: BLE001  # the outermost edge of this process: the client tells it to people
        return _Reply(what=f"the dataset checks could not be run: {type(error).__name__}: {error}", kept=KEPT)


def serve(state: Path, idle: float = 0, parent: int = 0) -> None:
    """Be the validator; returns at once when there is one already.

    Args:
        state: File that tells clients port, process and key.
        idle: Seconds without a request after which it ends; 0 means never.
        parent: The process that it ends with; by default the one that started it.
    """
    state.parent.mkdir(parents=True, exist_ok=True)
    if claim(state) is None:
        return
    state.unlink(missing_ok=True)  # what a dead one left
    desk = _Desk(state, secrets.token_bytes(32))
    signal.signal(signal.SIGTERM, lambda *_: desk.leave())
    Thread(target=desk.watch, args=(idle, parent or os.getppid()), daemon=True).start()
    with Listener(("127.0.0.1", 0), backlog=32) as listener:
        note = State(os.getpid(), listener.address[1], desk.key.hex(), ready=False)
        write(state, note)
        expectations.load()
        desk.used = time.monotonic()
        write(state, msgspec.structs.replace(note, ready=True))
        while True:
            client = listener.accept()
            Thread(target=desk.attend, args=(client,), daemon=True).start()


# The clients


def start(state: Path, idle: float = 0) -> subprocess.Popen[bytes]:
    """Start a validator that ends with this process, at SIGTERM, or after `idle` seconds without a request.

    Control-C in the terminal doesn't reach it. What it prints goes to a log beside the state file.
    """
    state = state.absolute()
    state.parent.mkdir(parents=True, exist_ok=True)
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, "-P", "-m", "blocks.quality.validator", "--state", str(state)]
    with beside(state, ".log").open("ab") as log:
        return subprocess.Popen(
            [*command, "--idle", str(idle), "--parent", str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            start_new_session=True,
        )


def ask(state: Path, request: Request, timeout: float = 600.0) -> Verdict:
    """Have rows checked by the validator that runs, or by one that is started now and ends with this process.

    Raises:
        ConfigError: A check doesn't exist, or its arguments are wrong.
        StoreError: The Data Docs can't be written.
        RemoteUnavailable: No answer in time, or the validator ended twice over this request.
        RemoteError: The checks could not be run at all.
    """
    request = msgspec.structs.replace(
        request, rows=str(Path(request.rows).absolute()), docs=str(Path(request.docs).absolute())
    )
    deadline, trouble = time.monotonic() + timeout, ""
    for _ in range(2):
        try:
            reply = _exchange(state, request, deadline)
        except (EOFError, OSError, AuthenticationError) as error:
            trouble = f"{type(error).__name__} {error}".strip()
            continue
        if reply.verdict is not None:
            return reply.verdict
        raise _ERRORS.get(reply.kind, RemoteError)(reply.what, where=reply.where, kept=reply.kept, todo=reply.todo)
    raise RemoteUnavailable(
        f"the validator process ended twice in the middle of its checks ({trouble})",
        where=str(beside(state, ".log")),
        kept=KEPT,
        todo="read that log and see whether memory ran out, then run again",
    )


def _exchange(state: Path, request: Request, deadline: float) -> _Reply:
    with _reach(state, deadline) as server:
        server.send_bytes(msgspec.json.encode(request))
        _hear(server, deadline)
        return msgspec.json.decode(server.recv_bytes(), type=_Reply)


def _await(state: Path, deadline: float) -> State:
    """The state of a ready validator, which is started if there is none."""
    child: subprocess.Popen[bytes] | None = None
    while not ready(state) or (note := read(state)) is None:
        if not serving(state) and (child is None or child.poll() is not None):
            if child is not None and child.returncode:
                raise ConnectionResetError(f"with status {child.returncode} while it started")
            child = _adopt(start(state))
        if time.monotonic() > deadline:
            raise _late()
        time.sleep(TICK)
    return note


def _reach(state: Path, deadline: float) -> Connection:
    while True:
        note = _await(state, deadline)
        try:
            return _connect(note, deadline)
        except ConnectionRefusedError:  # it has just ended, and its lock is about to go
            if time.monotonic() > deadline:
                raise _late() from None
            time.sleep(TICK)


def _connect(note: State, deadline: float) -> Connection:
    link = socket.create_connection(("127.0.0.1", note.port), timeout=max(TICK, deadline - time.monotonic()))
    link.setblocking(True)
    server, key = Connection(link.detach()), bytes.fromhex(note.key)
    with ExitStack() as unless_done:
        unless_done.callback(server.close)
        _hear(server, deadline)
        answer_challenge(server, key)
        deliver_challenge(server, key)
        unless_done.pop_all()
    return server


def _hear(server: Connection, deadline: float) -> None:
    if not server.poll(max(0.0, deadline - time.monotonic())):
        raise _late()


def _late() -> RemoteUnavailable:
    return RemoteUnavailable("the validator did not answer in time", kept=KEPT, todo="run again")


def _adopt(child: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
    """Remember a validator that must end with this process; forget those that ended."""
    if not _children:
        atexit.register(_end_children)
    _children[:] = [one for one in _children if one.poll() is None] + [child]
    return child


def _end_children() -> None:
    for child in _children:
        child.terminate()
    for child in _children:
        child.wait()


def main() -> None:
    """`python -m blocks.quality.validator`."""
    parser = argparse.ArgumentParser(description="Keep Great Expectations ready for dataset checks.")
    parser.add_argument("--state", type=Path, required=True, help="file that tells clients port, process and key")
    parser.add_argument("--idle", type=float, default=0, help="end after so many seconds without a request")
    parser.add_argument("--parent", type=int, default=0, help="process that the validator ends with")
    options = parser.parse_args()
    serve(options.state, options.idle, options.parent)


if __name__ == "__main__":
    main()
