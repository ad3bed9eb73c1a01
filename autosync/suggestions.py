"""Suggestions: the right name that is nearest to a mistaken one, for every message about an unknown name."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from autosync.errors import ConfigError

LISTED = 12


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name most like `name`, whatever its case; else one that begins with it, or it with that; else ""."""
    names = {other.lower(): other for other in known}
    matches = get_close_matches(name.lower(), names, 1) or [
        other for other in names if name and (other.startswith(name.lower()) or name.lower().startswith(other))
    ]
    return names[matches[0]] if matches else ""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The question to the user; "" when no known name is near."""
    near = nearest(name, known)
    return f"did you mean {near!r}?" if near else ""


def or_else(question: str, todo: str) -> str:
    """The question, when there is one, and what to do when its answer is no."""
    return f"{question} Or {todo}" if question else todo


def choose_from(name: str, known: Iterable[str]) -> str:
    """What to do about an unknown name: the nearest one, and what else there is."""
    names = list(known)
    listed = ", ".join(names[:LISTED]) or "(there is none)"
    rest = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return or_else(did_you_mean(name, names), f"use one of: {listed}{rest}")


def unknown_name(kind: str, name: str, known: Iterable[str], *, where: str = "") -> ConfigError:
    """The error that says that there is no such source, collection, job ..."""
    return ConfigError(f"there is no {kind} {name!r}", where=where, todo=choose_from(name, known))
