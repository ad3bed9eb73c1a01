"""What is ours on top of Python and Prefect: `python -m tests.performance.overhead [--records N] [--rounds R]`.

Against one running `autosync up`: `autosync run` with nothing changed, in turn with a bare Prefect program
that runs as many async flows of one task; the difference is ours. Then a sync of one changed record in a
collection of N, end to end, with its stages.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.integration.service import ROOT, Service, up

BARE = """
import asyncio, typer, rich, numpy, msgspec, sqlite3
from prefect import flow, task
import prefect.artifacts
@task
async def nothing(): return await asyncio.to_thread(int)
@flow
async def bare(source: str): return await nothing()
async def main():
    for name in ("a", "b"): await bare(name)
asyncio.run(main())
"""


def timed(command: list[str], environment: dict[str, str]) -> float:
    """Seconds of a process."""
    clock = time.perf_counter()
    subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - clock


def measure(service: Service, rounds: int) -> dict[str, list[float]]:
    """Unchanged runs and the bare program in turn."""
    bare = service.environment | {
        "PREFECT_API_URL": str(service.api),
        "PREFECT_HOME": str(service.home / "prefect"),
        "PREFECT_LOGGING_LEVEL": "WARNING",
    }
    found: dict[str, list[float]] = {"autosync run": [], "bare Prefect": []}
    for _ in range(rounds):
        found["autosync run"].append(timed(service.command("run", "a", "b"), service.environment))
        found["bare Prefect"].append(timed([sys.executable, "-c", BARE], bare))
    return found


def one_change(service: Service, records: int) -> dict[str, Any]:
    """A sync of one changed record among many, end to end."""
    path = service.folder / "big.jsonl"
    lines = [f'{{"id": "R{n:09d}", "name": "record {n}", "text": "{"x" * 200}", "n": {n}}}\n' for n in range(records)]
    path.write_text("".join(lines))
    service.run("run", "big", timeout=900)
    lines[records // 2] = lines[records // 2].replace("record", "changed")
    path.write_text("".join(lines))
    os.utime(path, (time.time() - 60, time.time() - 60))
    clock = time.perf_counter()
    run = service.json("run", "big")["runs"][0]
    whole = time.perf_counter() - clock
    assert run["updated"] == 1, run
    return {"seconds": whole, "stages": {stage["name"]: stage["seconds"] for stage in run["stages"]}}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="autosync-overhead-") as name:
        folder = Path(name)
        for source in ("a", "b"):
            (folder / f"{source}.json").write_text('[{"id": 1}]')
        (folder / "autosync.toml").write_text(
            "".join(f'[[source]]\nname = "{s}"\nlocation = "{s}.json"\nkey = "/id"\n' for s in ("a", "b"))
            + '[[source]]\nname = "big"\nlocation = "big.jsonl"\nkey = "/id"\n'
        )
        (folder / "big.jsonl").write_text('{"id": "R000000000"}\n')
        with up(Service(folder), "--no-observe") as service:
            service.run("run")
            found = measure(service, args.rounds)
            change = one_change(service, args.records)
    middle = {what: statistics.median(seconds) for what, seconds in found.items()}
    for what, seconds in found.items():
        print(f"{what:14} median {middle[what]:.2f} s  ({min(seconds):.2f} to {max(seconds):.2f})")
    ours = middle["autosync run"] - middle["bare Prefect"]
    print(f"ours           {ours:.2f} s, {middle['autosync run'] / middle['bare Prefect']:.2f} times the bare program")
    print(f"one changed record of {args.records:,}: {change['seconds']:.2f} s, stages {change['stages']}")
    if args.json:
        args.json.write_text(json.dumps({"runs": found, "ours": ours, "change": change}, indent=2))


if __name__ == "__main__":
    main()
