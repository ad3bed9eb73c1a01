"""The pages: overview, runs, a run, changes, a record's history, numbers, modules, sign-in. They only read."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, get_args
from urllib.parse import parse_qs

from fastapi import APIRouter, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError
from starlette.responses import RedirectResponse, Response

from autosync.attention import split_error
from autosync.errors import AutoSyncError
from reports.dashboard.answers import cursor, position, seq_position
from reports.dashboard.api import change_rows, source_rows
from reports.dashboard.attention import look
from reports.dashboard.guard import SESSION, SESSION_SECONDS, Access
from reports.dashboard.models import Time
from reports.dashboard.reading import ChangeFilter, Op, Reading, Run, RunFilter, RunStatus
from reports.dashboard.templating import language_of, render
from reports.dashboard.timeline import timeline
from reports.dashboard.words import Say

__all__ = ["error_page", "router"]

router = APIRouter()
ROWS, NEWEST = 50, 8
DAYS = 30
LONGEST_BODY = 4096
_TIME: TypeAdapter[datetime] = TypeAdapter(Time)


def _reading(request: Request) -> Reading:
    found: Reading = request.app.state.reading
    return found


def _asked(request: Request, *names: str) -> dict[str, str]:
    """The filters of a page; empty ones are those that a form sends for nothing."""
    return {name: value for name in names if (value := request.query_params.get(name, "").strip())}


def _times(asked: dict[str, str]) -> dict[str, Any]:
    """since and until in Unix seconds."""
    try:
        return {name: _TIME.validate_python(asked[name]).timestamp() for name in ("since", "until") if name in asked}
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None


def _choice(asked: dict[str, str], name: str, kind: Any) -> Any:
    """A filter's value; RequestValidationError when it is none of the choices."""
    value = asked.get(name)
    if value is not None and value not in get_args(kind):
        raise RequestValidationError([{"loc": ("query", name), "msg": "unknown", "type": "value_error"}])
    return value


@router.get("/")
def overview(request: Request) -> Response:
    """The verdict, the sources, what needs attention, charts, the newest changes."""
    reading, say = _reading(request), Say(language_of(request))
    state = look(reading, say)
    size, buckets = request.app.state.numbers.buckets(DAYS)
    return render(
        request,
        "overview.html",
        {
            "state": state,
            "revision": state.revision,
            "sources": source_rows(state.sources),
            "now": datetime.now(UTC),
            "empty": not any(one.last_run for one in state.sources) and not reading.runs(RunFilter(limit=1)),
            "buckets": buckets,
            "hourly": size < 86_400,
            "rows": change_rows(reading.changes(ChangeFilter(limit=NEWEST))),
        },
    )


@router.get("/runs")
def runs(request: Request) -> Response:
    """Runs, newest first."""
    asked = _asked(request, "source", "status", "since", "until", "cursor")
    which = RunFilter(asked.get("source"), _choice(asked, "status", RunStatus), **_times(asked))
    which = replace(which, after=position("run", asked.get("cursor")), limit=ROWS + 1)
    reading = _reading(request)
    found = reading.runs(which)
    following = cursor("run", found[ROWS - 1].run) if len(found) > ROWS else None
    choices = {"sources": [one.source for one in reading.sources()], "statuses": get_args(RunStatus)}
    context = {"runs": found[:ROWS], "asked": asked, "next": following, "revision": reading.revision(), **choices}
    return render(request, "runs.html", context)


@router.get("/runs/{run}")
def run(request: Request, run: str) -> Response:
    """A run: facts, error, stages as a timeline, changes."""
    reading = _reading(request)
    revision, found = reading.revision(), reading.run(run)
    if found is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    stages = reading.stages(run)
    return render(
        request,
        "run.html",
        {
            "run": found,
            "revision": revision,
            "stages": stages,
            "bars": timeline(stages, found),
            "prefect": reading.run_link(run),
            "commit_link": _web(reading.commit_link(run)),
            "error": split_error(found.error) if found.error else None,
            "rows": change_rows(reading.changes(ChangeFilter(run=run, limit=NEWEST))) if _changed(found) else [],
            "changed": _changed(found),
        },
    )


def _changed(run: Run) -> int:
    return run.inserted + run.updated + run.deleted


def _web(link: str | None) -> str | None:
    """A link that a browser may follow; the others are commands."""
    return link if link and link.startswith(("https://", "http://")) else None


@router.get("/changes")
def changes(request: Request) -> Response:
    """The change log with what differs, newest first."""
    asked = _asked(request, "source", "collection", "run", "op", "since", "until", "cursor")
    which = ChangeFilter(asked.get("source"), asked.get("collection"), asked.get("run"), _choice(asked, "op", Op))
    which = replace(which, before=seq_position(asked.get("cursor")), limit=ROWS + 1, **_times(asked))
    reading = _reading(request)
    found = reading.changes(which)
    following = cursor("seq", found[ROWS - 1].seq) if len(found) > ROWS else None
    sources = reading.sources()
    choices = {"sources": [one.source for one in sources], "ops": get_args(Op)}
    context = {"rows": change_rows(found[:ROWS]), "asked": asked, "next": following, "revision": reading.revision()}
    return render(request, "changes.html", context | choices)


@router.get("/record")
def record(request: Request, collection: str, id: str) -> Response:
    """A record: every version with what differs from the one before."""
    reading = _reading(request)
    revision, found = reading.revision(), reading.record(collection, id)
    if found is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    place = request.query_params.get("cursor")
    rows = reading.history(collection, id, seq_position(place), ROWS + 1)
    following = cursor("seq", rows[ROWS - 1].seq) if len(rows) > ROWS else None
    context = {"record": found, "rows": change_rows(rows[:ROWS]), "next": following, "first": place is None}
    return render(request, "record.html", context | {"revision": revision})


@router.get("/numbers")
def numbers(request: Request) -> Response:
    """KPIs per source and in total; `part=kpis` is what the overview shows, `part=unusual` takes longer."""
    found = request.app.state.numbers
    part = request.query_params.get("part", "")
    context = {"kpis": found.kpis(DAYS), "days": DAYS, "part": part}
    return render(
        request, "numbers.html", context | {"anomalies": found.anomalies(DAYS) if part == "unusual" else None}
    )


@router.get("/modules")
def modules(request: Request) -> Response:
    """The health of every module."""
    return render(request, "modules.html", {"modules": _reading(request).modules()})


@router.get("/login")
def login(request: Request) -> Response:
    """Where browsers give the token."""
    return render(request, "login.html", {"wrong": False, "to": _local(request.query_params.get("to", "/"))})


@router.post("/login")
async def enter(request: Request) -> Response:
    """Exchange the token for a cookie that proves it."""
    access: Access = request.app.state.access
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LONGEST_BODY:
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    form = parse_qs(body.decode("utf-8", "replace"))
    to = _local(form.get("to", ["/"])[0])
    if not access.token_right(form.get("token", [""])[0].strip()):
        return render(request, "login.html", {"wrong": True, "to": to}, 401)
    answer = RedirectResponse(to, HTTPStatus.SEE_OTHER)
    secure = request.url.scheme == "https"
    answer.set_cookie(
        SESSION, access.session(), max_age=SESSION_SECONDS, httponly=True, samesite="strict", secure=secure
    )
    return answer


def _local(to: str) -> str:
    """An address of ours to go to; never another host."""
    safe = to.startswith("/") and not to.startswith(("//", "/\\")) and to.isprintable()
    return to if safe else "/"


def error_page(request: Request, status: int, detail: str) -> Response:  # noqa: ARG001  # in the page's own words
    """An error for people: what happened in their language, and the way back."""
    known = status if status in (404, 422, 503) else 500
    try:
        return render(request, "error.html", {"status": status, "known": str(known)}, status)
    except AutoSyncError:
        return Response("Something went wrong.", status)
