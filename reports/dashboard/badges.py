"""A source's state as a badge for a README: SVG of our own, or JSON for badge services."""

from __future__ import annotations

from autosync.attention import Status
from reports.dashboard.attention import source_status
from reports.dashboard.models import Badge
from reports.dashboard.reading import SourceState

__all__ = ["badge", "svg"]

MESSAGES: dict[Status, str] = {"ok": "in sync", "warning": "warning", "error": "failing", "unknown": "unknown"}
COLORS: dict[Status, tuple[str, str]] = {
    "ok": ("brightgreen", "#1f7a3d"),
    "warning": ("orange", "#9a5b00"),
    "error": ("red", "#b3261e"),
    "unknown": ("lightgrey", "#5c6370"),
}
SIGN = 6.6  # the width of a sign in 11 px Verdana, on average


def _message(state: SourceState) -> tuple[Status, str]:
    status = source_status(state)
    late = status in ("warning", "error") and state.freshness in ("warn", "error")
    return status, "late" if late and state.last_finished and not state.last_finished.error else MESSAGES[status]


def badge(state: SourceState) -> Badge:
    """The badge as JSON."""
    status, message = _message(state)
    return Badge(1, state.source, message, COLORS[status][0])


def svg(state: SourceState) -> str:
    """The badge as an image; its text is also its title. Names of sources are letters, digits, - and _."""
    status, message = _message(state)
    left, right = (round(len(text) * SIGN) + 12 for text in (state.source, message))
    wide, title = left + right, f"{state.source}: {message}"
    texts = "".join(
        f'<text x="{x:g}" y="14" textLength="{round(len(text) * SIGN)}">{text}</text>'
        for x, text in ((left / 2, state.source), (left + right / 2, message))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="20" role="img" aria-label="{title}">'
        f'<title>{title}</title><clipPath id="c"><rect width="{wide}" height="20" rx="3"/></clipPath>'
        f'<g clip-path="url(#c)"><rect width="{left}" height="20" fill="#444b55"/>'
        f'<rect x="{left}" width="{right}" height="20" fill="{COLORS[status][1]}"/></g>'
        f'<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">{texts}</g>'
        "</svg>"
    )
