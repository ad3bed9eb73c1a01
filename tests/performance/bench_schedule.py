"""Replay real change arrivals against the sync policy and time it.

python -m tests.performance.bench_schedule [--data DIR] [--binary] [--json FILE]

--data holds `traces/`; the evaluator is the sibling `tools/schedule_eval.py`. Printed: the mean
wait relative to a fixed interval at the same number of syncs, per budget (geometric mean and
worst trace), on real and on memoryless traces.
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
SUMMARY = re.compile(r"^(real|poisson) (\d+)/day: geometric mean ([\d.]+), worst ([\d.]+) \((.+)\)$", re.MULTILINE)


def evaluate(evaluator: Path, traces: Path, binary: bool) -> str:
    """What the evaluator prints for the policy at 4 and 24 syncs a day."""
    command = [sys.executable, str(evaluator), "analytics.predictive_sync:Policy", "--traces", str(traces)]
    command += ["--binary"] if binary else []
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout


def parse(text: str) -> dict[str, Any]:
    """The evaluator's summary as {kind: {budget: {geometric_mean, worst, worst_trace}}}."""
    table: dict[str, Any] = {"real": {}, "poisson": {}}
    for kind, budget, mean, worst, trace in SUMMARY.findall(text):
        table[kind][budget] = {"geometric_mean": float(mean), "worst": float(worst), "worst_trace": trace}
    slowest = re.search(r"slowest decision ([\d.]+) ms", text)
    return table | {"slowest_decision_ms": float(slowest.group(1)) if slowest else None}


def main() -> None:
    """Read the arguments, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED, help="folder that holds traces/, or traces/ itself")
    parser.add_argument("--evaluator", type=Path, default=SHARED.parent / "tools" / "schedule_eval.py")
    parser.add_argument("--binary", action="store_true", help="tell the policy only whether something had changed")
    parser.add_argument("--json", type=Path, help="also write the summary to this file")
    args = parser.parse_args()
    traces = args.data / "traces" if (args.data / "traces").is_dir() else args.data
    text = evaluate(args.evaluator.resolve(), traces.resolve(), args.binary)
    print(text, end="")
    if args.json:
        args.json.write_text(json.dumps(parse(text), indent=2) + "\n")


if __name__ == "__main__":
    main()
