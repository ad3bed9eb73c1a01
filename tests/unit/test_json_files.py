"""Reading documents in windows: the same rows and the same refusals as reading them whole, whatever the window."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autosync.errors import SourceError
from blocks.sources.json_rows import Part, read_part

WHOLE = 1 << 30

texts = st.text(alphabet='a"\\[]{},:\n é😀', max_size=6)
values: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
records = st.lists(st.dictionaries(texts, values, max_size=4) | values, max_size=30)
LAYOUTS: list[dict[str, Any]] = [{"indent": 1}, {"indent": None}, {"separators": (",", ":")}, {"ensure_ascii": False}]
layouts = st.sampled_from(LAYOUTS)
around = st.dictionaries(texts.filter("rows".__ne__), values, max_size=3)


@st.composite
def documents(draw: st.DrawFn) -> tuple[bytes, str]:
    """A document with an array at a pointer, in some layout."""
    pointer = draw(st.sampled_from(["", "/rows", "/data/rows"]))
    value: Any = draw(records)
    for name in reversed(pointer.split("/")[1:]):
        value = {**draw(around), name: value, **draw(around)}
    return draw(st.sampled_from([b"", b"\xef\xbb\xbf", b" \n"])) + json.dumps(value, **draw(layouts)).encode(), pointer


def read(path: Path, pointer: str, window: int) -> list[bytes] | str:
    """All rows with their places, or the refusal."""
    try:
        blocks = list(read_part(Part(path, "in.json"), pointer, window))
    except SourceError as error:
        return str(error)
    return [f"{block.where(n)} ".encode() + row for block in blocks for n, row in enumerate(block.rows)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents(), st.integers(8, 400))
def test_windows_give_the_rows_of_the_whole(tmp_path: Path, document: tuple[bytes, str], window: int) -> None:
    """Every element once, in order, as it stands in the document, with its place."""
    (tmp_path / "in.json").write_bytes(document[0])
    whole = read(tmp_path / "in.json", document[1], WHOLE)
    assert isinstance(whole, list)
    assert read(tmp_path / "in.json", document[1], window) == whole


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents(), st.integers(8, 400), st.data())
def test_windows_refuse_what_the_whole_refuses(
    tmp_path: Path, document: tuple[bytes, str], window: int, data: st.DataObject
) -> None:
    """A document that was cut, or changed in a few bytes, is taken or refused as when it is read at once."""
    text, pointer = document
    begin = data.draw(st.integers(0, len(text)))
    end = data.draw(st.just(len(text)) | st.integers(begin, min(begin + 3, len(text))))
    junk = data.draw(st.sampled_from([b"", b",", b"]", b"}", b"[", b"{", b'"', b":", b"1", b"\\", b"\\ud800", b"x"]))
    (tmp_path / "in.json").write_bytes(text[:begin] + junk + text[end:] or b" ")
    assert read(tmp_path / "in.json", pointer, window) == read(tmp_path / "in.json", pointer, WHOLE)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"rows": [%s,], "n": 1}', "trailing comma in array.*line 1, column"),
        ('{"rows": [%s]} {}', "trailing characters"),
        ('{"rows": [%s], "rows": [{"id": "x"}]}', "'rows' stands twice"),
        ('{"rows": [%s', "truncated"),
        ('{"rows": [%s}', "not JSON.*line 1, column"),
        ('{"rows": [%s],\n "n": NaN}', "NaN is not JSON.*line 2, column 7"),
        ('{"rows": [%s,\n {"n": NaN}]}', "NaN is not JSON.*line 2, column 8"),
        ('{"rows": [%s],\n "t": "\\ud800"}', "half of a surrogate pair.*line 2, column 8"),
    ],
)
def test_what_stands_behind_many_elements_is_looked_at(tmp_path: Path, text: str, words: str) -> None:
    """What is wrong at the end of a large array, or behind it, refuses the document, and is named with its place."""
    rows = ",".join(json.dumps({"id": n, "text": "}, {" * 5, "list": [{"id": n}]}) for n in range(2000))
    (tmp_path / "in.json").write_text(text % rows)
    with pytest.raises(SourceError, match=f"(?s){words}"):
        list(read_part(Part(tmp_path / "in.json", "in.json"), "/rows", 10_000))
    said = read(tmp_path / "in.json", "/rows", 10_000)
    assert said == read(tmp_path / "in.json", "/rows", WHOLE)


def test_an_element_larger_than_the_window_is_read(tmp_path: Path) -> None:
    """A window grows to what one element needs."""
    rows = [{"id": 1}, {"id": 2, "list": [{"text": "x" * 100}] * 3000}, {"id": 3}]
    (tmp_path / "in.json").write_text(json.dumps(rows))
    blocks = list(read_part(Part(tmp_path / "in.json", "in.json"), "", 1000))
    assert [json.loads(bytes(row)) for block in blocks for row in block.rows] == rows


@pytest.mark.parametrize("name", ["in.json", "in.jsonl"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, name: str) -> None:
    """A file of 30 MB is read in a few megabytes."""
    row = json.dumps({"id": "n", "text": "x" * 250})
    with (tmp_path / name).open("w") as handle:
        if name == "in.jsonl":
            handle.writelines(row + "\n" for _ in range(100_000))
        else:
            handle.write('{"rows": [' + row)
            handle.writelines("," + row for _ in range(99_999))
            handle.write("]}")
    tracemalloc.start()
    rows = sum(
        len(block.rows) for block in read_part(Part(tmp_path / name, name), "/rows" * (name == "in.json"), 1 << 20)
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == 100_000
    assert peak < 12 << 20
