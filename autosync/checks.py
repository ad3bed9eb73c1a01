"""Row checks: `[source.expect]` compiled into one function that names every failure."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime
from typing import Any

import msgspec

from autosync.records import Document, Pointer, number
from autosync.settings import Expect

Check = Callable[[Document], str | None]
RowChecks = Callable[[Document], list[str]]

_ABSENT = object()


def _is_date(value: Any) -> bool:
    try:
        return isinstance(value, str) and len(value) == 10 and bool(date.fromisoformat(value))
    except ValueError:
        return False


def _is_datetime(value: Any) -> bool:
    try:
        return isinstance(value, str) and len(value) > 10 and bool(datetime.fromisoformat(value))
    except ValueError:
        return False


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": _is_integer,
    "number": lambda value: _is_integer(value) or isinstance(value, msgspec.Raw),
    "boolean": lambda value: isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "null": lambda value: value is None,
    "date": _is_date,
    "datetime": _is_datetime,
}


def _show(value: Any) -> str:
    text = msgspec.json.encode(value).decode(errors="replace")
    return text if len(text) <= 80 else text[:77] + "..."


def _required(text: str) -> Check:
    pointer = Pointer(text)
    return lambda doc: None if pointer.get(doc) not in (None, "") else f"{text} is required"


def _typed(text: str, types: list[str]) -> Check:
    pointer, tests = Pointer(text), [_TYPES[name] for name in types]

    def check(doc: Document) -> str | None:
        value = pointer.get(doc, _ABSENT)
        if value is _ABSENT or any(test(value) for test in tests):
            return None
        return f"{text} must be {' or '.join(types)}, is {_show(value)}"

    return check


def _ranged(text: str, low: float | None, high: float | None) -> Check:
    pointer = Pointer(text)

    def check(doc: Document) -> str | None:
        value = pointer.get(doc)
        if not _TYPES["number"](value):
            return None
        plain = number(value)
        if (low is not None and plain < low) or (high is not None and plain > high):
            bounds = ", ".join("" if bound is None else f"{bound:g}" for bound in (low, high))
            return f"{text} must lie in [{bounds}], is {_show(value)}"
        return None

    return check


def _matching(text: str, pattern: str) -> Check:
    pointer, search = Pointer(text), re.compile(pattern).search

    def check(doc: Document) -> str | None:
        value = pointer.get(doc)
        if isinstance(value, str) and not search(value):
            return f"{text} must match {pattern}, is {_show(value)}"
        return None

    return check


def _one_of(text: str, allowed: list[Any]) -> Check:
    pointer = Pointer(text)

    def check(doc: Document) -> str | None:
        value = pointer.get(doc, _ABSENT)
        plain = number(value)
        if value is _ABSENT or any(
            plain == one and isinstance(plain, bool) == isinstance(one, bool) for one in allowed
        ):
            return None
        return f"{text} must be one of {_show(allowed)}, is {_show(value)}"

    return check


def compile_checks(expect: Expect) -> RowChecks | None:
    """A function from a parsed record to the list of what is wrong with it; None when nothing is to be checked.

    `required` means present and neither null nor empty; the other checks pass on absent fields, so
    that "optional, but if there then ..." can be said. Uniqueness needs the other rows and is not part of it.
    """
    checks: list[Check] = [_required(text) for text in expect.required]
    checks += [_typed(text, [kind] if isinstance(kind, str) else list(kind)) for text, kind in expect.types.items()]
    checks += [_ranged(text, low, high) for text, (low, high) in expect.ranges.items()]
    checks += [_matching(text, pattern) for text, pattern in expect.patterns.items()]
    checks += [_one_of(text, allowed) for text, allowed in expect.allowed.items()]
    if not checks:
        return None
    return lambda doc: [problem for check in checks if (problem := check(doc)) is not None]


def unique_value(pointer: Pointer, doc: Document) -> str | None:
    """The canonical text of a field that must be unique; None when it is absent or null."""
    value = pointer.get(doc)
    return None if value is None else msgspec.json.encode(value, order="sorted").decode()
