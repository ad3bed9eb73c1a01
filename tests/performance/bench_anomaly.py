"""Score the anomaly detector on the Numenta Anomaly Benchmark and time it.

python -m tests.performance.bench_anomaly [--data DIR] [--json FILE]

--data holds `nab/` (series and windows.json); the scorer is the sibling `tools/nab_score.py`.
The shipped threshold is scored, and for comparison the best threshold for these files, which is
searched on results that the shipped one has already shaped (the rest after each flag).
"""

import argparse
import csv
import json
import re
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from analytics.anomaly_detector import AnomalyDetector, Settings

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SCORE_LINE = re.compile(r"^(\S+)\s+(-?[\d.]+)\s+windows (\d+)/(\d+)\s+false points (\d+)", re.MULTILINE)


def read_rows(path: Path) -> list[tuple[str, float]]:
    """The (timestamp, value) rows of one series, in order."""
    with path.open(newline="") as handle:
        return [(row["timestamp"], float(row["value"])) for row in csv.DictReader(handle)]


def unix(text: str) -> float:
    """Unix seconds of a timestamp without a zone, read as UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def write_scores(rows: list[tuple[str, float]], path: Path) -> tuple[int, float]:
    """Run one series through the detector into a CSV; flags raised, and seconds spent in update."""
    detector = AnomalyDetector()
    moments = [(unix(stamp), value) for stamp, value in rows]
    begun = time.perf_counter()
    found = [detector.update(value, moment) for moment, value in moments]
    spent = time.perf_counter() - begun
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["timestamp", "anomaly_score"])
        writer.writerows((stamp, f"{one.score:.9f}") for (stamp, _), one in zip(rows, found, strict=True))
    return sum(one.flagged for one in found), spent


def run_scorer(scorer: Path, data: Path, results: Path, threshold: float | None) -> dict[str, Any]:
    """The scorer's table as {profile: {score, found, windows, false_points}}."""
    command = [sys.executable, str(scorer), str(results), "--data", str(data)]
    if threshold is not None:
        command += ["--threshold", repr(threshold)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    used = re.search(r"threshold (\S+)", text)
    table: dict[str, Any] = {"threshold": float(used.group(1)) if used else None}
    for name, score, found, windows, false in SCORE_LINE.findall(text):
        table[name] = {
            "score": float(score),
            "found": int(found),
            "windows": int(windows),
            "false_points": int(false),
        }
    return table


def measure(data: Path, scorer: Path) -> dict[str, Any]:
    """Detect on every series below data/series and score the results."""
    points, flags, spent = 0, 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name in sorted(json.loads((data / "windows.json").read_text())):
            rows = read_rows(data / "series" / name)
            raised, seconds = write_scores(rows, Path(folder) / name)
            points, flags, spent = points + len(rows), flags + raised, spent + seconds
        fixed = run_scorer(scorer, data, Path(folder), Settings().threshold)
        tuned = run_scorer(scorer, data, Path(folder), None)
    return {
        "points": points,
        "fixed_threshold": fixed,
        "tuned_threshold": tuned,
        "microseconds_per_point": 1e6 * spent / points,
        "alerts_per_1000_points": 1000 * flags / points,
    }


def show(result: dict[str, Any]) -> None:
    """Print the result as a table."""
    for kind in ("fixed_threshold", "tuned_threshold"):
        print(f"{kind.replace('_', ' ')} {result[kind]['threshold']:g}")
        for profile in ("standard", "reward_low_FP", "reward_low_FN"):
            row = result[kind][profile]
            found = f"windows {row['found']}/{row['windows']}"
            print(f"  {profile:14s} {row['score']:6.2f}  {found}  false points {row['false_points']}")
    print(f"{result['points']} points, {result['microseconds_per_point']:.0f} us a point")
    print(f"{result['alerts_per_1000_points']:.2f} alerts per 1000 points (warm-up included)")


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED, help="folder that holds nab/, or nab/ itself")
    parser.add_argument("--scorer", type=Path, help="nab_score.py (default: ../tools beside the data)")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    args = parser.parse_args()
    data = args.data if (args.data / "windows.json").exists() else args.data / "nab"
    scorer = args.scorer or SHARED.parent / "tools" / "nab_score.py"
    result = measure(data, scorer)
    show(result)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
