"""A Slack double: an incoming webhook that answers as Slack's does."""

from __future__ import annotations

from typing import Any

from tests.doubles.faults import Call, Double, Reply

PATH = "/services/T000/B000/webhook-secret"
TEXT = {"Content-Type": "text/html; charset=utf-8"}


class SlackServer(Double):
    """Collects what was posted in `posted`."""

    def __init__(self) -> None:
        super().__init__()
        self.posted: list[dict[str, Any]] = []

    @property
    def webhook(self) -> str:
        return self.url + PATH

    def answer(self, call: Call) -> Reply:
        if call.path != PATH:
            return Reply(404, b"no_service", TEXT)
        message = call.json
        if not message:
            return Reply(400, b"invalid_payload", TEXT)
        if not message.get("text") and not message.get("blocks"):
            return Reply(400, b"no_text", TEXT)
        if problem := _problem(message.get("blocks", [])):
            return Reply(400, f"invalid_blocks: {problem}".encode(), TEXT)
        self.posted.append(message)
        return Reply(200, b"ok", TEXT)


def _problem(blocks: list[dict[str, Any]]) -> str:
    """Slack's limits, or "" when they are kept."""
    if len(blocks) > 50:
        return "more than 50 blocks"
    for block in blocks:
        limit = {"header": 150, "section": 3000}.get(block["type"], 3000)
        texts = [block["text"]["text"]] if "text" in block else []
        if any(not text or len(text) > limit for text in texts):
            return f"text of {block['type']} is empty or too long"
        if len(fields := block.get("fields", [])) > 10 or any(len(field["text"]) > 2000 for field in fields):
            return "too many or too long fields"
    return ""


def said(message: dict[str, Any]) -> str:
    """All text that a reader of the channel sees."""
    texts = []
    for block in message["blocks"]:
        parts = [block.get("text"), *block.get("fields", []), *block.get("elements", [])]
        texts += [part["text"] for part in parts if part]
    return "\n".join(texts)
