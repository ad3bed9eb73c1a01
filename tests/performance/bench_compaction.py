"""What compaction costs and gives back, for a long history that the real stages wrote at made-up times.

python -m tests.performance.bench_compaction --records 20000 --syncs 400 --changes 200
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from autosync.retention import DAY
from blocks.store import compaction, history, ledger
from flows.compact import compact_collection, describe
from flows.stages.lock import Grant
from flows.workspace import now
from tests.pipeline import Pipeline

A_DAY = 8


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure(folder: Path, records: int, syncs: int, changes: int) -> list[str]:
    """Build the history, compact it, compact it again; what to tell."""
    place, chance = Pipeline(folder), random.Random(1)
    place.configure()
    (folder / "autosync.toml").open("a").write("[retention]\ndays = 7\ndaily = 14\n")
    rows: list[dict[str, Any]] = [{"id": f"k{n}", "n": 0, "text": "x" * 200} for n in range(records)]
    for number in range(syncs):
        for row in chance.sample(rows, changes):
            row["n"] += 1
        place.write(rows)
        place.load_at(now() - (syncs - number) * DAY / A_DAY)
    workspace = place.workspace
    versions = workspace.home.mirror / "things" / "versions"
    with workspace.database() as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (collection,) = history.collections(db)
        token = ledger.grant(db, "source things", "compact", now=now())
        sizes = workspace.home.database.stat().st_size, size(versions)
    grant = Grant(place="source things", token=token, lease="", state_version=0)
    said = [f"{records:,} records, {syncs:,} syncs of {changes:,} changes over {syncs / A_DAY:.0f} days"]
    for label in ("first", "again"):
        clock = time.perf_counter()
        done = compact_collection(workspace, collection, grant)
        said.append(
            f"{label}: {time.perf_counter() - clock:.2f} s; {describe(done)}; file {done.freed:,} bytes smaller"
        )
    with workspace.database() as db:
        clock = time.perf_counter()
        db.execute("VACUUM")
        said.append(f"VACUUM alone: {time.perf_counter() - clock:.2f} s")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        left = len(compaction.points(db, collection["collection"]))
    said.append(f"database {sizes[0]:,} -> {workspace.home.database.stat().st_size:,} bytes, {left:,} points")
    said.append(f"versions {sizes[1]:,} -> {size(versions):,} bytes, {len(list(versions.iterdir())):,} files")
    return said


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--syncs", type=int, default=400)
    parser.add_argument("--changes", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="autosync-bench-") as folder:
        print("\n".join(measure(Path(folder), options.records, options.syncs, options.changes)))


if __name__ == "__main__":
    main()
