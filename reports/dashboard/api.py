"""The REST API under /api/v1: reads only, exact numbers, keyset pages, weak ETags. docs/api.md tells callers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from starlette.responses import Response, StreamingResponse

from autosync.differences import Difference, differences
from reports.dashboard import badges, models
from reports.dashboard.answers import answer, cursor, next_link, position, seq_position, wrong
from reports.dashboard.attention import look, source_status
from reports.dashboard.events import Pulse
from reports.dashboard.models import ChangeRow, SourceRow
from reports.dashboard.numbers import Numbers
from reports.dashboard.problems import problem, responses
from reports.dashboard.reading import Change, ChangeFilter, Reading, RunFilter, SourceState
from reports.dashboard.words import Say

__all__ = ["change_rows", "probes", "router"]


def no_parameters(request: Request) -> None:
    """Refuses unknown parameters where there are none."""
    for name in request.query_params:
        raise wrong(name, "There is no such parameter here")


def _reading(request: Request) -> Reading:
    found: Reading = request.app.state.reading
    return found


def _numbers(request: Request) -> Numbers:
    found: Numbers = request.app.state.numbers
    return found


Here = Annotated[Reading, Depends(_reading)]
Kept = Annotated[Numbers, Depends(_numbers)]
Bare = [Depends(no_parameters)]
router = APIRouter(prefix="/api/v1", responses=responses())
probes = APIRouter()


def source_rows(states: Sequence[SourceState]) -> list[SourceRow]:
    """Sources with their one status."""
    return [SourceRow(**vars(one), status=source_status(one)) for one in states]


def change_rows(changes: Sequence[Change]) -> list[ChangeRow]:
    """Changes with what differs."""

    def differing(change: Change) -> list[Difference]:
        return [] if change.before is None or change.after is None else differences(change.before, change.after)

    return [ChangeRow(**vars(change), differences=differing(change)) for change in changes]


def _source(reading: Reading, name: str) -> SourceState:
    for state in reading.sources():
        if state.source == name:
            return state
    raise HTTPException(404, f"There is no source {name!r}.")


@router.get("/status", response_model=models.Summary, dependencies=Bare, tags=["status"])
def get_status(request: Request, reading: Here) -> Response:
    """Everything at a glance: the worst status, what needs attention and what to do, every source, locks, outbox."""

    def load() -> models.Summary:
        found = look(reading, Say("en"))
        return models.Summary(
            found.status,
            found.verdict,
            found.revision,
            source_rows(found.sources),
            list(found.points),
            list(found.quarantine),
            list(found.locks),
            found.waiting,
        )

    return answer(request, None, load)


@router.get("/sources", response_model=models.Sources, dependencies=Bare, tags=["status"])
def list_sources(request: Request, reading: Here) -> Response:
    """Every configured source with its status, freshness, last run, records and consumers that are behind."""
    return answer(request, None, lambda: models.Sources(source_rows(reading.sources())))


@router.get("/runs", response_model=models.RunPage, tags=["runs"])
def list_runs(request: Request, reading: Here, query: Annotated[models.RunQuery, Query()]) -> Response:
    """Runs, newest first."""
    which = RunFilter(query.source, query.status, **query.times(), after=position("run", query.cursor))

    def load() -> models.RunPage:
        runs = reading.runs(replace(which, limit=query.limit + 1))
        shown = list(runs[: query.limit])
        return models.RunPage(shown, cursor("run", shown[-1].run) if len(runs) > query.limit else None)

    return answer(request, reading.revision(), load, next_link(request))


@router.get("/runs/{run}", response_model=models.RunDetail, dependencies=Bare, responses=responses(404), tags=["runs"])
def get_run(request: Request, reading: Here, run: str) -> Response:
    """A run with its stages."""

    def load() -> models.RunDetail:
        found = reading.run(run)
        if found is None:
            raise HTTPException(404, "There is no such run.")
        return models.RunDetail(found, list(reading.stages(run)), reading.run_link(run), reading.commit_link(run))

    return answer(request, None, load)


@router.get("/changes", response_model=models.ChangePage, tags=["records"])
def list_changes(request: Request, reading: Here, query: Annotated[models.ChangeQuery, Query()]) -> Response:
    """The change log, newest first, with what differs per JSON Pointer."""
    which = ChangeFilter(query.source, query.collection, query.run, query.op, **query.times())
    which = replace(which, before=seq_position(query.cursor), limit=query.limit + 1)

    def load() -> models.ChangePage:
        found = reading.changes(which)
        return models.ChangePage(change_rows(found[: query.limit]), _next_seq(found, query.limit))

    return answer(request, reading.revision(), load, next_link(request))


def _next_seq(found: Sequence[Change], limit: int) -> str | None:
    return cursor("seq", found[limit - 1].seq) if len(found) > limit else None


@router.get(
    "/records/{collection}/{id:path}", response_model=models.RecordPage, responses=responses(404), tags=["records"]
)
def get_record(
    request: Request, reading: Here, collection: str, id: str, query: Annotated[models.HistoryQuery, Query()]
) -> Response:
    """A record as it is now and every change of it, newest first. The id may hold slashes."""
    before = seq_position(query.cursor)

    def load() -> models.RecordPage:
        found = reading.record(collection, id)
        if found is None:
            raise HTTPException(404, "There is no such record.")
        rows = reading.history(collection, id, before, query.limit + 1)
        shown, following = change_rows(rows[: query.limit]), _next_seq(rows, query.limit)
        return models.RecordPage(collection, id, found.doc is not None, found.doc, shown, following)

    return answer(request, reading.revision(), load, next_link(request))


@router.get("/kpis", response_model=dict[str, Any], responses=responses(404), tags=["numbers"])
def get_kpis(
    request: Request, reading: Here, numbers: Kept, query: Annotated[models.NumbersQuery, Query()]
) -> Response:
    """Success, freshness, durations, availability, downtime and DORA's four, in total and per source."""
    if query.source:
        _source(reading, query.source)

    def load() -> Any:
        report = numbers.kpis(query.days)
        kept = tuple(one for one in report.sources if one.source == query.source)
        return replace(report, sources=kept) if query.source else report

    return answer(request, numbers.tag(), load)


@router.get("/anomalies", response_model=models.Anomalies, responses=responses(404), tags=["numbers"])
def list_anomalies(
    request: Request, reading: Here, numbers: Kept, query: Annotated[models.NumbersQuery, Query()]
) -> Response:
    """Hours whose runs, changes, failures, quarantine or duration were unusual for their source."""
    if query.source:
        _source(reading, query.source)

    def load() -> models.Anomalies:
        found = numbers.anomalies(query.days)
        kept = [one for one in found.items if query.source in (None, one.source)]
        return replace(found, items=kept)

    return answer(request, None, load)


@router.get("/modules", response_model=models.Modules, dependencies=Bare, tags=["status"])
def list_modules(request: Request, reading: Here) -> Response:
    """The health of every module, each proven by doing something harmless with it; may take seconds."""

    def load() -> models.Modules:
        modules = list(reading.modules())
        found = {module.status for module in modules}
        return models.Modules(next((s for s in ("error", "warning", "ok") if s in found), "off"), modules)

    return answer(request, None, load)


@router.get("/sources/{source}/badge.json", response_model=models.Badge, dependencies=Bare, tags=["badges"])
def get_badge_json(request: Request, reading: Here, source: str) -> Response:
    """A source's state for badge services."""
    return answer(request, None, lambda: badges.badge(_source(reading, source)))


@router.get(
    "/sources/{source}/badge.svg",
    dependencies=Bare,
    tags=["badges"],
    response_class=Response,
    responses={200: {"content": {"image/svg+xml": {"schema": {"type": "string"}}}}, **responses(404)},
)
def get_badge_svg(reading: Here, source: str) -> Response:
    """A source's state as an image."""
    image = badges.svg(_source(reading, source))
    return Response(image, headers={"Cache-Control": "no-cache"}, media_type="image/svg+xml")


@router.get(
    "/events",
    tags=["status"],
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}, **responses(503)},
)
async def stream_events(request: Request, since: Annotated[str | None, Query(max_length=60)] = None) -> Response:
    """Server-sent events: `revision` whenever something changed. `since`: the revision that the caller knows."""
    pulse: Pulse = request.app.state.pulse
    if pulse.full:
        return problem(503, "Too many listen already.", headers={"Retry-After": "30"})
    known = request.headers.get("last-event-id") or since
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(pulse.listen(known), headers=headers, media_type="text/event-stream")


@probes.head("/healthz", include_in_schema=False)
@probes.get("/healthz", response_model=models.Probe, tags=["probes"])
def healthz() -> Response:
    """The dashboard runs."""
    return Response(b'{"status":"ok"}', headers={"Cache-Control": "no-store"}, media_type="application/json")


@probes.head("/readyz", include_in_schema=False)
@probes.get("/readyz", response_model=models.Probe, responses=responses(503), tags=["probes"])
def readyz(reading: Here) -> Response:
    """The database can be read, or there is none yet."""
    reading.revision()
    return Response(b'{"status":"ok"}', headers={"Cache-Control": "no-store"}, media_type="application/json")
