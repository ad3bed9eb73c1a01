"""The REST API as callers rely on it: forms, cursors, ETags, errors, who may read."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import jsonschema  # type: ignore[import-untyped]  # ships no types
import pytest

from autosync.settings import Home
from flows.service.dashboard import StoreReading
from flows.workspace import Workspace, now
from reports.dashboard.app import create_app
from tests import busy
from tests.serving import ask as get
from tests.serving import serving

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "a-token-that-is-long-enough"
LISTS = ("runs", "changes")


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


def walk(api: httpx.Client, path: str, **parameters: Any) -> Iterator[list[dict[str, Any]]]:
    """Every page, by following Link."""
    address: str | None = str(httpx.URL(f"/api/v1/{path}", params=parameters))
    while address:
        answer = api.get(address)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        yield body["items"] if "items" in body else body["history"]
        found = answer.links.get("next", {}).get("url")
        assert (found is None) == (body["next"] is None)
        address = found


def addresses(api: httpx.Client) -> dict[str, str]:
    """A real address for every path of OpenAPI that answers JSON."""
    run = get(api, "runs", limit=1)["items"][0]["run"]
    change = get(api, "changes", source="readings", limit=1)["items"][0]
    return {
        "/api/v1/status": "status",
        "/api/v1/sources": "sources",
        "/api/v1/runs": "runs?limit=500",
        "/api/v1/runs/{run}": f"runs/{run}",
        "/api/v1/changes": "changes?limit=500",
        "/api/v1/records/{collection}/{id}": str(httpx.URL(f"records/readings/{change['id']}")),
        "/api/v1/kpis": "kpis",
        "/api/v1/anomalies": "anomalies?days=7",
        "/api/v1/modules": "modules",
        "/api/v1/sources/{source}/badge.json": "sources/orders/badge.json",
    }


def test_answers_match_openapi(api: httpx.Client) -> None:
    """Every JSON answer has exactly the form that OpenAPI tells."""
    schema = get(api, "openapi.json")
    known = addresses(api)
    others = {"/api/v1/sources/{source}/badge.svg", "/api/v1/events", "/healthz", "/readyz"}
    assert set(schema["paths"]) == set(known) | others
    for path, address in known.items():
        form = schema["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        checker = jsonschema.Draft202012Validator({**form, "components": schema["components"]})
        checker.validate(get(api, address))


def test_openapi_is_offline_and_names_our_errors(api: httpx.Client) -> None:
    """No documentation page loads anything from elsewhere, and every error is a problem."""
    schema = get(api, "openapi.json")
    assert "http://" not in json.dumps(schema) and "https://" not in json.dumps(schema)
    assert "HTTPValidationError" not in json.dumps(schema)
    for path in schema["paths"].values():
        for status, told in path["get"]["responses"].items():
            assert status == "200" or "application/problem+json" in told["content"]
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert api.get(path).status_code == 404


def test_docs_name_every_path(api: httpx.Client) -> None:
    """docs/api.md has every path and every parameter of OpenAPI."""
    text, schema = (ROOT / "docs" / "api.md").read_text(), get(api, "openapi.json")
    for path, methods in schema["paths"].items():
        assert f"`{path}`" in text or f"`GET {path}`" in text, path
        for parameter in methods["get"].get("parameters", []):
            assert f"`{parameter['name']}`" in text, (path, parameter["name"])


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("limit", [1, 7, 500])
def test_pages_are_complete_without_gaps(api: httpx.Client, path: str, limit: int) -> None:
    """The pages of any size together are the whole list, newest first, each row once."""
    key = "seq" if path == "changes" else "run"
    filters = {"source": "contacts"} if limit == 1 and path == "runs" else {}
    rows = [row[key] for page in walk(api, path, limit=limit, **filters) for row in page]
    assert len(rows) == len(set(rows)) > 20
    if path == "changes":
        assert rows == list(range(rows[0], 0, -1))


def test_pages_stay_whole_while_rows_arrive(live: tuple[Workspace, httpx.Client]) -> None:
    """Rows that arrive between two pages neither shift nor repeat what comes after."""
    workspace, api = live
    chance = random.Random(1)
    expected: dict[str, list[Any]] = {}
    for version in range(6):
        run = busy.run_id(chance)
        busy.note(workspace, run, "orders", now() + version, "changed")
        busy.sync(workspace, "orders", busy.orders(version), run, now() + version)
    for path, key in (("runs", "run"), ("changes", "seq")):
        expected[path] = [row[key] for page in walk(api, path, limit=500) for row in page]
        seen = []
        for number, page in enumerate(walk(api, path, limit=2)):
            seen += [row[key] for row in page]
            if number < 3:
                run = busy.run_id(chance)
                busy.note(workspace, run, "readings", now() + number, "changed")
                busy.sync(workspace, "readings", busy.readings(number + len(path)), run, now() + number)
        assert seen == expected[path]


def test_record_has_its_whole_history(api: httpx.Client) -> None:
    """A record comes with every change, exact numbers and what differs; the pages of its history connect."""
    found = get(api, "records/contacts/0")
    assert found["live"] and found["record"]["balance"] == 10**17
    assert [row["op"] for row in found["history"]][-1] == "insert"
    update = next(row for row in found["history"] if row["op"] == "update")
    assert {"op": "replace", "path": "/name/nick"}.items() <= update["differences"][0].items()
    paged = [row["seq"] for page in walk(api, "records/contacts/0", limit=1) for row in page]
    assert paged == [row["seq"] for row in found["history"]]
    for newer, older in zip(found["history"], found["history"][1:], strict=False):
        assert newer["before"] == older["after"]


def test_numbers_stay_as_they_were_written(live: tuple[Workspace, httpx.Client]) -> None:
    """`1.0`, `1e400` and integers past 2^64 come out with the digits they came in with."""
    workspace, api = live
    run = busy.run_id(random.Random(3))
    rows = b'[{"number":"x","a":1.0,"b":123456789012345678901234567890,"c":1.10}]'
    busy.note(workspace, run, "orders", now(), "changed")
    (workspace.base / "orders.json").write_bytes(rows)
    _store(workspace, "orders", run)
    text = api.get("/api/v1/records/orders/x").text
    assert '"a":1.0,"b":123456789012345678901234567890,"c":1.10' in text


def _store(workspace: Workspace, source: str, run: str) -> None:
    from blocks.store import ledger
    from flows.operations.ingest import ingest
    from flows.operations.store import store

    found = ingest(workspace, source, run, "", None)
    assert found.batch
    with workspace.database() as db:
        token = ledger.grant(db, f"source {source}", run, now=now())
    store(workspace, source, found.batch, run, token)


def test_deleted_record_and_ids_with_slashes(api: httpx.Client) -> None:
    """A deleted record still has its history; an id may hold slashes, encoded or not."""
    gone = get(api, "changes", op="delete", limit=1)["items"][0]
    found = get(api, f"records/{gone['collection']}/{gone['id']}")
    assert not found["live"] and found["record"] is None and found["history"][0]["op"] == "delete"
    change = get(api, "changes", source="readings", limit=1)["items"][0]
    assert "/" in change["id"]
    for id in (change["id"], change["id"].replace("/", "%2F")):
        assert get(api, f"records/readings/{id}")["id"] == change["id"]


def test_filters_keep_what_they_say(api: httpx.Client) -> None:
    """Every filter gives a part of the whole and nothing else."""
    for status in ("changed", "failed", "refused"):
        rows = get(api, "runs", status=status, source="orders", limit=500)["items"]
        assert rows and {(row["status"], row["source"]) for row in rows} == {(status, "orders")}
    everything = get(api, "changes", limit=500)["items"]
    middle = everything[len(everything) // 2]["time"]  # as told, to the microsecond
    later = get(api, "changes", since=middle, limit=500)["items"]
    earlier = get(api, "changes", until=middle, limit=500)["items"]
    assert [row["seq"] for row in later + earlier] == [row["seq"] for row in everything]
    for name in ("run", "collection", "op"):
        value = everything[0][name]
        assert {row[name] for row in get(api, "changes", **{name: value})["items"]} == {value}
    unix = datetime.fromisoformat(middle).timestamp()
    assert [row["seq"] for row in get(api, "changes", since=unix, limit=500)["items"]] == [row["seq"] for row in later]


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("runs", {"limit": 501}),
        ("runs", {"limit": 0}),
        ("runs", {"limit": 10**30}),
        ("runs", {"status": "nonsense"}),
        ("runs", {"sauce": "contacts"}),
        ("runs", {"since": "yesterday-ish"}),
        ("runs", {"cursor": "!!!"}),
        ("runs", {"cursor": "c2VxOjQ0"}),
        ("changes", {"cursor": "cnVuOjE"}),
        ("changes", {"cursor": "c2VxOi0x"}),
        ("changes", {"op": "drop"}),
        ("status", {"x": "1"}),
        ("records/contacts/0", {"y": "1"}),
        ("kpis", {"days": 0}),
    ],
)
def test_wrong_parameters_are_named(api: httpx.Client, path: str, parameters: dict[str, Any]) -> None:
    """A wrong or unknown parameter is a 422 that names it."""
    told = get(api, path, 422, **parameters)
    assert told["status"] == 422 and {error["name"] for error in told["errors"]} == set(parameters)


def test_etag_holds_until_something_changes(live: tuple[Workspace, httpx.Client]) -> None:
    """The same question is answered 304 until the store changes, and then with another ETag."""
    workspace, api = live
    busy.note(workspace, "a" * 8, "orders", now(), "unchanged")
    for path in ("runs", "changes", "sources", "status", "anomalies"):
        first = api.get(f"/api/v1/{path}")
        tag = first.headers["etag"]
        assert tag.startswith('W/"')
        again = api.get(f"/api/v1/{path}", headers={"If-None-Match": f'"other", {tag}'})
        assert again.status_code == 304 and not again.content and again.headers["etag"] == tag
        busy.note(workspace, f"{path:a<8}", "orders", now(), "failed", error="it broke")
        changed = api.get(f"/api/v1/{path}", headers={"If-None-Match": tag})
        assert path == "anomalies" or (changed.status_code == 200 and changed.headers["etag"] != tag)


def test_etag_notices_another_database(live: tuple[Workspace, httpx.Client]) -> None:
    """A database put in the place of another is read at once, even at the same revision."""
    workspace, api = live
    busy.note(workspace, "one", "orders", now(), "unchanged")
    tag = api.get("/api/v1/runs").headers["etag"]
    workspace.home.database.rename(workspace.home.path / "old.db")
    for name in ("-wal", "-shm"):
        Path(f"{workspace.home.database}{name}").unlink(missing_ok=True)
    busy.note(workspace, "two", "orders", now(), "unchanged")
    answer = api.get("/api/v1/runs", headers={"If-None-Match": tag})
    assert [row["run"] for row in answer.json()["items"]] == ["two"]


def test_nothing_synced_yet(live: tuple[Workspace, httpx.Client]) -> None:
    """Before the first run every list is empty and nothing is an error."""
    workspace, api = live
    assert get(api, "runs") == get(api, "changes") == {"items": [], "next": None}
    found = get(api, "status")
    assert found["status"] == "unknown" and len(found["sources"]) == 3 and found["revision"] == ""
    assert get(api, "kpis")["total"]["runs"] == 0 and get(api, "anomalies")["items"] == []
    assert api.get("/readyz").json() == api.get("/healthz").json() == {"status": "ok"}
    assert not workspace.home.database.exists()
    get(api, "records/orders/1", 404)


def test_events_tell_of_changes(live: tuple[Workspace, httpx.Client]) -> None:
    """A listener hears of a change within seconds, and at once of what it missed."""
    workspace, api = live
    busy.note(workspace, "one", "orders", now(), "unchanged")
    known = get(api, "status")["revision"]
    for since, change in ((known, True), ("an old one", False)):
        with api.stream("GET", "/api/v1/events", params={"since": since}) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            lines = stream.iter_lines()
            assert next(lines) == "retry: 3000"
            if change:
                busy.note(workspace, "two", "orders", now(), "changed")
            told = [next(lines) for _ in range(4)]
        assert told[1] == "event: revision"
        assert json.loads(told[3].removeprefix("data: "))["revision"] == told[2].removeprefix("id: ") != known


def test_badges(api: httpx.Client) -> None:
    """A badge says how a source is, as an image and for badge services; 404 for others."""
    assert get(api, "sources/orders/badge.json") == {
        "schemaVersion": 1,
        "label": "orders",
        "message": "failing",
        "color": "red",
    }
    answer = api.get("/api/v1/sources/orders/badge.svg")
    assert answer.headers["content-type"].startswith("image/svg+xml") and "orders: failing" in answer.text
    get(api, "sources/nothing/badge.json", 404)


def test_status_says_what_to_do(api: httpx.Client) -> None:
    """The worst comes first, with what to do; the whole is as bad as its worst part."""
    found = get(api, "status")
    assert found["status"] == "error" and found["verdict"].startswith("Needs attention")
    first = found["attention"][0]
    assert (first["source"], first["status"]) == ("orders", "error") and "autosync run orders" in first["todo"]
    assert {point["status"] for point in found["attention"]} == {"error", "warning"}
    detail = get(api, f"runs/{first['run']}")
    assert detail["run"]["status"] == "failed" and [stage["state"] for stage in detail["stages"]] == ["failed"]


def test_pandas_waits_until_it_is_needed(workspace: Workspace) -> None:
    """Lists and pages come without pandas; the numbers bring it."""
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from autosync.settings import Home\n"
        "from flows.workspace import Workspace\n"
        "from flows.service.dashboard import StoreReading; from reports.dashboard.app import create_app\n"
        "from tests.serving import serving\n"
        "workspace = Workspace(Home(Path(sys.argv[1])), Path(sys.argv[2]))\n"
        "with serving(create_app(StoreReading(workspace))) as api:\n"
        "    for path in ('/', '/runs', '/changes', '/api/v1/status', '/api/v1/runs', '/api/v1/changes', '/readyz'):\n"
        "        assert api.get(path).status_code == 200\n"
        "    assert not {'pandas', 'prefect'} & set(sys.modules), 'too early'\n"
        "    assert api.get('/api/v1/kpis').status_code == 200 and 'pandas' in sys.modules\n"
    )
    args = [sys.executable, "-W", "ignore", "-c", code, str(workspace.home.path), str(workspace.config)]
    done = subprocess.run(args, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
