"""Conditional HTTP(S) requests: a JSON address as a downloaded file, or the word that it is as it was."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx

from autosync.errors import SourceError, SourceUnavailable
from blocks.store.staged_batch import writing

MAX_REDIRECTS = 5
KEPT = "the collection, its mirror and its repository are as before"
JSON_TYPES = ("json", "text/plain", "octet-stream", "ndjson", "jsonl")


def _shown(url: str) -> str:
    """The address without user, password and query, which may carry secrets."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError as error:
        raise SourceError(f"no usable address: {error}", kept=KEPT, todo="correct `location`") from None
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


def _conditions(previous: dict[str, Any]) -> dict[str, str]:
    headers = {"Accept": "application/json, application/x-ndjson, */*;q=0.1"}
    if previous.get("etag"):
        headers["If-None-Match"] = previous["etag"]
    if previous.get("last_modified"):
        headers["If-Modified-Since"] = previous["last_modified"]
    return headers


def fetch(
    url: str,
    scratch: Path,
    previous: dict[str, Any],
    *,
    timeout: float,
    headers: Mapping[str, str] | None = None,
) -> tuple[Path, dict[str, Any]] | None:
    """Download an address unless it is as it was.

    Args:
        scratch: Folder for the body; the caller deletes it.
        previous: Fingerprint of the last download (`url`, `etag`, `last_modified`); {} for none. What another
            address once said is not compared with.
        timeout: Seconds to wait for a connection, and for each read.
        headers: Credentials; with them redirects are not followed, so that no other host gets to see them.

    Returns:
        The body's file and its fingerprint; None when the server says that nothing changed.

    Raises:
        SourceError: The address is wrong (4xx, redirect loop, not JSON).
        SourceUnavailable: It may work later (5xx, 429, time-out, cut off).
    """
    shown, mark = _shown(url), blake2b(url.encode(), digest_size=16).hexdigest()
    known = previous if previous.get("url") == mark else {}
    try:
        with (
            httpx.Client(timeout=timeout, follow_redirects=not headers, max_redirects=MAX_REDIRECTS) as client,
            client.stream("GET", url, headers=_conditions(known) | dict(headers or {})) as answer,
        ):
            if answer.status_code == 304 and known:
                return None
            _check(answer, shown)
            return _save(answer, scratch), {
                "url": mark,
                "etag": answer.headers.get("etag", ""),
                "last_modified": answer.headers.get("last-modified", ""),
            }
    except httpx.TooManyRedirects:
        raise SourceError(
            f"the address redirects more than {MAX_REDIRECTS} times",
            where=shown,
            kept=KEPT,
            todo="correct `location`",
        ) from None
    except httpx.TimeoutException:
        raise SourceUnavailable(
            f"the address did not answer within {timeout:g} s", where=shown, kept=KEPT, todo="raise `timeout`, or wait"
        ) from None
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise SourceError(f"no usable address: {error}", where=shown, todo="correct `location`") from None
    except httpx.DecodingError as error:
        raise SourceUnavailable(
            f"the answer can't be unpacked: {error}", where=shown, kept=KEPT, todo="wait; it is tried again"
        ) from None
    except httpx.TransportError as error:
        raise SourceUnavailable(
            f"the connection failed: {error or type(error).__name__}", where=shown, kept=KEPT, todo="check the network"
        ) from None


def _check(answer: httpx.Response, shown: str) -> None:
    code = answer.status_code
    if code >= 500 or code in (408, 425, 429):
        raise SourceUnavailable(f"the server answered {code}", where=shown, kept=KEPT, todo="wait; it is tried again")
    if code != 200:
        todo = "give the server what it asks for" if code in (401, 403) else "correct `location`"
        raise SourceError(f"the server answered {code} {answer.reason_phrase}", where=shown, kept=KEPT, todo=todo)
    kind = answer.headers.get("content-type", "").lower()
    if kind and not any(sign in kind for sign in JSON_TYPES):
        raise SourceError(
            f"the server sent {kind.split(';')[0]}, not JSON",
            where=shown,
            kept=KEPT,
            todo="correct `location`; is this a page for people, or a log-in page?",
        )


def _save(answer: httpx.Response, scratch: Path) -> Path:
    path = scratch / f"body-{uuid4().hex}"
    with writing(scratch), path.open("wb") as handle:
        for chunk in answer.iter_bytes():
            handle.write(chunk)
    return path
