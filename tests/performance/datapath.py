"""The data path against its floor: `python -m tests.performance.datapath --records N --json FILE`.

The floor F is `orjson.loads` of every JSONL line and `executemany` of 14 flat columns in one WAL
transaction, measured in the same run, interleaved with the cases. Every measurement is a process
of its own; its time starts after its imports, its peak memory is the whole process's.

    a  first load        b  1 % changed, 0.1 % deleted, at random
    c  nothing changed   d  1 % appended
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MUST = {"a": 1.5, "b": 0.5, "c": 0.01, "d": 0.25}
AIM = {"a": 1.2, "b": 0.3, "c": 0.005, "d": 0.12}
MEMORY_MB = {"a": 300, "b": 200, "c": 60, "d": 150}
WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu".split()


def record(n: int, version: int = 0) -> str:
    """Record n as a JSON line of about 270 bytes, nested; another version differs in two fields."""
    rng = random.Random(n * 7 + version)
    return (
        f'{{"id": "R{n:09d}", "name": "{rng.choice(WORDS)} {rng.choice(WORDS)} {n}", "amount": {rng.randint(0, 10**6)}.'
        f'{rng.randint(0, 99):02d}, "count": {rng.randint(0, 1000)}, "active": {"true" if n % 3 else "false"}, '
        f'"tags": ["{rng.choice(WORDS)}", "{rng.choice(WORDS)}"], "address": {{"city": "{rng.choice(WORDS)}", '
        f'"zip": "{n % 99999:05d}", "lat": {rng.random() * 90:.5f}, "lon": {rng.random() * 180:.5f}}}, '
        f'"updated": "2026-01-{n % 28 + 1:02d}T00:00:00Z", "note": null, "v": {version}}}'
    )


def write_lines(path: Path, rows: Iterator[str], shape: str) -> None:
    """Write rows as JSON Lines, or as an array at /records."""
    with path.open("w") as handle:
        if shape == "jsonl":
            handle.writelines(row + "\n" for row in rows)
        else:
            handle.write('{"made": "2026-01-01", "records": [\n')
            first = True
            for row in rows:
                handle.write(row if first else ",\n" + row)
                first = False
            handle.write("\n]}\n")


def make_inputs(folder: Path, records: int, shape: str) -> None:
    """The inputs of the four cases."""
    rng = random.Random(1)
    write_lines(folder / "a.in", (record(n) for n in range(records)), shape)
    changed = set(rng.sample(range(records), records // 100))
    gone = set(rng.sample(range(records), max(records // 1000, 1))) - changed
    write_lines(folder / "b.in", (record(n, int(n in changed)) for n in range(records) if n not in gone), shape)
    write_lines(folder / "d.in", (record(n) for n in range(records + records // 100)), shape)


FLAT = "id name amount count active tag1 tag2 city zip lat lon updated note v".split()


def floor(source: Path, folder: Path) -> float:
    """Seconds of the floor."""
    import orjson

    path = folder / "floor.db"
    for end in ("", "-wal", "-shm"):
        Path(f"{path}{end}").unlink(missing_ok=True)
    clock = time.perf_counter()
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"CREATE TABLE t ({', '.join(FLAT)}, PRIMARY KEY (id))")

    def rows() -> Iterator[tuple[Any, ...]]:
        with source.open("rb") as handle:
            for line in handle:
                r = orjson.loads(line)
                a = r["address"]
                yield (
                    r["id"],
                    r["name"],
                    r["amount"],
                    r["count"],
                    r["active"],
                    r["tags"][0],
                    r["tags"][1],
                    a["city"],
                    a["zip"],
                    a["lat"],
                    a["lon"],
                    r["updated"],
                    r["note"],
                    r["v"],
                )

    db.execute("BEGIN")
    db.executemany(f"INSERT INTO t VALUES ({', '.join('?' * 14)})", rows())
    db.execute("COMMIT")
    db.close()
    return time.perf_counter() - clock


def upsert_all(source: Path, folder: Path) -> float:
    """Seconds of sqlite-utils' upsert_all of the same rows, as people use it today."""
    from sqlite_utils import Database

    path = folder / "upsert.db"
    clock = time.perf_counter()
    with source.open("rb") as handle:
        Database(path)["t"].upsert_all((json.loads(line) for line in handle), pk="id")
    return time.perf_counter() - clock


def dlt_merge(source: Path, folder: Path) -> float:
    """Seconds of a dlt merge into SQLite, where dlt is installed."""
    import dlt  # type: ignore[import-not-found]

    pipeline = dlt.pipeline(
        "bench",
        destination=dlt.destinations.sqlalchemy(f"sqlite:///{folder / 'dlt.db'}"),
        dataset_name="bench",
        pipelines_dir=str(folder / "dlt"),
    )
    clock = time.perf_counter()
    with source.open("rb") as handle:
        pipeline.run((json.loads(line) for line in handle), table_name="t", primary_key="id", write_disposition="merge")
    return time.perf_counter() - clock


def pipeline(case: str, folder: Path, shape: str) -> dict[str, float]:
    """Seconds of ingest, store and mirror of a case."""
    from autosync.settings import Home
    from blocks.store import ledger
    from flows.space import Space
    from flows.stages.ingest import ingest
    from flows.stages.mirror import mirror
    from flows.stages.store import store

    space = Space(Home(folder / "home"), folder / "autosync.toml")
    clock = time.perf_counter()
    found = ingest(space, "things", f"run-{case}")
    seconds = {"ingest": time.perf_counter() - clock}
    if found.batch:
        with space.database() as db:
            token = ledger.grant(db, "source things", f"run-{case}", now=time.time())
        clock = time.perf_counter()
        store(space, "things", found.batch, f"run-{case}", token)
        seconds["store"] = time.perf_counter() - clock
        clock = time.perf_counter()
        mirror(space, "things")
        seconds["mirror"] = time.perf_counter() - clock
    counts = found.counts
    print(f"  {case}: +{counts.inserted} ~{counts.updated} -{counts.deleted} {seconds}", file=sys.stderr)
    return seconds


def measure(what: str, folder: Path, shape: str, case: str = "") -> dict[str, Any]:
    """Run one measurement in its own process: seconds, parts, peak memory in MB."""
    args = [sys.executable, "-m", "tests.performance.datapath", "--worker", what, "--folder", str(folder)]
    done = subprocess.run([*args, "--shape", shape, "--case", case], capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else str(done.returncode)}
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def worker(what: str, folder: Path, shape: str, case: str) -> None:
    """One measurement, printed as JSON."""
    calls: dict[str, Callable[[], Any]] = {
        "floor": lambda: floor(folder / "lines.in", folder),
        "upsert_all": lambda: upsert_all(folder / "lines.in", folder),
        "dlt": lambda: dlt_merge(folder / "lines.in", folder),
        "case": lambda: pipeline(case, folder, shape),
    }
    if what == "case":
        import flows.stages.ingest
        import flows.stages.mirror
        import flows.stages.store  # noqa: F401  # imports are not what is measured
    result = calls[what]()
    parts = result if isinstance(result, dict) else {"all": result}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": sum(parts.values()), "parts": parts, "mb": peak}))


def run_round(folder: Path, shape: str) -> dict[str, Any]:
    """One pass: the floor before and after every case."""
    for name in ("home", "floor.db"):
        shutil.rmtree(folder / name, ignore_errors=True)
    records = 'records = "/records"\n' if shape == "array" else ""
    suffix = "json" if shape == "array" else "jsonl"
    (folder / "autosync.toml").write_text(
        f'[[source]]\nname = "things"\nlocation = "things.{suffix}"\nkey = "/id"\n{records}'
    )
    found: dict[str, Any] = {}
    feed = folder / f"things.{suffix}"
    for case, data in (("a", "a"), ("c", "a"), ("b", "b"), ("d", "d")):
        if case == "d":  # appended to the first load: bring a.in back first, unmeasured
            shutil.copy(folder / "a.in", feed)
            measure("case", folder, shape, "a")
        if case != "c":
            shutil.copy(folder / f"{data}.in", feed)
            os.utime(feed, (time.time() - 60, time.time() - 60 + len(found)))
        before = measure("floor", folder, shape)
        found[case] = measure("case", folder, shape, case)
        after = measure("floor", folder, shape)
        found[case]["floor"] = statistics.mean([before["seconds"], after["seconds"]])
        found[case]["ratio"] = found[case].get("seconds", float("nan")) / found[case]["floor"]
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--shape", choices=["jsonl", "array"], default="jsonl")
    parser.add_argument("--others", action="store_true", help="also sqlite-utils upsert_all, and dlt where installed")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--case", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args.worker, args.folder, args.shape, args.case)
        return
    with tempfile.TemporaryDirectory(prefix="autosync-bench-") as name:
        folder = Path(name)
        make_inputs(folder, args.records, args.shape)
        if args.shape == "array":
            write_lines(folder / "lines.in", (record(n) for n in range(args.records)), "jsonl")
        else:
            shutil.copy(folder / "a.in", folder / "lines.in")
        rounds = [run_round(folder, args.shape) for _ in range(args.rounds)]
        others = {what: measure(what, folder, args.shape) for what in ("upsert_all", "dlt")} if args.others else {}
    report(args.records, args.shape, rounds, others)
    if args.json:
        args.json.write_text(json.dumps({"records": args.records, "rounds": rounds, "others": others}, indent=2))


def report(records: int, shape: str, rounds: list[dict[str, Any]], others: dict[str, Any]) -> None:
    """Print the ratios: median over the rounds."""
    print(f"{records:,} records, {shape}, {len(rounds)} rounds; ratios to the floor F of the same minutes")
    print(f"{'case':4} {'ratio':>8} {'must':>6} {'aim':>6} {'seconds':>8} {'F':>6} {'MB':>5} {'limit':>5}  parts")
    for case in MUST:
        rows = [found[case] for found in rounds if "seconds" in found[case]]
        if not rows:
            print(f"{case:4} {rounds[0][case]}")
            continue
        ratio = statistics.median(row["ratio"] for row in rows)
        parts = {name: round(value, 3) for name, value in rows[0]["parts"].items()}
        print(
            f"{case:4} {ratio:8.4f} {MUST[case]:6} {AIM[case]:6} {rows[0]['seconds']:8.3f} {rows[0]['floor']:6.2f} "
            f"{max(row['mb'] for row in rows):5.0f} {MEMORY_MB[case]:5}  {parts}"
        )
    base = statistics.median(found["a"]["floor"] for found in rounds)
    for what, row in others.items():
        said = f"{row['seconds'] / base:8.4f}" if "seconds" in row else f"not measured: {row['error']}"
        print(f"{what:12} {said}")


if __name__ == "__main__":
    main()
