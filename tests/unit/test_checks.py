"""Row checks: every failure named, absent fields passed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosync.checks import compile_checks, unique_value
from autosync.records import Pointer, parse
from autosync.settings import Expect


def problems(raw: str, **expect: Any) -> list[str]:
    """What checks say about a record's text."""
    checks = compile_checks(Expect(**expect))
    assert checks is not None
    doc = parse(raw.encode())[0]
    found = checks.problems(doc)
    assert checks.all_pass([doc]) == (not found)
    return found


@pytest.mark.parametrize(
    ("raw", "expect", "said"),
    [
        ("{}", {"required": ["/a"]}, ["/a is required"]),
        ('{"a":null}', {"required": ["/a"]}, ["/a is required"]),
        ('{"a":""}', {"required": ["/a"]}, ["/a is required"]),
        ('{"a":0}', {"required": ["/a"]}, []),
        ('{"a":false}', {"required": ["/a"]}, []),
        ('{"a":"1"}', {"types": {"/a": "integer"}}, ['/a must be integer, is "1"']),
        ('{"a":true}', {"types": {"/a": "integer"}}, ["/a must be integer, is true"]),
        ('{"a":1.0}', {"types": {"/a": "integer"}}, ["/a must be integer, is 1.0"]),
        ('{"a":1.0}', {"types": {"/a": "number"}}, []),
        ('{"a":null}', {"types": {"/a": ["string", "null"]}}, []),
        ('{"a":1}', {"types": {"/a": ["string", "null"]}}, ["/a must be string or null, is 1"]),
        ('{"a":"2024-02-30"}', {"types": {"/a": "date"}}, ['/a must be date, is "2024-02-30"']),
        ('{"a":"2024-02-29"}', {"types": {"/a": "date"}}, []),
        ('{"a":"2024-02-29T10:00:00Z"}', {"types": {"/a": "datetime"}}, []),
        ('{"a":"2024-02-29"}', {"types": {"/a": "datetime"}}, ['/a must be datetime, is "2024-02-29"']),
        ("{}", {"types": {"/a": "integer"}}, []),
        ('{"a":3}', {"ranges": {"/a": (0, 2)}}, ["/a must lie in [0, 2], is 3"]),
        ('{"a":2.5}', {"ranges": {"/a": (0, 2)}}, ["/a must lie in [0, 2], is 2.5"]),
        ('{"a":1E400}', {"ranges": {"/a": (0, 2)}}, ["/a must lie in [0, 2], is 1E400"]),
        ('{"a":-1}', {"ranges": {"/a": (0, None)}}, ["/a must lie in [0, ], is -1"]),
        ('{"a":"3"}', {"ranges": {"/a": (0, 2)}}, []),
        ('{"a":"x"}', {"patterns": {"/a": "^[0-9]+$"}}, ['/a must match ^[0-9]+$, is "x"']),
        ('{"a":5}', {"patterns": {"/a": "^[0-9]+$"}}, []),
        ('{"a":"c"}', {"allowed": {"/a": ["a", "b"]}}, ['/a must be one of ["a","b"], is "c"']),
        ('{"a":1.0}', {"allowed": {"/a": [1]}}, []),
        ('{"a":true}', {"allowed": {"/a": [1]}}, ["/a must be one of [1], is true"]),
        ('{"a":0}', {"allowed": {"/a": [False]}}, ["/a must be one of [false], is 0"]),
        ('{"a":true}', {"allowed": {"/a": [True]}}, []),
        ('{"a":{"b":9}}', {"ranges": {"/a/b": (0, 2)}}, ["/a/b must lie in [0, 2], is 9"]),
    ],
)
def test_a_check_names_what_is_wrong(raw: str, expect: dict[str, Any], said: list[str]) -> None:
    """Pointer, what is expected and what is there; absent fields pass, unless they are required."""
    assert problems(raw, **expect) == said


def test_every_failure_is_named() -> None:
    """A row with several faults is told all of them at once."""
    said = problems('{"a":"x","b":9}', required=["/c"], types={"/a": "integer"}, ranges={"/b": (0, 1)})
    assert len(said) == 3


def test_long_values_are_cut_in_the_message() -> None:
    """A reason stays readable."""
    (said,) = problems('{"a":"' + "x" * 500 + '"}', types={"/a": "integer"})
    assert len(said) < 120 and said.endswith("...")


def test_no_checks_cost_nothing() -> None:
    """Without rules there is no function to call; uniqueness is not a row's own matter."""
    assert compile_checks(Expect()) is None
    assert compile_checks(Expect(unique=["/a"])) is None


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.integers(-(10**7), 10**7))
def test_a_range_is_what_it_says(low: float, high: float, value: int) -> None:
    """A number passes exactly when it lies between the bounds, both included."""
    assert (problems(f'{{"a":{value}}}', ranges={"/a": (low, high)}) == []) == (low <= value <= high)


def test_a_unique_value_is_compared_by_content() -> None:
    """Objects are equal whatever their names' order; 1, 1.0 and "1" differ; null and absent count as nothing."""
    value, _ = parse(b'{"a":{"y":1,"x":2},"b":{"x":2,"y":1},"n":1,"f":1.0,"s":"1","z":null}')
    texts = {name: unique_value(Pointer(f"/{name}"), value) for name in "abnfszq"}
    assert texts["a"] == texts["b"]
    assert len({texts["n"], texts["f"], texts["s"]}) == 3
    assert texts["z"] is texts["q"] is None
