"""The common part of the doubles: a local HTTP server in a thread that goes wrong on command."""

from __future__ import annotations

import json
import re
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, ClassVar, Self
from urllib.parse import parse_qsl, unquote, urlsplit

JSON = "application/json; charset=utf-8"


@dataclass(frozen=True)
class Call:
    """One request as it came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.time)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """What the server answers."""

    status: int = 200
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def raw(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass
class Fault:
    """What goes wrong with the next calls that match.

    Attributes:
        path: Regular expression that the path contains.
        method: HTTP method, or "" for any.
        reply: Answered instead of doing anything.
        after: Do it, and answer `reply` all the same.
        lost: Do it, then close the connection without an answer.
        dropped: Close the connection without doing anything.
        delay: Seconds to wait before answering.
        meanwhile: Called in between, for what somebody else does at that moment.
        times: How many calls it hits; the first `skip` that match are let through.
    """

    path: str = ""
    method: str = ""
    reply: Reply | None = None
    after: bool = False
    lost: bool = False
    dropped: bool = False
    delay: float = 0.0
    meanwhile: Any = None
    times: int = 1
    skip: int = 0

    def hits(self, call: Call) -> bool:
        if not self.times or (self.method and self.method != call.method) or not re.search(self.path, call.path):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


class Double(ABC):
    """An HTTP server on a free port of this machine; subclasses answer the calls."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.replies: list[tuple[Call, Reply]] = []
        self.faults: list[Fault] = []
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://localhost:{self._server.server_address[1]}"

    @abstractmethod
    def answer(self, call: Call) -> Reply:
        """What the service says to a call."""

    def handle(self, call: Call) -> Reply | None:
        """The answer, or None to close the connection without one."""
        with self._lock:
            self.calls.append(call)
            fault = next((fault for fault in self.faults if fault.hits(call)), Fault())
            time.sleep(fault.delay)
            if fault.meanwhile:
                fault.meanwhile()
            if fault.dropped:
                return None
            if fault.after:
                self.answer(call)
            reply = fault.reply or self.answer(call)
            self.replies.append((call, reply))
            return None if fault.lost else reply

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is part of the tests."""


def _handler(double: Double) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm: ClassVar[bool] = True

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def _do(self) -> None:
            parts = urlsplit(self.path)
            query = dict(parse_qsl(parts.query, keep_blank_values=True))
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = double.handle(Call(self.command, unquote(parts.path), query, headers, self._body()))
            if reply is None:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in {"Content-Type": JSON, **reply.headers}.items():
                self.send_header(name, value)
            if reply.status not in (204, 304):
                self.send_header("Content-Length", str(len(reply.raw)))
            self.end_headers()
            self.wfile.write(reply.raw if reply.status not in (204, 304) else b"")

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _do

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    return Handler
