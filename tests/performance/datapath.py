"""The data path against its floor: `python -m tests.performance.datapath --records N --json [FILE]`.

The floor F is `orjson.loads` of every JSON line (of every file, for a folder) and `executemany` of 14 flat
columns in one WAL transaction, measured before and after every case. Every measurement is a process of its own;
its time starts after its imports, its peak memory is that of the whole process with all that it starts.

    a  first load        b  1 % changed, 0.1 % deleted, at random
    c  nothing changed   d  1 % appended        e  one record changed
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.integration.service import ROOT
from tests.performance.inputs import FILES, SHAPES, configuration, feed, make_all, make_first
from tests.performance.memory import Peak

NAMES = {
    "a": "first load",
    "b": "1 % changed, 0.1 % deleted",
    "c": "nothing changed",
    "d": "1 % appended",
    "e": "one record changed",
}
MUST = {"a": 1.5, "b": 0.5, "c": 0.01, "d": 0.25}
AIM = {"a": 1.2, "b": 0.3, "c": 0.005, "d": 0.12}
MEMORY_MB = {"a": 300, "b": 200, "c": 60, "d": 150}
ARRAY_MB = 450
BYTES = 264
OTHERS = ("upsert_all", "dlt")
FIGURES = Path("build/datapath.json")

Found = dict[str, Any]


def measure(command: list[str], limit: float | None = None) -> Found:
    """Run a measuring program: what it printed, and `mb`, the peak memory of it and all that it started."""
    program = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak = Peak(program)
    try:
        said, errors = program.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        program.kill()
        program.communicate()
        return {"over": limit}
    if program.returncode:
        return {"error": (errors.strip().splitlines() or [str(program.returncode)])[-1]}
    found: Found = json.loads(said)
    found["mb"] = max(peak.done() / 1e6, found.get("own_mb", 0.0))
    return found


class Place:
    """A folder with one source of some shape, its inputs, and the home that it is synced into."""

    def __init__(self, folder: Path, shape: str, records: int) -> None:
        self.folder, self.shape = folder, shape
        self.per_file = max(records // FILES, 1)
        shutil.rmtree(folder / "home", ignore_errors=True)
        (folder / "autosync.toml").write_text(configuration(shape))

    def feed(self, name: str) -> Path:
        """Make the source equal to an input."""
        source = feed(self.folder / f"{name}.jsonl", self.folder, self.shape, self.per_file)
        os.sync()  # its writer's work is not ours
        return source

    def floor(self) -> float:
        """Seconds of the floor, on the input of a first load."""
        source = self.folder / "a.jsonl"
        if self.shape == "folder":
            (self.folder / "floor").mkdir(exist_ok=True)
            source = feed(source, self.folder / "floor", self.shape, self.per_file)
        return float(measure(work("floor", self.folder, source))["seconds"])

    def case(self, name: str) -> Found:
        """Sync the source as it is."""
        return measure(work(name, self.folder, self.folder))


def work(what: str, folder: Path, source: Path) -> list[str]:
    """The command of a measurement."""
    return [sys.executable, "-m", "tests.performance.work", what, str(folder), str(source)]


def change_one(place: Place) -> None:
    """Write the input `e`: as `a`, but one record in the middle changed."""
    lines = (place.folder / "a.jsonl").open().readlines()
    middle = len(lines) // 2
    lines[middle] = lines[middle].replace('"v": 0', '"v": 7')
    (place.folder / "e.jsonl").write_text("".join(lines))


def run_round(folder: Path, shape: str, records: int) -> Found:
    """One pass over the cases, the floor in between."""
    place = Place(folder, shape, records)
    change_one(place)
    found: Found = {}
    before = place.floor()
    for case, data in (("a", "a"), ("c", None), ("e", "e"), ("b", "b"), ("d", "d")):
        if case in ("b", "d"):  # from the first load
            place.feed("a")
            place.case("a")
        if data is not None:
            place.feed(data)
        found[case] = place.case(case)
        after = place.floor()
        found[case]["floor"] = statistics.mean([before, after])
        found[case]["ratio"] = found[case].get("seconds", float("nan")) / found[case]["floor"]
        if case == "c" and shape == "folder":
            found[case]["stats"] = measure(work("stats", folder, folder / "things"))["seconds"]
        before = after
    return found


def run_others(folder: Path, dlt_python: str, limit: float | None) -> Found:
    """What people use today, on the same lines: a first load, then the input of case b into the same table."""
    found: Found = {}
    before = float(measure(work("floor", folder, folder / "a.jsonl"))["seconds"])
    for what in OTHERS:
        for case in ("a", "b"):
            source = folder / f"{case}.jsonl"
            dlt = [dlt_python, str(ROOT / "tests" / "performance" / "dlt_merge.py"), str(folder), str(source)]
            row = measure(dlt if what == "dlt" else work(what, folder, source), limit)
            after = float(measure(work("floor", folder, folder / "a.jsonl"))["seconds"])
            found[f"{what} {case}"] = row | {"floor": statistics.mean([before, after])}
            before = after
            if "seconds" not in row:
                break
    return found


def run_curve(folder: Path, shape: str, records: int) -> Found:
    """A first load and an unchanged run at one size."""
    make_first(folder, records)
    place = Place(folder, shape, records)
    source = place.feed("a")
    (folder / "a.jsonl").unlink()
    size = source.stat().st_size if source.is_file() else sum(file.stat().st_size for file in source.iterdir())
    found: Found = {"records": records, "bytes": size}
    for case in ("a", "c"):
        found[case] = place.case(case)
    return found


def machine() -> Found:
    """What the figures depend on."""
    model = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "system": platform.platform(),
        "processor": model[0] if model else platform.machine(),
        "cores": os.cpu_count(),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 10**6,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "libraries": {name: version(name) for name in ("msgspec", "numpy", "orjson", "sqlite-utils", "xxhash")},
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def far(value: float, bound: float) -> str:
    """A bound and how far a value is from it."""
    return f"{bound:g} {'met' if value <= bound else 'missed'} ({value / bound - 1:+.0%})"


def report_round(shape: str, records: int, rounds: list[Found]) -> None:
    """Print each case: median over the rounds, and how far it is from what it must and should be."""
    print(f"\n{records:,} records, {shape}, {len(rounds)} rounds; ratios to the floor F of the same minutes")
    print(f"{'case':30} {'ratio':>8} {'seconds':>8} {'F':>6} {'MB':>5}  {'must':24} {'aim':24} memory")
    for case, name in NAMES.items():
        rows = [found[case] for found in rounds if "seconds" in found[case]]
        if not rows:
            print(f"{case} {name:28} {rounds[0][case]}")
            continue
        ratio, seconds, base = (statistics.median(row[fact] for row in rows) for fact in ("ratio", "seconds", "floor"))
        megabytes = max(row["mb"] for row in rows)
        bounds = ""
        if case in MUST:
            limit = max(ARRAY_MB, MEMORY_MB[case]) if shape == "array" and case != "c" else MEMORY_MB[case]
            bounds = f"{far(ratio, MUST[case]):24} {far(ratio, AIM[case]):24} {far(megabytes, limit)}"
        print(f"{case} {name:28} {ratio:8.4f} {seconds:8.3f} {base:6.2f} {megabytes:5.0f}  {bounds}")
    for case in NAMES:
        parts = {name: round(value, 3) for name, value in rounds[0][case].get("parts", {}).items()}
        print(f"  {case} {parts}")
        if looked := rounds[0][case].get("stats"):
            print(f"    listing the folder and os.stat of every file, alone: {looked:.3f} s")


def report_others(others: Found) -> None:
    """Print what others need."""
    print("\nwhat people use today, on the same lines (no row checks, no deletes, no change log, no mirror)")
    for what, row in others.items():
        if "seconds" in row:
            said = f"{row['seconds'] / row['floor']:8.2f} F {row['seconds']:8.1f} s {row['mb']:5.0f} MB"
        elif "over" in row:
            said = f"more than {row['over'] / row['floor']:.0f} F: ended after {row['over']:.0f} s"
        else:
            said = f"not measured: {row['error']}"
        print(f"{what:14} {said}")


def report_curve(rows: list[Found]) -> None:
    """Print time and memory by size."""
    print(f"\n{'records':>12} {'GB':>6} {'a s/GB':>7} {'a MB':>6} {'c seconds':>9} {'c MB':>6}")
    for row in rows:
        a, c = row["a"], row["c"]
        if "seconds" in a and "seconds" in c:
            gigabytes = row["bytes"] / 1e9
            print(
                f"{row['records']:12,} {gigabytes:6.2f} {a['seconds'] / gigabytes:7.1f} {a['mb']:6.0f} "
                f"{c['seconds']:9.4f} {c['mb']:6.0f}"
            )
        else:
            print(f"{row['records']:12,} {a} {c}")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--shape", choices=[*SHAPES, "all"], default="jsonl")
    parser.add_argument("--others", action="store_true", help="also sqlite-utils upsert_all, and dlt where installed")
    parser.add_argument("--dlt-python", default=sys.executable, help="a Python that has dlt")
    parser.add_argument("--limit", type=float, default=1800, help="seconds after which one of the others is ended")
    parser.add_argument("--curve", help="only first load and unchanged run, at these sizes: 100000,1000000,10000000")
    parser.add_argument("--big", type=float, help="only first load and unchanged run, of so many GB")
    parser.add_argument("--folder", type=Path, help="where inputs and store are made; the system's by default")
    parser.add_argument(
        "--json",
        type=Path,
        nargs="?",
        const=FIGURES,
        metavar="FILE",
        help=f"also write the figures, with the machine's facts; to {FIGURES} when no file is named",
    )
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    args = arguments()
    shapes = list(SHAPES) if args.shape == "all" else [args.shape]
    found: Found = {"machine": machine(), "records": args.records, "rounds": {}, "others": {}, "curve": []}
    with tempfile.TemporaryDirectory(prefix="autosync-bench-", dir=args.folder) as name:
        folder = Path(name)
        sizes = [int(size) for size in args.curve.split(",")] if args.curve else []
        if args.big:
            sizes.append(round(args.big * 1e9 / BYTES))
        for size in sizes:
            found["curve"] += [run_curve(folder, shape, size) for shape in shapes]
        if not sizes:
            make_all(folder, args.records)
            for shape in shapes:
                found["rounds"][shape] = [run_round(folder, shape, args.records) for _ in range(args.rounds)]
                report_round(shape, args.records, found["rounds"][shape])
            if args.others:
                found["others"] = run_others(folder, args.dlt_python, args.limit)
                report_others(found["others"])
    if found["curve"]:
        report_curve(found["curve"])
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(found, indent=2))
        print(f"\nfigures: {args.json}")


if __name__ == "__main__":
    main()
