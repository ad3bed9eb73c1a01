"""A new kind of source is one module and its entry in the registry: nothing else needs to know of it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autosync.errors import SourceError
from autosync.settings import Source
from blocks.sources import registry
from flows.operations.plan import describe
from flows.service.observer import watched_folder
from tests.pipeline import Pipeline

MODULE = '''
"""A source of the rows of a CSV file, each a record of texts."""

import csv
from collections.abc import Iterator
from pathlib import Path

import msgspec

from autosync.change_detection import Block
from autosync.errors import SourceError
from blocks.sources.reader import Content, Fingerprint, Known, Previous, Reader, Reading, Unchanged


class CsvFingerprint(Fingerprint, frozen=True):
    text_of_file: str


class CsvReading(Reading):
    def __init__(self, text: str) -> None:
        self._text = text

    def blocks(self, known: Known) -> Iterator[Block]:
        rows = [msgspec.json.encode(row) for row in csv.DictReader(self._text.splitlines())]
        yield Block(rows, lambda n: f"line {n + 2}")

    def content(self) -> Content:
        return Content(self._text, CsvFingerprint(self._text))


class CsvReader(Reader):
    @classmethod
    def reads(cls, location: str, base: Path) -> bool:
        return location.startswith("csv:")

    def look(self, previous: Previous) -> Unchanged | Reading:
        try:
            text = (self.context.base / self.source.location.removeprefix("csv:")).read_text()
        except OSError as error:
            raise SourceError("the table can't be read", where=str(error.filename)) from None
        now = CsvFingerprint(text)
        return Unchanged(now) if previous.as_kind(CsvFingerprint) == now else CsvReading(text)
'''


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
    """A home with a source of a kind that a package of its own adds."""
    package = tmp_path / "added_sources"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "csv_table.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    kind = importlib.import_module("added_sources.csv_table").CsvReader
    registry.KINDS.insert(0, kind)
    pipeline = Pipeline(tmp_path)
    pipeline.configure(location="csv:people.csv", guard={"max_delete": 1.0}, expect={"allowed": {"/n": ["1", "2"]}})
    try:
        yield pipeline
    finally:
        registry.KINDS.remove(kind)
        for name in ("added_sources.csv_table", "added_sources"):
            del sys.modules[name]


def test_it_is_synced_as_any_other(place: Pipeline) -> None:
    """Into store, mirror and repository: first all, then nothing, then only what changed; a bad row to quarantine."""
    place.write("id,n\na,1\nb,1\n", "people.csv")
    result = place.run()
    assert result.found.counts.inserted == 2 and place.verify()["equal"] is True
    assert place.git("show", "main:things/records.jsonl") == '{"id":"a","n":"1"}\n{"id":"b","n":"1"}\n'
    assert place.run().found.batch == "" and describe(place.workspace, "things")["outcome"] == "unchanged"
    place.write("id,n\na,2\nc,7\n", "people.csv")
    assert describe(place.workspace, "things")["updated"] == 1
    counts = place.run().found.counts
    assert (counts.updated, counts.deleted, counts.quarantined) == (1, 1, 1)
    assert place.records() == {"a": '{"id":"a","n":"2"}'} and place.verify()["equal"] is True


def test_its_errors_are_told_as_those_of_others(place: Pipeline) -> None:
    """Nothing changes, and the observer takes its location for no path."""
    with pytest.raises(SourceError, match=r"can't be read.*people\.csv"):
        place.run()
    assert watched_folder(place.workspace, place.workspace.source("things")) is None


@pytest.mark.parametrize(
    ("location", "kind"),
    [
        ("https://example.org/things/*.json", "HttpReader"),
        ("http://127.0.0.1/", "HttpReader"),
        ("things", "FolderReader"),
        ("things/*.json", "FolderReader"),
        ("[t]hings.json", "FolderReader"),
        ("things.json", "FileReader"),
        ("nothing", "FileReader"),
        ("~/nothing", "FileReader"),
    ],
)
def test_a_location_has_one_kind(tmp_path: Path, location: str, kind: str) -> None:
    """An address, a folder that is there, a glob; everything else is the path of a file."""
    (tmp_path / "things").mkdir()
    assert registry.kind_of(location, tmp_path).__name__ == kind
    assert Source(name="things", location=location, key="/id").location == location
