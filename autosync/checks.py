"""Row checks: `[source.expect]` compiled into tests of the values at its pointers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime
from types import NoneType
from typing import Any

import msgspec

from autosync.records import Document, Pointer, number
from autosync.settings import Expect

Test = Callable[[Any], str | None]

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


def _required(text: str) -> Test:
    return lambda value: f"{text} is required" if value in (None, "", _ABSENT) else None


def _typed(text: str, types: list[str]) -> Test:
    tests = [_TYPES[name] for name in types]

    def test(value: Any) -> str | None:
        if value is _ABSENT or any(is_type(value) for is_type in tests):
            return None
        return f"{text} must be {' or '.join(types)}, is {_show(value)}"

    return test


def _ranged(text: str, low: float | None, high: float | None) -> Test:
    def test(value: Any) -> str | None:
        if not _TYPES["number"](value):
            return None
        plain = number(value)
        if (low is not None and plain < low) or (high is not None and plain > high):
            bounds = ", ".join("" if bound is None else f"{bound:g}" for bound in (low, high))
            return f"{text} must lie in [{bounds}], is {_show(value)}"
        return None

    return test


def _matching(text: str, pattern: str) -> Test:
    search = re.compile(pattern).search

    def test(value: Any) -> str | None:
        if isinstance(value, str) and not search(value):
            return f"{text} must match {pattern}, is {_show(value)}"
        return None

    return test


def _one_of(text: str, allowed: list[Any]) -> Test:
    def test(value: Any) -> str | None:
        plain = number(value)
        if value is _ABSENT or any(
            plain == one and isinstance(plain, bool) == isinstance(one, bool) for one in allowed
        ):
            return None
        return f"{text} must be one of {_show(allowed)}, is {_show(value)}"

    return test


class RowChecks:
    """The checks of one source.

    Args:
        tests: Pointer text and test; a test takes what stands there and says what is wrong with it, or None.
    """

    def __init__(self, tests: list[tuple[str, Test]]) -> None:
        self._tests = [(Pointer(text), test) for text, test in tests]

    def problems(self, doc: Document) -> list[str]:
        """What is wrong with a record."""
        found = [test(pointer.get(doc, _ABSENT)) for pointer, test in self._tests]
        return [problem for problem in found if problem is not None]

    def all_pass(self, docs: Sequence[Document]) -> bool:
        """Whether all of many records pass, looking at each different scalar of a column once."""
        columns: dict[Pointer, Iterable[Any]] = {}
        for pointer, test in self._tests:
            if pointer not in columns:
                columns[pointer] = _distinct(pointer.column(docs, _ABSENT))
            if any(test(value) is not None for value in columns[pointer]):
                return False
        return True


def _distinct(column: list[Any]) -> Iterable[Any]:
    """The different values of a column, if they can be told apart as JSON does (1, 1.0 and true are three)."""
    kinds = set(map(type, column))
    if kinds <= {str, int, NoneType, object} or kinds <= {bool, str, NoneType, object}:
        return set(column)
    return column


def compile_checks(expect: Expect) -> RowChecks | None:
    """The checks that `[source.expect]` asks for; None when nothing is to be checked.

    `required` means present and neither null nor empty; the other checks pass on absent fields, so
    that "optional, but if there then ..." can be said. Uniqueness needs the other rows and is not part of it.
    """
    tests: list[tuple[str, Test]] = [(text, _required(text)) for text in expect.required]
    tests += [
        (text, _typed(text, [kind] if isinstance(kind, str) else list(kind))) for text, kind in expect.types.items()
    ]
    tests += [(text, _ranged(text, low, high)) for text, (low, high) in expect.ranges.items()]
    tests += [(text, _matching(text, pattern)) for text, pattern in expect.patterns.items()]
    tests += [(text, _one_of(text, allowed)) for text, allowed in expect.allowed.items()]
    return RowChecks(tests) if tests else None


def unique_value(pointer: Pointer, doc: Document) -> str | None:
    """The canonical text of a field that must be unique; None when it is absent or null."""
    value = pointer.get(doc)
    return None if value is None else msgspec.json.encode(value, order="sorted").decode()
