"""How the pages are written: Jinja2 with escaping, and what templates may call."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse

from reports.dashboard.words import LANGUAGES, Language, Say

__all__ = ["language_of", "render"]

FOLDER = Path(__file__).parent
LANGUAGE_COOKIE = "autosync_language"
YEAR = 366 * 86_400
MOST_VALUE = 400
HARMLESS = "\n\t\u200c\u200d\u200e\u200f\u2068\u2069"  # line ends, joiners, marks, and our own isolates


def language_of(request: Request) -> Language:
    """The language that was asked for now, before, or by the browser."""
    wanted = (request.query_params.get("lang"), request.cookies.get(LANGUAGE_COOKIE))
    for language in LANGUAGES:
        if wanted[0] == language or (wanted[0] is None and wanted[1] == language):
            return language
    accepted = request.headers.get("accept-language", "").lower()
    fallback: Language = request.app.state.language
    return next((one for one in LANGUAGES if accepted.startswith(one)), fallback)


def address(path: str, **values: Any) -> str:
    """An address below ours with its parameters; those without a value are left out."""
    given = {name: str(value) for name, value in values.items() if value not in (None, "")}
    return f"{path}?{urlencode(given)}" if given else path


def pretty(doc: Any) -> str:
    """A record as people read it."""
    return msgspec.json.format(bytes(doc), indent=2).decode()


def shown(value: Any) -> str:
    """A raw JSON value on one line: text without its quotes, the end left out when it is long."""
    raw = bytes(value)
    text = str(msgspec.json.decode(raw)) if raw[:1] == b'"' else raw.decode()
    return text if len(text) <= MOST_VALUE else f"{text[:MOST_VALUE]}…"


def visible(value: Any) -> Any:
    """Text with its control signs and direction overrides written as JSON does, so that nothing hides in data."""
    if not isinstance(value, str) or isinstance(value, Markup) or (value.isascii() and value.isprintable()):
        return value
    return "".join(f"\\u{ord(sign):04x}" if _hidden(sign) else sign for sign in value)


def _hidden(sign: str) -> bool:
    return sign not in HARMLESS and unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Co")


@cache
def asset(name: str) -> str:
    """The address of a static file with its digest, so that browsers may keep it until it changes."""
    digest = blake2b((FOLDER / "static" / name).read_bytes(), digest_size=6).hexdigest()
    return f"/static/{name}?v={digest}"


def iso(time: datetime) -> str:
    """A time for machines."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {"address": address, "asset": asset}
    made.filters |= {"pretty": pretty, "shown": shown, "iso": iso}
    return made


def switch(request: Request, language: Language) -> str:
    """This page in another language."""
    kept = [(name, value) for name, value in request.query_params.multi_items() if name != "lang"]
    return f"{request.url.path}?{urlencode([*kept, ('lang', language)])}"


def render(request: Request, template: str, context: Mapping[str, Any], status: int = 200) -> HTMLResponse:
    """A page in the reader's language."""
    language = language_of(request)
    say = Say(language)
    other: Language = "en" if language == "fa" else "fa"
    frame = {
        "say": say,
        "language": language,
        "other": other,
        "switch": switch(request, other),
        "here": str(request.url.path) + (f"?{request.url.query}" if request.url.query else ""),
        "path": request.url.path,
        "number": say.number,
        "duration": say.duration,
        "moment": lambda time: Markup.escape(say.moment(time and time.timestamp())),
    }
    text = _environment().get_template(template).render({**frame, **context})
    answer = HTMLResponse(text, status, {"Cache-Control": "private, no-cache", "Vary": "Cookie, Accept-Language"})
    if request.query_params.get("lang") == language:
        answer.set_cookie(LANGUAGE_COOKIE, language, max_age=YEAR, httponly=True, samesite="lax")
    return answer
