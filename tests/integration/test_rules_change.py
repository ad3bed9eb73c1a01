"""A source whose rules change: what its rows became under the old ones is forgotten."""

from __future__ import annotations

from pathlib import Path

from tests.pipeline import Pipeline


def test_another_key_makes_other_records_of_the_same_rows(tmp_path: Path) -> None:
    """After the key changed, rows that go away take the records that they are now with them."""
    place = Pipeline(tmp_path)
    place.configure(guard={"max_delete": 1.0})
    rows = [{"id": f"i{n}", "code": f"c{n}"} for n in range(5)]
    place.write(rows)
    place.load()
    place.configure(key="/code", guard={"max_delete": 1.0})
    place.load()
    assert sorted(place.records()) == ["c0", "c1", "c2", "c3", "c4"]
    place.write(rows[1:] + [{"id": "x", "code": "y"}])
    place.load()
    assert sorted(place.records()) == ["c1", "c2", "c3", "c4", "y"]
