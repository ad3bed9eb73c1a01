"""Fingerprints that homes have stored so far: each kind still says that its source is as it was."""

from __future__ import annotations

import json
import os
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import pytest
from xxhash import xxh3_128_hexdigest

from blocks.store import batches
from flows.operations.plan import describe
from tests.integration.test_folder_source import write_secretly
from tests.integration.test_http_source import Site, listening
from tests.pipeline import Pipeline

LONG_AGO = 1_700_000_000
LINE = '{"id": "%s", "v": 1}\n'


def synced(folder: Path, location: str, names: list[str]) -> tuple[Pipeline, list[Path]]:
    """A home that holds the records of files last changed long ago: one record each."""
    place, paths = Pipeline(folder), [folder / name for name in names]
    place.configure(location=location, guard={"max_delete": 1.0})
    for n, path in enumerate(paths):
        path.parent.mkdir(exist_ok=True)
        path.write_text(LINE % n)
        os.utime(path, (LONG_AGO, LONG_AGO))
    place.load()
    return place, paths


def facts(path: Path) -> list[int]:
    info = path.stat()
    return [info.st_size, info.st_mtime_ns, info.st_ino]


def stored(place: Pipeline) -> str:
    with place.workspace.database() as db:
        return batches.state(db, "things").fingerprint


def store(place: Pipeline, fingerprint: dict[str, Any]) -> str:
    """Replace the stored fingerprint by what an earlier version wrote."""
    text = json.dumps(fingerprint, separators=(",", ":"), ensure_ascii=False)
    with place.workspace.database() as db:
        batches.touch(db, "things", text)
    return text


def assert_unchanged(place: Pipeline, text: str) -> None:
    """A run stages and stores nothing, a plan says so, and the fingerprint stays as it is, byte by byte."""
    assert describe(place.workspace, "things")["outcome"] == "unchanged"
    found = place.load()
    assert (found.batch, found.left_out, stored(place)) == ("", [], text)
    assert not place.workspace.home.staging.exists() or not list(place.workspace.home.staging.iterdir())


@pytest.mark.parametrize("more", [{}, {"lines": 1}])
def test_of_a_file(tmp_path: Path, more: dict[str, Any]) -> None:
    """Its stat alone decides: content that it doesn't tell of isn't looked at. Lines are known again when it grows."""
    place, (path,) = synced(tmp_path, "things.jsonl", ["things.jsonl"])
    text = store(place, {"stat": facts(path), "settled": True} | more)
    write_secretly(path, '"v": 1', '"v": 8')
    assert_unchanged(place, text)
    write_secretly(path, '"v": 8', '"v": 1')
    with path.open("a") as handle:
        handle.write(LINE % "added")
    found = place.load()
    assert (found.counts.inserted, found.counts.unchanged) == (1, 1)


def test_of_a_file_that_was_too_new(tmp_path: Path) -> None:
    """Its digest decides; the fingerprint that is kept then has its lines, and is settled."""
    place, (path,) = synced(tmp_path, "things.jsonl", ["things.jsonl"])
    store(place, {"stat": facts(path), "settled": False, "lines": 1})
    assert not place.load().batch
    assert json.loads(stored(place)) == {"stat": facts(path), "settled": True, "lines": 1}


@pytest.mark.parametrize("location", ["things", "things/*.jsonl"])
def test_of_a_folder(tmp_path: Path, location: str) -> None:
    """One hash over the stats of its files, in the order of the listing, keyed with the source's seed."""
    place, paths = synced(tmp_path, location, ["things/a.jsonl", "things/b.jsonl"])
    with place.workspace.database() as db:
        seed = batches.state(db, "things").seed
    with os.scandir(tmp_path / "things") as entries:
        listed = [tmp_path / "things" / entry.name for entry in entries]
    shown = [["things/", [path.name for path in listed], [facts(path) for path in listed]]]
    stat = xxh3_128_hexdigest(msgspec.msgpack.encode(shown), seed=seed)
    text = store(place, {"stat": stat, "settled": True})
    write_secretly(paths[0], '"v": 1', '"v": 8')
    assert_unchanged(place, text)


def test_of_a_folder_with_one_file_and_something_left_out(tmp_path: Path) -> None:
    """It is that of the file; what was left out then is no news now."""
    (tmp_path / "things").mkdir()
    (tmp_path / "things" / "self").symlink_to(".")
    place, (path,) = synced(tmp_path, "things", ["things/a.jsonl"])
    said = ["things/self (a link to a folder that it lies in)"]
    text = store(place, {"stat": facts(path), "settled": True, "left_out": said, "lines": 1})
    write_secretly(path, '"v": 1', '"v": 8')
    assert_unchanged(place, text)
    assert describe(place.workspace, "things")["left_out"] == said


@pytest.mark.parametrize("tags", [{"ETag": '"1"'}, {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}])
def test_of_an_address(tmp_path: Path, tags: dict[str, str]) -> None:
    """The server is asked with the validators that it gave, and its word is taken."""
    with listening() as site:
        place = at(tmp_path, site)
        site.conditional(tags)
        place.load()
        mark = blake2b(f"{site.url}/a".encode(), digest_size=16).hexdigest()
        etag, modified = tags.get("ETag", ""), tags.get("Last-Modified", "")
        text = store(place, {"url": mark, "etag": etag, "last_modified": modified})
        site.conditional(tags, body=b"[]")
        assert_unchanged(place, text)
        assert (site.asked[-1].get("If-None-Match", ""), site.asked[-1].get("If-Modified-Since", "")) == (
            etag,
            modified,
        )


def at(folder: Path, site: Site) -> Pipeline:
    place = Pipeline(folder)
    place.configure(location=f"{site.url}/a")
    return place


@pytest.mark.parametrize("text", ['{"url":"","etag":"","last_modified":""}', '{"stat":"ab","settled":true}', "{}"])
def test_of_another_kind(tmp_path: Path, text: str) -> None:
    """It says nothing: the source is looked at, and is as it was by its content; the fingerprint is its own again."""
    place, (path,) = synced(tmp_path, "things.jsonl", ["things.jsonl"])
    with place.workspace.database() as db:
        batches.touch(db, "things", text)
    assert not place.load().batch
    assert json.loads(stored(place)) == {"stat": facts(path), "settled": True}
