"""The application: API, pages, static files, behind the guard."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from reports.dashboard import api, pages, problems
from reports.dashboard.events import Pulse
from reports.dashboard.guard import Access, Guard
from reports.dashboard.numbers import Numbers
from reports.dashboard.reading import Reading
from reports.dashboard.words import Language

__all__ = ["create_app"]

FOLDER = Path(__file__).parent
ABOUT = "Read-only: everything that AutoSync knows about runs, changes, records and numbers. docs/api.md explains it."


class Files(StaticFiles):
    """Static files; their addresses carry their digest, so browsers may keep them."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        answer = await super().get_response(path, scope)
        lasting = scope.get("query_string", b"").startswith(b"v=") and answer.status_code == 200
        answer.headers["Cache-Control"] = "public, max-age=31536000, immutable" if lasting else "no-cache"
        return answer


class Dashboard(FastAPI):
    """FastAPI whose OpenAPI names our errors and the KPIs' form; the latter is looked up when asked for."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = _complete(super().openapi())
        return self.openapi_schema


def _complete(schema: dict[str, Any]) -> dict[str, Any]:
    from pydantic import TypeAdapter

    from analytics.kpi_tracker import Report

    parts = schema["components"]["schemas"]
    forms: tuple[tuple[str, Any], ...] = (("Problem", problems.Problem), ("Report", Report))
    for name, form in forms:
        made = TypeAdapter(form).json_schema(mode="serialization", ref_template="#/components/schemas/{model}")
        parts |= made.pop("$defs", {}) | {name: made}
    answer = schema["paths"]["/api/v1/kpis"]["get"]["responses"]["200"]
    answer["content"] = {"application/json": {"schema": {"$ref": "#/components/schemas/Report"}}}
    parts.pop("HTTPValidationError", None)
    parts.pop("ValidationError", None)
    schema["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    schema["security"] = [{"token": []}, {}]
    return schema


def create_app(reading: Reading, access: Access | None = None, *, language: Language = "en") -> FastAPI:
    """The dashboard of a store.

    Args:
        access: Who may read; without one, whoever reaches it over a loopback name.
        language: For people whose browser asks for none of ours.
    """
    access = access or Access()
    app = Dashboard(
        title="AutoSync",
        version=version("autosync"),
        description=ABOUT,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        middleware=[Middleware(Guard, access=access), Middleware(GZipMiddleware, minimum_size=600, compresslevel=6)],
    )
    app.state.reading, app.state.access, app.state.language = reading, access, language
    app.state.numbers, app.state.pulse = Numbers(reading), Pulse(reading.revision)
    problems.install(app)
    app.include_router(api.router)
    app.include_router(api.probes)
    app.include_router(pages.router, include_in_schema=False)
    app.mount("/static", Files(directory=FOLDER / "static"), name="static")
    return app
