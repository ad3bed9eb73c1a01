"""Who may read, and what errors tell: token, sign-in, host names, methods, SQL in values, damage."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from autosync.errors import ConfigError
from autosync.settings import Home
from flows.service.dashboard import StoreReading, access
from flows.workspace import Workspace
from reports.dashboard.app import create_app
from reports.dashboard.guard import SESSION, Access
from reports.dashboard.reading import Run, RunFilter
from tests import busy
from tests.serving import ask as get
from tests.serving import serving

TOKEN = "a-token-that-is-long-enough"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A busy store, shared by tests that only read it."""
    return busy.build(tmp_path_factory.mktemp("busy"))


@pytest.fixture(scope="module")
def api(workspace: Workspace) -> Iterator[httpx.Client]:
    with serving(create_app(StoreReading(workspace))) as made:
        yield made


@pytest.fixture
def live(tmp_path: Path) -> Iterator[tuple[Workspace, httpx.Client]]:
    """A small store of its own, for tests that change it."""
    (tmp_path / "autosync.toml").write_text(busy.CONFIG)
    made = Workspace(Home(tmp_path / "home"), tmp_path / "autosync.toml")
    with serving(create_app(StoreReading(made))) as api:
        yield made, api


@pytest.mark.parametrize(
    "text", ["' OR 1=1 --", '"; DROP TABLE run; --', "contacts' UNION SELECT value FROM meta --", "%", "\x00", "\ud83d"]
)
def test_sql_in_values_finds_nothing(api: httpx.Client, text: str) -> None:
    """SQL and odd signs in a value are only a value."""
    sent = text.encode("utf-8", "surrogatepass")
    for path, name in (("runs", "source"), ("changes", "source"), ("changes", "collection"), ("changes", "run")):
        answer = api.get(f"/api/v1/{path}?{name}=" + "".join(f"%{byte:02x}" for byte in sent))
        assert answer.status_code in (200, 422) and not answer.json().get("items")
    quoted = "".join(f"%{byte:02x}" for byte in sent)
    for path in (f"runs/{quoted}", f"records/contacts/{quoted}", f"records/{quoted}/0", f"kpis?source={quoted}"):
        assert api.get(f"/api/v1/{path}").status_code in (404, 422)
    assert get(api, "runs")["items"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_only_reading(api: httpx.Client, method: str) -> None:
    """Whatever would write is refused with what is allowed."""
    answer = api.request(method, "/api/v1/runs", json={"x": 1})
    assert answer.status_code == 405 and answer.headers["allow"] == "GET"
    assert answer.headers["content-type"] == "application/problem+json"


def test_errors_tell_nothing_from_inside(workspace: Workspace) -> None:
    """An unforeseen error is a 500 without a trace; a damaged database a 503 without its path."""

    class Broken(StoreReading):
        def runs(self, which: RunFilter) -> list[Run]:
            raise ZeroDivisionError("division by zero")

    with serving(create_app(Broken(workspace))) as api:
        told = get(api, "runs", 500)
    assert told["detail"] == "Something went wrong. The log says what." and "division" not in json.dumps(told)


def test_damaged_database_is_told(live: tuple[Workspace, httpx.Client]) -> None:
    """A file that is no database is a 503 that doesn't say where it is; /readyz says so too."""
    workspace, api = live
    workspace.home.path.mkdir()
    workspace.home.database.write_bytes(b"this is no database at all, only text" * 100)
    told = get(api, "runs", 503)
    assert "damaged" in told["detail"] and str(workspace.home.path) not in json.dumps(told)
    assert api.get("/readyz").status_code == 503 and api.get("/healthz").status_code == 200
    assert api.get("/").status_code == 503 and str(workspace.home.path) not in api.get("/").text


@pytest.fixture
def closed(workspace: Workspace) -> Iterator[httpx.Client]:
    """A dashboard that asks for a token."""
    with serving(create_app(StoreReading(workspace), Access(TOKEN)), follow_redirects=False) as made:
        yield made


def test_token_is_asked_for_everywhere(closed: httpx.Client) -> None:
    """With a token, API and pages answer only to who has it; probes and static files to everybody."""
    for path in ("/api/v1/status", "/api/v1/openapi.json", "/api/v1/events", "/api/v1/nothing"):
        for headers in ({}, {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": f"Basic {TOKEN}"}):
            answer = closed.get(path, headers=headers)
            assert answer.status_code == 401 and answer.headers["www-authenticate"].startswith("Bearer")
            assert answer.headers["content-type"] == "application/problem+json"
    for path in ("/", "/runs", "/record?collection=contacts&id=0", "/numbers", "/modules", "/changes", "/nothing"):
        answer = closed.get(path)
        assert answer.status_code == 303 and answer.headers["location"].startswith("/login?to=%2F")
    assert closed.get("/api/v1/status", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert closed.get("/healthz").status_code == closed.get("/static/app.css").status_code == 200


def test_signing_in(closed: httpx.Client) -> None:
    """The token becomes a cookie that doesn't tell it; a wrong token, a made-up cookie or a far address don't work."""
    for made_up in ("x", "99999999999.", "99999999999." + "0" * 64, f"1.{Access(TOKEN)._sign('1')}"):
        assert closed.get("/runs", headers={"Cookie": f"{SESSION}={made_up}"}).status_code == 303
    assert closed.post("/login", data={"token": "wrong"}).status_code == 401
    assert closed.post("/login", content=b"token=" + b"x" * 10_000).status_code == 413
    answer = closed.post("/login", data={"token": TOKEN, "to": "//evil.example"})
    assert answer.status_code == 303 and answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"]
    assert TOKEN not in cookie and "HttpOnly" in cookie and "SameSite=strict" in cookie
    assert closed.get("/runs").status_code == 200
    assert TOKEN not in repr(Access(TOKEN))


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "[::1", "a@b"]
)
def test_foreign_hosts_are_refused(api: httpx.Client, host: str) -> None:
    """A page elsewhere that points its name at us (DNS rebinding) reads nothing."""
    for path in ("/api/v1/status", "/", "/static/app.js", "/healthz"):
        answer = api.get(path, headers={"Host": host})
        assert answer.status_code == 421 and answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("host", ["localhost", "localhost:4280", "127.0.0.1:1", "[::1]:4280", "LOCALHOST"])
def test_own_hosts_are_known(api: httpx.Client, host: str) -> None:
    """The loopback's names work with any port."""
    assert api.get("/healthz", headers={"Host": host}).status_code == 200


def test_other_hosts_need_a_strong_token() -> None:
    """Without a token only the loopback is served; a weak one is refused."""
    for host in ("0.0.0.0", "192.168.1.5", "::"):
        with pytest.raises(ConfigError, match="no token is set"):
            access(host, None, [])
    with pytest.raises(ConfigError, match="16 or more"):
        access("127.0.0.1", "short", [])
    assert access("0.0.0.0", TOKEN, []).hosts is None
    assert access("192.168.1.5", TOKEN, ["sync.example"]).host_known("sync.example:80")
    assert not access("0.0.0.0", TOKEN, ["sync.example"]).host_known("evil.example")


def test_headers_forbid_other_origins(api: httpx.Client) -> None:
    """Every answer forbids inline code and other hosts."""
    for path in ("/", "/api/v1/runs", "/nothing", "/static/app.js"):
        policy = api.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and not re.search(r"https?:", policy)
