"""The fields that a view shows: every name at the top, and every name in an object there."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from autosync.fields import Fields
from autosync.records import canonical

NAMES = st.sampled_from(["a", "b", "c", "{"])
VALUES = st.one_of(st.none(), st.integers(), st.sampled_from(["{", "}{"]), st.lists(st.dictionaries(NAMES, st.none())))
DOCUMENTS = st.dictionaries(NAMES, VALUES | st.dictionaries(NAMES, VALUES | st.dictionaries(NAMES, VALUES)))


def told(documents: list[dict[str, Any]]) -> set[tuple[str, ...]]:
    """The same, told plainly."""
    names = {name for document in documents for name in document}
    inner = {
        (name, one)
        for document in documents
        for name, item in document.items()
        if isinstance(item, dict)
        for one in item
    }
    return inner | {(name,) for name in names if not any(path[0] == name for path in inner)}


@given(st.lists(DOCUMENTS, max_size=8), st.integers(1, 3))
@example([{"a": {"b": 1}}, {"a": 1, "b": 2}], 1)
@example([{"a": {"b": 1}, "c": 1}, {"a": "x", "c": {"a": 1}}], 1)
def test_no_field_is_missed(documents: list[dict[str, Any]], size: int) -> None:
    """Whatever comes in whatever blocks, each field is noted once."""
    fields = Fields()
    for first in range(0, len(documents), size):
        block = documents[first : first + size]
        fields.note(block, b"".join(canonical(document) + b"\n" for document in block))
    assert len(set(fields.paths)) == len(fields.paths)
    assert set(fields.paths) == told(documents)
