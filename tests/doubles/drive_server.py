"""A Google Drive double: files in memory, resumable uploads that can be cut, ranges and simple queries."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from typing import Any

from tests.doubles.faults import Call, Double, Reply

TOKEN = "token-of-the-drive-double"
FOLDER = "folder-1"


@dataclass
class Kept:
    id: str
    meta: dict[str, Any]
    data: bytes
    modified: datetime


@dataclass
class Session:
    meta: dict[str, Any]
    size: int
    data: bytearray = field(default_factory=bytearray)
    done: str = ""


class DriveServer(Double):
    """One folder, `folder-1`; the clock goes on by a second at each change."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, Kept] = {}
        self.sessions: dict[str, Session] = {}
        self.damage = False
        self._clock = 1_700_000_000

    def answer(self, call: Call) -> Reply:
        if call.headers.get("authorization") != f"Bearer {TOKEN}":
            return _refusal(401, "Invalid Credentials", "authError")
        if call.path.startswith("/upload/session/"):
            return self._piece(call, call.path.rpartition("/")[2])
        if call.path == "/upload/drive/v3/files" and call.method == "POST":
            return self._begin(call) if call.query.get("uploadType") == "resumable" else self._multipart(call)
        if call.path == "/drive/v3/files" and call.method == "GET":
            return self._search(call)
        if match := re.fullmatch(r"/drive/v3/files/([\w-]+)", call.path):
            return self._one(call, match[1])
        return _refusal(404, "Not Found", "notFound")

    def names(self) -> list[str]:
        return sorted(kept.meta["name"] for kept in self.kept.values())

    def keep(self, meta: dict[str, Any], data: bytes) -> Kept:
        """Put a file into the folder."""
        self._clock += 1
        new = Kept(f"file-{self._clock}", meta, data, datetime.fromtimestamp(self._clock, UTC))
        self.kept[new.id] = new
        return new

    def _begin(self, call: Call) -> Reply:
        meta = call.json
        if meta.get("parents") != [FOLDER]:
            return _refusal(404, f"File not found: {meta.get('parents')}.", "notFound")
        name = f"s{len(self.sessions)}"
        self.sessions[name] = Session(meta, int(call.headers["x-upload-content-length"]))
        return Reply(200, b"", {"Location": f"{self.url}/upload/session/{name}"})

    def _piece(self, call: Call, name: str) -> Reply:
        session = self.sessions[name]
        if session.done:
            return Reply(200, self._resource(self.kept[session.done]))
        if match := re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", call.headers.get("content-range", "")):
            if int(match[1]) != len(session.data):
                return _refusal(400, "Failed to parse Content-Range header.", "badRequest")
            session.data += call.body
        if len(session.data) < session.size:
            reached = {"Range": f"bytes=0-{len(session.data) - 1}"} if session.data else {}
            return Reply(308, b"", reached)
        data = bytes(session.data[:-1]) + b"?" if self.damage else bytes(session.data)
        session.done = self.keep(session.meta, data).id
        return Reply(200, self._resource(self.kept[session.done]))

    def _multipart(self, call: Call) -> Reply:
        raw = b"Content-Type: " + call.headers["content-type"].encode() + b"\r\n\r\n" + call.body
        meta, data = (
            part.get_payload(decode=True) for part in message_from_bytes(raw).walk() if not part.is_multipart()
        )
        assert isinstance(meta, bytes) and isinstance(data, bytes)
        return Reply(200, self._resource(self.keep(json.loads(meta), data)))

    def _search(self, call: Call) -> Reply:
        query = call.query["q"]
        if f"'{FOLDER}' in parents" not in query:
            return _refusal(404, "File not found: .", "notFound")
        match = re.search(r"name = '((?:\\.|[^'\\])*)'", query)
        name = re.sub(r"\\(.)", r"\1", match[1]) if match else None
        found = [kept for kept in self.kept.values() if name is None or kept.meta["name"] == name]
        found.sort(key=lambda kept: kept.modified, reverse=True)
        start, page = int(call.query.get("pageToken", 0)), 2
        more = {"nextPageToken": str(start + page)} if len(found) > start + page else {}
        return Reply(200, {"files": [self._resource(kept) for kept in found[start : start + page]], **more})

    def _one(self, call: Call, name: str) -> Reply:
        if name not in self.kept:
            return _refusal(404, f"File not found: {name}.", "notFound")
        if call.method == "DELETE":
            del self.kept[name]
            return Reply(204)
        if call.method == "PATCH":
            self._clock += 1
            self.kept[name].meta |= call.json
            self.kept[name].modified = datetime.fromtimestamp(self._clock, UTC)
        if call.query.get("alt") == "media":
            return _ranged(self.kept[name].data, call.headers.get("range", ""))
        return Reply(200, self._resource(self.kept[name]))

    def _resource(self, kept: Kept) -> dict[str, Any]:
        if kept.meta.get("mimeType", "").startswith("application/vnd.google-apps."):  # no bytes: no size, no sums
            return {"id": kept.id, "name": kept.meta["name"], "modifiedTime": f"{kept.modified:%Y-%m-%dT%H:%M:%S.000Z}"}
        return {
            "id": kept.id,
            "name": kept.meta["name"],
            "size": str(len(kept.data)),
            "md5Checksum": hashlib.md5(kept.data, usedforsecurity=False).hexdigest(),
            "sha256Checksum": hashlib.sha256(kept.data).hexdigest(),
            "modifiedTime": kept.modified.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
            "appProperties": kept.meta.get("appProperties", {}),
        }


def _ranged(data: bytes, wanted: str) -> Reply:
    match = re.fullmatch(r"bytes=(\d+)-(\d+)", wanted)
    if not match:
        return Reply(200, data)
    start, end = int(match[1]), min(int(match[2]), len(data) - 1)
    if start >= len(data):
        return Reply(416, b"", {"Content-Range": f"bytes */{len(data)}"})
    return Reply(206, data[start : end + 1], {"Content-Range": f"bytes {start}-{end}/{len(data)}"})


def _refusal(status: int, message: str, reason: str) -> Reply:
    error = {"code": status, "message": message, "errors": [{"message": message, "reason": reason}]}
    return Reply(status, {"error": error})
