"""Parsing in a second process: of a large input it takes as many rows as it can, this one parses the others.

Rows and answers travel through a file that both have mapped, only their sizes through pipes. A second process
that can't be started, or dies, costs time: its rows are parsed here.
"""

from __future__ import annotations

import mmap
import os
import select
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np

from autosync.parsing import Parsed, RowParser
from autosync.settings import Source

START_AFTER = 20_000
SLOTS = 3
SLOT_BYTES = 4 << 20
EXCHANGE = "exchange"
# There: slot, number of rows. Back: READY once, then slot, size of the answer, -1 when it is too large.
MESSAGE = struct.Struct("<qq")
READY = MESSAGE.pack(-1, 0)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Parsed).decode


class ProcessParser:
    """An autosync.parsing.Parser that is helped by a second process once an input proves large.

    Args:
        source: Its key and its checks.
        folder: Where the exchange file lies while it is used.
        start_after: Rows after which the second process is started, where there is a second core.
    """

    def __init__(self, source: Source, folder: Path, start_after: int = START_AFTER) -> None:
        self._source, self._folder, self._start_after = source, folder, start_after
        self._here, self._given = RowParser(source), 0
        self._helper: _Helper | None = None

    @property
    def helped(self) -> int:
        """How many times the second process took rows."""
        return self._helper.count if self._helper is not None else 0

    def submit(self, rows: list[bytes]) -> Callable[[], Parsed]:
        """Give rows to the other process when it has room for them, else parse them now."""
        self._given += len(rows)
        if self._helper is None and self._given > self._start_after and _cores() > 1:
            self._helper = _Helper(self._source, self._folder / EXCHANGE)
        if self._helper is not None and (job := self._helper.give(rows)) is not None:
            return partial(self._answer, job, rows)
        return self._here.submit(rows)

    def _answer(self, job: int, rows: list[bytes]) -> Parsed:
        assert self._helper is not None
        return self._helper.answer(job) or self._here.parse(rows)

    def close(self) -> None:
        """End the second process."""
        if self._helper is not None:
            self._helper.close()
            self._helper = None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Helper:
    """The second process as the first one sees it."""

    def __init__(self, source: Source, exchange: Path) -> None:
        self._path = exchange
        with exchange.open("wb") as handle:
            handle.truncate(2 * SLOTS * SLOT_BYTES)
        self._map = _mapped(exchange)
        self._process = subprocess.Popen(  # our own module
            [sys.executable, "-m", "blocks.sources.parser_process", str(exchange)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        self._free, self.count, self._alive, self._ready = list(range(SLOTS)), 0, True, False
        self._jobs: deque[tuple[int, int]] = deque()  # (job, slot) in the order in which they are answered
        self._answers: dict[int, Parsed | None] = {}
        text = msgspec.json.encode(source)
        self._say(len(text).to_bytes(4, "little") + text)

    def give(self, rows: list[bytes]) -> int | None:
        """Hand rows over; the job's number, None when there is no room, or it is still starting."""
        while (self._jobs or not self._ready) and self._alive and select.select([self._out], [], [], 0)[0]:
            self._collect()
        if not (self._alive and self._ready and self._free):
            return None
        sizes = np.fromiter(map(len, rows), dtype=np.int32, count=len(rows))
        if sizes.nbytes + int(sizes.sum()) > SLOT_BYTES:
            return None
        slot = self._free.pop()
        at = slot * SLOT_BYTES
        self._map[at : at + sizes.nbytes] = sizes.tobytes()
        text = b"".join(rows)
        self._map[at + sizes.nbytes : at + sizes.nbytes + len(text)] = text
        self.count += 1
        self._jobs.append((self.count, slot))
        self._say(MESSAGE.pack(slot, len(rows)))
        return self.count

    def answer(self, job: int) -> Parsed | None:
        """A job's answer; None when there is none and its rows must be parsed here."""
        while job not in self._answers:
            self._collect()
        return self._answers.pop(job)

    def _say(self, message: bytes) -> None:
        try:
            self._in.write(message)
            self._in.flush()
        except OSError:
            self._die()

    def _collect(self) -> None:
        """Take the next message: that it is ready, then an answer each."""
        message = self._out.read(MESSAGE.size) if self._alive else b""
        if len(message) < MESSAGE.size:
            self._die()
            return
        if not self._ready:
            self._ready = True
            return
        job, slot = self._jobs.popleft()
        at, size = (SLOTS + slot) * SLOT_BYTES, MESSAGE.unpack(message)[1]
        self._answers[job] = _decode(self._map[at : at + size]) if size >= 0 else None
        self._free.append(slot)

    def _die(self) -> None:
        self._alive = False
        self._answers |= {job: None for job, _ in self._jobs}
        self._jobs.clear()

    def close(self) -> None:
        """Let the process end: it reads that nobody asks any more."""
        for pipe in (self._in, self._out):
            with suppress(OSError):
                pipe.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._map.close()
        self._path.unlink(missing_ok=True)


def _mapped(path: Path) -> mmap.mmap:
    with path.open("r+b") as handle:
        return mmap.mmap(handle.fileno(), 0)


def serve(exchange: Path, asked: BinaryIO, answered: BinaryIO) -> None:
    """The second process: parse until nobody asks any more."""
    area = _mapped(exchange)
    source = msgspec.json.decode(asked.read(int.from_bytes(asked.read(4), "little")), type=Source)
    parser = RowParser(source)
    answered.write(READY)
    answered.flush()
    while len(message := asked.read(MESSAGE.size)) == MESSAGE.size:
        slot, count = MESSAGE.unpack(message)
        at = slot * SLOT_BYTES + 4 * count
        ends = (at + np.cumsum(np.frombuffer(area, dtype=np.int32, count=count, offset=slot * SLOT_BYTES))).tolist()
        answer = _encode(parser.parse([area[first:end] for first, end in zip([at, *ends], ends, strict=False)]))
        if fits := len(answer) <= SLOT_BYTES:
            at = (SLOTS + slot) * SLOT_BYTES
            area[at : at + len(answer)] = answer
        answered.write(MESSAGE.pack(slot, len(answer) if fits else -1))
        answered.flush()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer)
