"""Answers of the API: exact JSON, weak ETags from the store's revision, cursors and links to the next page."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from hashlib import blake2b
from typing import Any
from urllib.parse import urlencode

import msgspec
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import Response

__all__ = ["answer", "cursor", "next_link", "position", "seq_position"]

FORM = "1"  # counted up when answers change their form, so that kept ones are asked for again


def etag(tag: str) -> str:
    """A weak ETag."""
    return f'W/"{FORM}-{tag or "none"}"'


def matches(request: Request, tag: str) -> bool:
    """Whether the caller has what this ETag names; `W/` makes no difference."""
    told = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    return "*" in told or tag.removeprefix("W/") in told


def answer(
    request: Request, tag: str | None, load: Callable[[], Any], headers: Callable[[Any], dict[str, str]] | None = None
) -> Response:
    """What `load` returns as JSON, or 304 when the caller has it already.

    Args:
        tag: What the answer depends on; nothing is loaded when the caller knows it. None: the answer itself.
    """
    kept = {"Cache-Control": "private, no-cache", "Vary": "Authorization, Cookie, Accept-Encoding"}
    if tag is not None and matches(request, etag(tag)):
        return Response(status_code=304, headers=kept | {"ETag": etag(tag)})
    value = load()
    body = msgspec.json.encode(value)
    kept["ETag"] = etag(blake2b(body, digest_size=12).hexdigest() if tag is None else tag)
    if tag is None and matches(request, kept["ETag"]):
        return Response(status_code=304, headers=kept)
    return Response(body, headers=kept | (headers(value) if headers else {}), media_type="application/json")


def cursor(kind: str, value: object) -> str:
    """A place in a list as text that callers hand back as it is."""
    return urlsafe_b64encode(f"{kind}:{value}".encode()).decode().rstrip("=")


def position(kind: str, text: str | None) -> str | None:
    """The place that a cursor names. Raises what becomes a 422 for one that isn't ours."""
    if text is None:
        return None
    try:
        found = urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, UnicodeError):
        found = ""
    if not found.startswith(f"{kind}:"):
        raise wrong("cursor", "Take it from `next` of the page before, as it is")
    return found.removeprefix(f"{kind}:")


def seq_position(text: str | None) -> int | None:
    """The seq that a cursor into the change log names."""
    found = position("seq", text)
    if found is not None and not (found.isascii() and found.isdigit() and len(found) < 19):
        raise wrong("cursor", "Take it from `next` of the page before, as it is")
    return None if found is None else int(found)


def wrong(name: str, reason: str) -> RequestValidationError:
    """The error for a wrong parameter."""
    return RequestValidationError([{"loc": ("query", name), "msg": reason, "type": "value_error"}])


def next_link(request: Request) -> Callable[[Any], dict[str, str]]:
    """The header `Link: <...>; rel="next"` for a page that isn't the last: same filters, next cursor."""

    def made(page: Any) -> dict[str, str]:
        if page.next is None:
            return {}
        kept = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
        return {"Link": f'<{request.url.path}?{urlencode([*kept, ("cursor", page.next)])}>; rel="next"'}

    return made
