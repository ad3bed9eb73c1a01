"""What is ours on top of Python and Prefect: `python -m tests.performance.overhead [--records N] [--rounds R]`.

Against one running `autosync up`: `autosync run` with nothing changed, in turn with a bare Prefect program
that runs as many async flows of one task; the difference is ours. Then syncs of one changed record in a
collection of N, end to end: the stages' own work, Prefect's tasks around it, what it waited for its server.
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
        "PREFECT_API_AUTH_STRING": service.secret,
        "PREFECT_HOME": str(service.home / "prefect"),
        "PREFECT_LOGGING_LEVEL": "WARNING",
    }
    found: dict[str, list[float]] = {"autosync run": [], "bare Prefect": []}
    for _ in range(rounds):
        found["autosync run"].append(timed(service.command("run", "a", "b"), service.environment))
        found["bare Prefect"].append(timed([sys.executable, "-c", BARE], bare))
    return found


def changes(service: Service, records: int, rounds: int) -> list[dict[str, Any]]:
    """Syncs of one changed record among many, end to end, each after another change."""
    path = service.folder / "big.jsonl"
    lines = [f'{{"id": "R{n:09d}", "name": "record {n}", "text": "{"x" * 200}", "n": {n}}}\n' for n in range(records)]
    _write(path, lines)
    service.run("run", "big", timeout=1800)
    found = []
    for n in range(rounds):
        place = (n + 1) * records // (rounds + 1)
        lines[place] = lines[place].replace("record", "changed")
        _write(path, lines)
        found.append(traced(service, "big"))
        assert found[-1]["run"]["updated"] == 1, found[-1]
    found.append(traced(service, "big"))
    assert found[-1]["run"]["outcome"] == "unchanged", found[-1]
    return found


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("".join(lines))
    os.utime(path, (time.time() - 60, time.time() - 60))


def traced(service: Service, source: str) -> dict[str, Any]:
    """One `autosync run`, where its seconds went."""
    notes = service.folder / "traced.json"
    command = service.command("run", source, "--json")
    command[1:3] = ["-m", "tests.performance.traced", str(notes)]
    clock = time.perf_counter()
    said = subprocess.run(command, env=service.environment, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    seconds = time.perf_counter() - clock
    run: dict[str, Any] = json.loads(said)["runs"][0]
    found: dict[str, Any] = json.loads(notes.read_text())
    waited = sum(wait["seconds"] for wait in found["waits"])
    in_stages = sum(stage["seconds"] for stage in run["stages"])
    return found | {
        "run": run,
        "seconds": seconds,
        "waited": waited,
        "tasks": in_stages - sum(found["work"].values()),
        "rest": seconds - in_stages,
    }


def show_changes(found: list[dict[str, Any]], records: int) -> None:
    """Print the seconds of each sync: whole, the stages' own work, what is around it."""
    print(f"\nsyncs of one changed record of {records:,}, and one of none, in seconds")
    names = list(dict.fromkeys(name for row in found for name in row["work"]))
    print(
        "   ".join(["changed", "  all", *(f"{name:>6}" for name in names), " tasks", "  rest", "    waits", "requests"])
    )
    for row in found:
        own = "   ".join(f"{row['work'].get(name, 0):6.3f}" for name in names)
        print(
            f"{row['run']['updated']:7}   {row['seconds']:5.2f}   {own}   {row['tasks']:6.3f}   {row['rest']:6.3f}   "
            f"{len(row['waits'])}: {row['waited']:5.1f}   {row['requests']:8}"
        )
    print("tasks: Prefect's task runs around the stages' work; rest: start, imports, flow run, artifacts, log.")
    print("waits: for Prefect's server, whose database was locked; they are part of tasks, rest and lock.")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
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
            changed = changes(service, args.records, args.rounds)
    middle = {what: statistics.median(seconds) for what, seconds in found.items()}
    for what, seconds in found.items():
        print(f"{what:14} median {middle[what]:.2f} s  ({min(seconds):.2f} to {max(seconds):.2f})")
    ours = middle["autosync run"] - middle["bare Prefect"]
    print(f"ours           {ours:.2f} s, {middle['autosync run'] / middle['bare Prefect']:.2f} times the bare program")
    show_changes(changed, args.records)
    if args.json:
        args.json.write_text(json.dumps({"runs": found, "ours": ours, "changes": changed}, indent=2))


if __name__ == "__main__":
    main()
