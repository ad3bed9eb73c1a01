"""A source behind an HTTP(S) address: a conditional request downloads it, or says that it is as it was."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import uuid4

from autosync.errors import SourceError, SourceUnavailable
from autosync.policy import asked_wait
from blocks.sources.file import FileReading
from blocks.sources.file_access import digest_of
from blocks.sources.json_rows import KEPT, Part
from blocks.sources.reader import Content, Fingerprint, Previous, Reader, Reading, Unchanged
from blocks.store.staged_batch import writing

if TYPE_CHECKING:
    import httpx

SCHEMES = ("http://", "https://")
MAX_REDIRECTS = 5
JSON_TYPES = ("json", "text/plain", "octet-stream", "ndjson", "jsonl")


def _shown(url: str) -> str:
    """The address without user, password and query, which may carry secrets."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError as error:
        raise SourceError(f"no usable address: {error}", kept=KEPT, todo="correct `location`") from None
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


class HttpFingerprint(Fingerprint, frozen=True, kw_only=True):
    """Fingerprint of a download: a hash of the address, and the validators that the server gave."""

    url: str
    etag: str
    last_modified: str


class HttpReader(Reader):
    """A source behind an HTTP(S) address."""

    @classmethod
    def reads(cls, location: str, base: Path) -> bool:  # noqa: ARG003  # as of other kinds
        """An HTTP(S) address."""
        return location.startswith(SCHEMES)

    def look(self, previous: Previous) -> Unchanged | Reading:
        """A conditional request, and a digest of what comes."""
        source, context, before = self.source, self.context, previous.as_kind(HttpFingerprint)
        download = fetch(source.location, context.scratch, before, timeout=source.timeout, headers=context.headers)
        if isinstance(download, HttpFingerprint):
            return Unchanged(download)
        path, fingerprint = download
        part = Part(str(path), source.location)
        digest = digest_of(part, previous.seed)
        if digest == previous.digest:
            return Unchanged(fingerprint)
        return FileReading(part, source.records, None, Content(digest, fingerprint))


def _conditions(previous: HttpFingerprint | None) -> dict[str, str]:
    headers = {"Accept": "application/json, application/x-ndjson, */*;q=0.1"}
    if previous and previous.etag:
        headers["If-None-Match"] = previous.etag
    if previous and previous.last_modified:
        headers["If-Modified-Since"] = previous.last_modified
    return headers


def fetch(
    url: str,
    scratch: Path,
    previous: HttpFingerprint | None,
    *,
    timeout: float,
    headers: Mapping[str, str] | None = None,
) -> tuple[Path, HttpFingerprint] | HttpFingerprint:
    """Download an address unless it is as it was.

    Args:
        scratch: Folder for the body; the caller deletes it.
        previous: Fingerprint of the last download, if any. What another address once said is not compared with.
        timeout: Seconds to wait for a connection, and for each read.
        headers: Credentials; with them redirects are not followed, so that no other host gets to see them.

    Returns:
        The body's file and its fingerprint; the previous one when the server says that nothing changed.

    Raises:
        SourceError: The address is wrong (4xx, redirect loop, not JSON).
        SourceUnavailable: It may work later (5xx, 429, time-out, cut off).
    """
    import httpx  # not needed by other sources

    shown, mark = _shown(url), blake2b(url.encode(), digest_size=16).hexdigest()
    known = previous if previous and previous.url == mark else None
    with (
        _explained(shown, timeout),
        httpx.Client(timeout=timeout, follow_redirects=not headers, max_redirects=MAX_REDIRECTS) as client,
        client.stream("GET", url, headers=_conditions(known) | dict(headers or {})) as answer,
    ):
        if answer.status_code == 304 and known:
            return known
        _check(answer, shown)
        tags = {name: answer.headers.get(name.replace("_", "-"), "") for name in ("etag", "last_modified")}
        return _save(answer, scratch), HttpFingerprint(url=mark, **tags)


@contextmanager
def _explained(shown: str, timeout: float) -> Iterator[None]:
    """Turn httpx's errors into ours."""
    import httpx

    try:
        yield
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
            f"the connection failed: {str(error) or 'no reason was given'}",
            where=shown,
            kept=KEPT,
            todo="check the network",
        ) from None


def _check(answer: httpx.Response, shown: str) -> None:
    code = answer.status_code
    if code >= 500 or code in (408, 425, 429):
        wait = asked_wait(dict(answer.headers), now=time.time())
        what = f"the server answered {code}" + ("" if wait is None else f" and asked to wait {wait:,.0f} s")
        raise SourceUnavailable(what, where=shown, kept=KEPT, todo="wait; it is tried again", retry_after=wait)
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
    with writing(scratch):
        scratch.mkdir(parents=True, exist_ok=True)
    with writing(scratch), path.open("wb") as handle:
        for chunk in answer.iter_bytes():
            handle.write(chunk)
    return path
