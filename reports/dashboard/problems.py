"""Errors as RFC 9457 problems for programs, and as pages for people. Nothing from inside is told."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from autosync.errors import AutoSyncError

__all__ = ["Problem", "install", "is_api", "problem", "responses"]

MEDIA = "application/problem+json"
logger = logging.getLogger("autosync.dashboard")


@dataclass(frozen=True)
class Problem:
    """An error. `errors` names each wrong parameter and what is wrong with it."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]]


def problem(
    status: int, detail: str, *, errors: list[dict[str, str]] | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """The answer for an error."""
    body = Problem("about:blank", HTTPStatus(status).phrase, status, detail, errors or [])
    kept = {"Cache-Control": "no-store", **(headers or {})}
    return Response(msgspec.json.encode(body), status, kept, media_type=MEDIA)


def is_api(path: str) -> bool:
    """Whether a program asks, who gets a problem rather than a page."""
    return path.startswith("/api") or path in ("/healthz", "/readyz")


def responses(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The problems that an endpoint answers with, for OpenAPI."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        code: {"description": HTTPStatus(code).phrase, "content": {MEDIA: {"schema": schema}}}
        for code in sorted({401, 422, 500, *codes})
    }


def _told(request: Request, status: int, detail: str, **more: Any) -> Response:
    if is_api(request.url.path):
        return problem(status, detail, **more)
    from reports.dashboard.pages import error_page

    return error_page(request, status, detail)


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = error.detail
    if error.status_code == HTTPStatus.NOT_FOUND and detail == HTTPStatus.NOT_FOUND.phrase:
        detail = "There is nothing at this address."
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        detail = "This address can only be read."
        return problem(error.status_code, detail, headers=error.headers)
    return _told(request, error.status_code, detail)


def _wrong(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [{"name": ".".join(str(part) for part in one["loc"][1:]), "reason": one["msg"]} for one in error.errors()]
    return _told(request, 422, "A parameter is wrong or unknown.", errors=errors)


def _known(request: Request, error: Exception) -> Response:
    """One of our own errors: the database is busy, damaged or of a newer version."""
    assert isinstance(error, AutoSyncError)
    logger.error("%s", error)
    return _told(request, 503, f"{error.what[:1].upper()}{error.what[1:]}.")


def _unknown(request: Request, error: Exception) -> Response:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _told(request, 500, "Something went wrong. The log says what.")


def install(app: FastAPI) -> None:
    """Make every error of an application a problem, or a page."""
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _wrong)
    app.add_exception_handler(AutoSyncError, _known)
    app.add_exception_handler(Exception, _unknown)
