"""A source behind an address: asked conditionally, believed only when it came whole."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from autosync.errors import SourceError, SourceUnavailable, StoreError
from blocks.sources.http import fetch
from tests.pipeline import Pipeline

JSON = {"Content-Type": "application/json"}
Answer = tuple[int, dict[str, str], bytes]
Rule = Callable[[str, dict[str, str]], Answer]


class Site:
    """A real server whose answers a test decides; remembers what it was asked."""

    def __init__(self, url: str) -> None:
        self.url, self.asked = url, list[dict[str, str]]()
        self.rule: Rule = lambda path, headers: (200, JSON, b'[{"id":"a"}]')

    def conditional(self, tags: dict[str, str], body: bytes = b'[{"id":"%b"}]') -> None:
        """Every path is a record of that id; `tags` are sent, and honoured when they are asked for."""

        def rule(path: str, headers: dict[str, str]) -> Answer:
            known = (headers.get("If-None-Match"), headers.get("If-Modified-Since"))
            if tags and known == (tags.get("ETag"), tags.get("Last-Modified")):
                return 304, {}, b""
            return 200, JSON | tags, body.replace(b"%b", path.strip("/").encode())

        self.rule = rule


@contextmanager
def listening() -> Iterator[Site]:
    """A site on a free loopback port."""
    site: Site

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append(dict(self.headers) | {"path": self.path})
            status, headers, body = site.rule(self.path, dict(self.headers))
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body)), "Connection": "close"} | headers).items():
                if value:
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site = Site(f"http://127.0.0.1:{server.server_address[1]}")
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def site() -> Iterator[Site]:
    with listening() as found:
        yield found


@pytest.fixture
def place(tmp_path: Path, site: Site) -> Pipeline:
    """A home whose source is the site's path /a."""
    pipeline = Pipeline(tmp_path)
    point(pipeline, site, "/a")
    return pipeline


def point(place: Pipeline, site: Site, path: str) -> None:
    place.configure(location=site.url + path, timeout=5.0, guard={"max_delete": 1.0})


@pytest.mark.parametrize(
    "tags",
    [
        {"ETag": '"v1"'},
        {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"},
        {"ETag": 'W/"v1"', "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"},
    ],
)
def test_an_answer_that_is_as_it_was_is_not_sent_again(place: Pipeline, site: Site, tags: dict[str, str]) -> None:
    """ETag and Last-Modified are given back, and a 304 is a run without changes."""
    site.conditional(tags)
    assert place.load().counts.inserted == 1
    assert place.load().batch == ""
    assert site.asked[1].get("If-None-Match") == tags.get("ETag")
    assert site.asked[1].get("If-Modified-Since") == tags.get("Last-Modified")
    assert "If-None-Match" not in site.asked[0] and "If-Modified-Since" not in site.asked[0]


def test_a_server_without_tags_costs_a_download_only(place: Pipeline, site: Site) -> None:
    """The same bytes are recognised by their digest: nothing is parsed, nothing changes."""
    site.conditional({})
    place.load()
    assert place.load().batch == "" and len(site.asked) == 2


def test_new_tags_with_the_same_content_are_kept(place: Pipeline, site: Site) -> None:
    """A server that renews its ETag without need is asked with the newest one."""
    site.conditional({"ETag": '"v1"'})
    place.load()
    site.conditional({"ETag": '"v2"'})
    assert place.load().batch == ""
    place.load()
    assert [asked.get("If-None-Match") for asked in site.asked] == [None, '"v1"', '"v2"']


@pytest.mark.parametrize("path", ["/b", "/a?page=2"])
def test_another_address_is_asked_without_the_tags_of_the_old_one(place: Pipeline, site: Site, path: str) -> None:
    """Two addresses may give one ETag: the answer of the new one must not be taken for that of the old one."""
    site.conditional({"ETag": '"1"', "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"})
    place.load()
    point(place, site, path)
    site.rule = (lambda rule: lambda path, headers: rule(path.replace("?page=", ""), headers))(site.rule)
    place.load()
    assert set(place.records()) == {path.strip("/").replace("?page=", "")}
    assert "If-None-Match" not in site.asked[1] and "If-Modified-Since" not in site.asked[1]


def test_an_address_and_a_file_do_not_mix(place: Pipeline, site: Site) -> None:
    """From an address to a file and back: each is read for itself."""
    site.conditional({"ETag": '"1"'})
    place.load()
    place.configure(guard={"max_delete": 1.0})
    place.write([{"id": "f"}])
    place.load()
    assert set(place.records()) == {"f"}
    point(place, site, "/a")
    place.load()
    assert set(place.records()) == {"a"} and "If-None-Match" not in site.asked[-1]


def test_an_input_that_was_refused_is_asked_for_again(place: Pipeline, site: Site) -> None:
    """The tags of an answer that was not taken are not kept: the next run sees it again, and refuses it again."""
    site.conditional({"ETag": '"1"'})
    place.load()
    site.conditional({"ETag": '"2"'}, body=b"[]")
    for _ in range(2):
        with pytest.raises(Exception, match="came back empty"):
            place.load()
    assert [asked.get("If-None-Match") for asked in site.asked] == [None, '"1"', '"1"']


def test_a_304_that_nobody_asked_for_is_an_error(place: Pipeline, site: Site) -> None:
    """A first answer can't be `as before`."""
    site.rule = lambda path, headers: (304, {}, b"")
    with pytest.raises(SourceError, match="answered 304"):
        place.load()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(place: Pipeline, site: Site, status: int) -> None:
    """To where the records are now."""
    site.rule = lambda path, headers: (
        (200, JSON, b'[{"id":"new"}]') if path == "/new" else (status, {"Location": "/new"}, b"")
    )
    place.load()
    assert set(place.records()) == {"new"}


def test_credentials_are_not_carried_to_another_host(tmp_path: Path, site: Site) -> None:
    """With request headers a redirect is not followed: it is told instead, and nobody else sees them."""
    with listening() as other:
        site.rule = lambda path, headers: (302, {"Location": f"{other.url}/steal"}, b"")
        with pytest.raises(SourceError, match="answered 302") as caught:
            fetch(f"{site.url}/a?key=s3cret", tmp_path, None, timeout=5, headers={"Authorization": "Bearer t0ken"})
        assert other.asked == [] and site.asked[0]["Authorization"] == "Bearer t0ken"
        assert "s3cret" not in str(caught.value) and "t0ken" not in str(caught.value)


def test_a_packed_answer_is_unpacked(place: Pipeline, site: Site) -> None:
    """gzip as servers send it."""
    site.rule = lambda path, headers: (200, JSON | {"Content-Encoding": "gzip"}, gzip.compress(b'[{"id":"z"}]'))
    place.load()
    assert set(place.records()) == {"z"}


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Encoding": "gzip"}, b"this is no gzip"),
        ({"Content-Length": "1000"}, b'[{"id":"a"}'),
        ({"Transfer-Encoding": "chunked", "Content-Length": ""}, b'20\r\n[{"id":"a"},\r\n'),
        ({"Transfer-Encoding": "chunked", "Content-Length": ""}, b"zz\r\n"),
    ],
)
def test_an_answer_that_did_not_come_whole_is_asked_for_again(
    place: Pipeline, site: Site, headers: dict[str, str], body: bytes
) -> None:
    """Cut short, wrongly packed, wrongly cut into chunks: nothing of it is taken, and a retry may help."""
    site.rule = lambda path, asked: (200, JSON | headers, body)
    with pytest.raises(SourceUnavailable, match=r"connection failed|can't be unpacked") as caught:
        place.load()
    assert caught.value.retryable and "/a" in caught.value.where
    assert not place.workspace.home.staging.exists() or not list(place.workspace.home.staging.iterdir())


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.95])
def test_a_packed_answer_cut_short_is_not_taken(place: Pipeline, site: Site, cut: float) -> None:
    """Even with a length that fits: JSON Lines that end early must not delete the rest."""
    packed = gzip.compress(b"".join(b'{"id":"%d"}\n' % (n * n % 99_991) for n in range(3000)))
    site.rule = lambda path, headers: (200, JSON | {"Content-Encoding": "gzip"}, packed)
    place.configure(location=site.url + "/a.jsonl", guard={"max_delete": 1.0})
    place.load()
    before = place.records()
    short = packed[: int(len(packed) * cut)]
    site.rule = lambda path, headers: (200, JSON | {"Content-Encoding": "gzip"}, short)
    with pytest.raises(SourceError):
        place.load()
    assert place.records() == before


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1:1/x",
        "http://nowhere.invalid/x",
        "http://127.0.0.1:abc/x",
        "http://127.0.0.1:99999/",
        "http://[::1",
    ],
)
def test_an_address_that_leads_nowhere_is_told(tmp_path: Path, location: str) -> None:
    """Closed port, unknown name, no port number, half an address: told as a source's fault, never as a crash."""
    place = Pipeline(tmp_path)
    place.configure(location=location, timeout=5.0)
    with pytest.raises(SourceError, match=r"connection failed|no usable address") as caught:
        place.load()
    assert caught.value.todo


@pytest.mark.parametrize("kind", ["application/json", "application/vnd.api+json; charset=utf-8", "text/plain", ""])
def test_json_has_many_names(place: Pipeline, site: Site, kind: str) -> None:
    """What servers call JSON, or don't name at all, is read."""
    site.rule = lambda path, headers: (200, {"Content-Type": kind}, b'[{"id":"a"}]')
    assert place.load().counts.inserted == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_wait_that_the_server_asks_for_is_passed_on(place: Pipeline, site: Site, status: int) -> None:
    """Retry-After, in seconds or as a date, goes with the error; nothing was changed."""
    asked = ["30", formatdate(time.time() + 30, usegmt=True)]
    site.rule = lambda path, headers: (status, {"Retry-After": asked[0]}, b"")
    while asked:
        with pytest.raises(SourceUnavailable, match=f"answered {status} and asked to wait ") as caught:
            place.load()
        assert caught.value.retry_after == pytest.approx(30, abs=2)
        asked.pop(0)
    site.rule = lambda path, headers: (status, {}, b"")
    with pytest.raises(SourceUnavailable) as caught:
        place.load()
    assert caught.value.retry_after is None


def test_no_room_for_the_answer_is_told(tmp_path: Path, site: Site) -> None:
    """The folder for the body can't be written: a message with what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="make room"):
        fetch(site.url, tmp_path / "file", None, timeout=5)


def test_the_query_and_the_login_stay_out_of_messages_and_of_the_database(place: Pipeline, site: Site) -> None:
    """A key in the address is shown to nobody and is not kept."""
    site.conditional({"ETag": '"1"'})
    point(place, site, "/a?token=s3cret")
    site.rule = lambda path, headers: (200, JSON | {"ETag": '"1"'}, b'[{"id":"a"}]')
    place.load()
    assert b"s3cret" not in b"".join(path.read_bytes() for path in place.workspace.home.path.glob("autosync.db*"))
    site.rule = lambda path, headers: (500, {}, b"")
    with pytest.raises(SourceUnavailable) as caught:
        place.load()
    assert "s3cret" not in str(caught.value)
