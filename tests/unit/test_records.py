"""Records: canonical form, what is refused and why, ids from keys."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from autosync.records import (
    MAX_DEPTH,
    BadRecord,
    NotUtf8,
    Pointer,
    canonical,
    key_reader,
    keys_reader,
    line_ids_reader,
    number,
    parse,
    parse_many,
)

NUMBERS = st.one_of(
    st.from_regex(r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
    st.integers(0, 12).map(lambda n: "1" + "0" * 3 ** min(n, 8)),
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), TEXTS, NUMBERS.map(msgspec.Raw)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(TEXTS, VALUES, max_size=6)
KEYS = st.one_of(st.text("a/~01é✓ ", min_size=1, max_size=6), st.integers())


def spelt(value: Any, way: random.Random) -> str:
    """A value as some other program might write it: other order, spaces and escapes."""
    space = way.choice(["", " ", "\n\t", "\r\n  "])
    if isinstance(value, dict):
        items = list(value.items())
        way.shuffle(items)
        inner = ",".join(f"{space}{spelt(name, way)}{space}:{space}{spelt(item, way)}" for name, item in items)
        return "{" + inner + space + "}"
    if isinstance(value, list):
        return "[" + f"{space},{space}".join(spelt(item, way) for item in value) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=way.random() < 0.5).replace("/", way.choice(["/", "\\/"]))
    return bytes(value).decode() if isinstance(value, msgspec.Raw) else json.dumps(value)


@given(DOCUMENTS)
def test_the_canonical_form_is_its_own_canonical_form(document: dict[str, Any]) -> None:
    """Parsing canonical bytes gives the same bytes again."""
    doc = canonical(document)
    assert parse(doc)[1] == doc
    assert canonical(parse(doc)[0]) == doc


@given(DOCUMENTS, st.randoms(use_true_random=False), st.randoms(use_true_random=False))
def test_order_spaces_and_escapes_do_not_matter(
    document: dict[str, Any], one: random.Random, two: random.Random
) -> None:
    """However a document is written, its canonical bytes are the same."""
    first, second = parse(spelt(document, one).encode())[1], parse(spelt(document, two).encode())[1]
    assert first == second == canonical(document)


@given(NUMBERS)
@example("-0")
@example("-0.0")
@example("1" + "0" * 400)
@example("18446744073709551616")
@example("-9223372036854775809")
@example("0.1000")
@example("9" * 5000)
def test_numbers_keep_their_text(text: str) -> None:
    """No digit, sign, zero or exponent of a number changes, at any depth."""
    raw = f'{{"a":{text},"b":[{text},{{"c":{text}}}]}}'.encode()
    assert parse(raw)[1] == raw


@given(DOCUMENTS)
def test_names_stand_in_the_order_of_their_code_points(document: dict[str, Any]) -> None:
    """The order of names is that of their characters' numbers."""
    names = list(json.loads(canonical(document), parse_int=str))
    assert names == sorted(document)


def test_different_numbers_are_different_content() -> None:
    """1, 1.0 and 1e0 are three texts: a change from one to another is a change."""
    assert len({parse(b'{"n":%s}' % text)[1] for text in (b"1", b"1.0", b"1e0", b"10e-1")}) == 4


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b'{"a":1,"a":1}', 'the name "a" stands twice'),
        (b'{"a":{"b":1,"\\u0062":2}}', 'the name "b" stands twice'),
        (b'{"a":[{"x":1, "x":2}], "long": "   "}', 'the name "x" stands twice'),
        (b"[1]", "must be an object, this is an array"),
        (b"null", "this is null"),
        (b"12", "this is a number"),
        (b"1.5", "this is a number"),
        (b"true", "this is a boolean"),
        (b'"x"', "this is a string"),
        (b'{"a":1', "not JSON"),
        (b'{"a":1,}', "not JSON"),
        (b"{'a':1}", "not JSON"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":-Infinity}', "Infinity"),
        (b'{"a":01}', "not JSON"),
        (b'{"a":1.}', "not JSON"),
        (b'{"a":"\t"}', "not JSON"),
        (b'{"a":"\\ud800"}', "half of a surrogate pair"),
        (b'{"a":"\\udc00\\ud800"}', "half of a surrogate pair"),
        (b'{"\\udfff":1}', "half of a surrogate pair"),
        (b'{"a":' + b"[" * MAX_DEPTH + b"1" + b"]" * MAX_DEPTH + b"}", f"nested deeper than {MAX_DEPTH}"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", f"nested deeper than {MAX_DEPTH}"),
        (b'{"a":1} {"b":2}', "not JSON"),
        (b"", "not JSON"),
    ],
)
def test_what_is_no_record_is_refused_with_its_reason(raw: bytes, words: str) -> None:
    """The reason says in words what is wrong."""
    with pytest.raises(BadRecord, match=words):
        parse(raw)


def test_brackets_inside_text_are_not_depth() -> None:
    """Only real nesting counts against the limit; the deepest that is allowed is taken."""
    assert parse(b'{"a":"' + b"[" * 500 + b'"}')[0] == {"a": "[" * 500}
    assert parse(b'{"a":' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}")


@pytest.mark.parametrize("raw", [b'{"a":"caf\xe9"}', b'{"caf\xe9":1}', b'{"a":"\xed\xa0\x80"}', b'{"a":"\xc0\xaf"}'])
def test_bytes_that_are_not_utf8_speak_against_the_file(raw: bytes) -> None:
    """Latin-1, encoded surrogates and overlong forms are told apart from other faults."""
    with pytest.raises(NotUtf8, match="0x"):
        parse(raw)


@given(st.lists(KEYS, min_size=2, max_size=3), st.lists(KEYS, min_size=2, max_size=3))
def test_different_composite_keys_give_different_ids(one: list[Any], two: list[Any]) -> None:
    """No two keys share an id, whatever / and ~ they hold; 1 and "1" are the same key."""
    names = ["a", "b", "c"]

    def id_of(parts: list[Any]) -> str:
        used = names[: len(parts)]
        return key_reader([f"/{name}" for name in used])(dict(zip(used, parts, strict=True)))

    same = [str(part) for part in one] == [str(part) for part in two]
    if len(one) == len(two):
        assert (id_of(one) == id_of(two)) == same


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, "no key: nothing at /id"),
        ({"id": None}, "must be a string or an integer, this is null"),
        ({"id": True}, "this is a boolean"),
        ({"id": msgspec.Raw(b"1.0")}, "this is a number"),
        ({"id": []}, "this is an array"),
        ({"id": ""}, "1 to 1000 printable"),
        ({"id": "x" * 1001}, "1 to 1000 printable"),
        ({"id": "a\tb"}, "printable"),
        ({"id": "a\u2028b"}, "printable"),
    ],
)
def test_a_key_that_names_nothing_is_refused(value: dict[str, Any], words: str) -> None:
    """A key is a printable text or an integer."""
    with pytest.raises(BadRecord, match=words):
        key_reader(["/id"])(value)


def test_a_key_may_lie_deep_and_be_an_integer() -> None:
    """A pointer goes through objects and arrays; an integer's id is its text."""
    value = {"a": {"b/c": [{"~": 7}]}, "id": 1}
    assert key_reader(["/a/b~1c/0/~0"])(value) == "7"
    assert key_reader(["id"])(value) == key_reader(["id"])({"id": "1"}) == "1"
    assert key_reader(["/id", "/a/b~1c/0/~0"])(value) == "1/7"
    assert Pointer("/a/x").get(value, "none") == Pointer("/a/b~1c/1").get(value, "none") == "none"
    assert Pointer("").get(value) is value


def test_a_number_with_a_fraction_can_be_calculated_with() -> None:
    """Its text becomes a float; everything else stays as it is."""
    assert number(parse(b'{"n":1.50}')[0]["n"]) == 1.5
    assert number(7) == 7 and number("x") == "x"


ROWS = st.one_of(
    st.builds(spelt, DOCUMENTS, st.randoms(use_true_random=False)).map(str.encode),
    st.sampled_from(
        [
            b'{"a":1,"a":2}',
            b'{"a":1,"a":"\\u0022\\u0022"}',
            b'{"a":-0}',
            b'{"a":-0,"b":"\\u002d"}',
            b'{"a":-0.0}',
            b'{"a":1} {"b":2}',
            b'{"a":[{}',
            b'{"a":{}',
            b"}",
            b"",
            b"  ",
            b"[1]",
            b"1",
            b' {"a":1}',
            b'{"a":1}\r\n',
            b'{"a":"x"',
            b'{"a":"\\ud800"}',
            b'{"a":1e400,"b":%d}' % 10**400,
            b'{"a":' + b"9" * 5000 + b"}",
            b'{"a":' + b"[" * 199 + b"]" * 199 + b"}",
            b'{"a":' + b"[" * 200 + b"]" * 200 + b"}",
            b'{"a":"\xff"}',
        ]
    ),
)


@given(st.lists(ROWS, min_size=1, max_size=6))
@example([b'{"a":1}{"b":2}', b""])
@example([b'{"a":1}{"b":2}', b'{"x":{}', b"}"])
@example([b'{"a":[{}', b"{}]}"])
def test_many_rows_are_parsed_as_each_is(rows: list[bytes]) -> None:
    """Parsing in one go takes rows only where parsing each of them takes every one, and gives the same."""
    if (found := parse_many(rows)) is not None:
        each = [parse(row) for row in rows]
        assert found[0] == [value for value, _ in each]
        assert found[1] == b"".join(doc + b"\n" for _, doc in each)


def test_ordinary_rows_are_parsed_in_one_go() -> None:
    """Escapes, dates, negative numbers, numbers with a fraction and nested objects need no closer look."""
    rows = [b'{"a": "2026-01-02", "b": -1, "c": -0.50, "d": {"e": "\\u00e9\\n\\""}}\n'] * 3
    assert parse_many(rows) is not None


@given(st.lists(DOCUMENTS, min_size=1, max_size=5), st.sampled_from([["/a"], ["/a", "/b"], ["/a/b"], ["/a/0"]]))
def test_many_keys_are_read_as_each_is(documents: list[dict[str, Any]], pointers: list[str]) -> None:
    """The ids of many records, or the refusal of one of them, are those of each."""

    def told(read: Callable[[], list[str]]) -> list[str] | str:
        try:
            return read()
        except BadRecord as problem:
            return str(problem)

    key, keys = key_reader(pointers), keys_reader(pointers)
    assert told(lambda: keys(documents)) == told(lambda: [key(document) for document in documents])


@given(st.lists(st.tuples(KEYS, DOCUMENTS), max_size=5), st.sampled_from([["/id"], ["/id", "/id"], ["/in/id"]]))
def test_ids_of_canonical_lines_are_those_of_the_records(
    rows: list[tuple[str | int, dict[str, Any]]], pointers: list[str]
) -> None:
    """Reading the key alone gives the id that the whole record has."""
    documents = [document | {"id": key, "in": {"id": key}} for key, document in rows]
    lines = b"".join(canonical(document) + b"\n" for document in documents)
    key = key_reader(pointers)
    assert line_ids_reader(pointers)(lines) == [key(document) for document in documents]


@pytest.mark.parametrize("line", [b"{", b'{"no":1}', b'{"id":null}', b"[]"])
@pytest.mark.parametrize("pointers", [["/id"], ["/id", "/x"]])
def test_a_line_without_a_key_is_no_line_of_ours(line: bytes, pointers: list[str]) -> None:
    """Somebody else wrote it."""
    with pytest.raises(BadRecord):
        line_ids_reader(pointers)(line + b"\n")
