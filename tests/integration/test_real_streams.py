"""The real streams of ../shared/data come out exactly."""

from __future__ import annotations

import gzip
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autosync.records import canonical, parse
from blocks.store import batches, history
from tests.pipeline import SHARED, Pipeline

KEV, OUTAGES = SHARED / "data" / "kev", SHARED / "data" / "outages" / "outages-dev.jsonl.gz"
Snapshot = dict[str, bytes]


def lines_of(rows: list[Any], key: list[str]) -> Snapshot:
    """id -> canonical bytes, computed by the plainest means."""
    found = {}
    for row in rows:
        value, doc = parse(json.dumps(row, ensure_ascii=False).encode())
        found["/".join(str(value[name]) for name in key)] = canonical(value)
        assert doc == canonical(value)
    return found


def difference(old: Snapshot, new: Snapshot) -> tuple[int, int, int]:
    """Inserted, updated, deleted."""
    updated = sum(1 for id in new.keys() & old.keys() if new[id] != old[id])
    return len(new.keys() - old.keys()), updated, len(old.keys() - new.keys())


def follow(
    place: Pipeline, source: str, feed: Iterator[tuple[bytes, Snapshot]], file: str
) -> list[tuple[int, Snapshot]]:
    """Sync one snapshot after another; every count and commit is checked. Returns (seq, snapshot) of each."""
    old: Snapshot = {}
    states: list[tuple[int, Snapshot]] = []
    for body, new in feed:
        (place.folder / file).write_bytes(body)
        result = place.run(source=source)
        counts = result.found.counts
        assert (counts.inserted, counts.updated, counts.deleted) == difference(old, new)
        assert bool(result.pushed.sha) == (difference(old, new) != (0, 0, 0))
        states.append((result.mirrored.seq, new))
        old = new
    return states


def check_end(place: Pipeline, name: str, states: list[tuple[int, Snapshot]], clone: Path) -> None:
    """One commit a change; a clone has the records byte for byte; every earlier state can be read."""
    repository = str(place.workspace.home.repository)
    args = ["git", "--git-dir", repository, "rev-list", "--count", "main"]
    commits = int(subprocess.run(args, capture_output=True, text=True, check=True).stdout)
    assert commits == len({seq for seq, _ in states})
    subprocess.run(["git", "clone", "-q", repository, str(clone)], check=True)
    lines = [line for path in (clone / name).rglob("*.jsonl") for line in path.read_bytes().splitlines()]
    assert sorted(lines) == sorted(states[-1][1].values())
    assert place.verify()["equal"] is True
    with place.workspace.database(read_only=True) as db:
        number = batches.collection_id(db, name)
        assert number is not None
        for seq, snapshot in states:
            assert dict(history.as_of(db, number, seq)) == snapshot


@pytest.mark.skipif(not KEV.is_dir(), reason="../shared/data/kev is not here")
def test_the_catalogue_of_exploited_vulnerabilities(tmp_path: Path) -> None:
    """Twelve snapshots of CISA's catalogue: true differences, one commit each, everything restored byte-equal."""
    (tmp_path / "autosync.toml").write_text(
        '[[source]]\nname = "kev"\nlocation = "kev.json"\nrecords = "/vulnerabilities"\nkey = "/cveID"\n'
    )
    place = Pipeline(tmp_path)
    bodies = [path.read_bytes() for path in sorted(KEV.glob("*.json"))]
    feed = ((body, lines_of(json.loads(body)["vulnerabilities"], ["cveID"])) for body in bodies)
    check_end(place, "kev", follow(place, "kev", feed, "kev.json"), tmp_path / "clone")


@pytest.mark.skipif(not OUTAGES.exists(), reason="../shared/data/outages is not here")
def test_the_stream_of_outages(tmp_path: Path) -> None:
    """240 snapshots whose rows vanish and come back: true differences, one commit each, in one process."""
    (tmp_path / "autosync.toml").write_text(
        '[[source]]\nname = "outages"\nlocation = "outages.json"\nkey = ["/OUTAGE_DEVICE_ID", "/F_OUTAGE_ID"]\n'
        "[source.guard]\nmax_delete = 1.0\n"
    )
    place = Pipeline(tmp_path)
    with gzip.open(OUTAGES, "rt") as handle:
        bodies = [json.loads(line)["body"] for line in handle]
    key = ["OUTAGE_DEVICE_ID", "F_OUTAGE_ID"]
    feed = ((body.encode(), lines_of(json.loads(body), key)) for body in bodies)
    check_end(place, "outages", follow(place, "outages", feed, "outages.json"), tmp_path / "clone")
