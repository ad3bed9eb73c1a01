"""Kills `autosync run` at random moments, without `autosync up`, and shows what the run after each costs.

    python -m tests.performance.random_kills --rounds 20 --seed 1

Beside each killed round stands an undisturbed one of the same sitting, with the same change.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from tests.integration.service import ROOT, Service

CONFIG = '[[source]]\nname = "things"\nlocation = "things.json"\nkey = "/id"\n'
RECORDS = 3000


def change(service: Service, version: int) -> None:
    rows = [{"id": f"k{n}", "version": version} for n in range(RECORDS)]
    (service.folder / "things.json").write_text(json.dumps(rows))


def timed_run(service: Service) -> tuple[float, float]:
    """Seconds of a whole run, and of its lock stage; the run is to leave everything equal."""
    clock = time.perf_counter()
    result = service.json("run")["runs"][0]
    seconds = time.perf_counter() - clock
    assert result["outcome"] in ("changed", "unchanged"), result
    return seconds, next((stage["seconds"] for stage in result["stages"] if stage["name"] == "lock"), 0.0)


def killed_run(service: Service, after: float) -> bool:
    """Start a run and kill it some seconds later. Returns whether it still ran."""
    process = subprocess.Popen(
        service.command("run"), env=service.environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.kill()
    return process.wait() < 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    moments = random.Random(options.seed)  # moments, no secrets
    with tempfile.TemporaryDirectory() as folder:
        service = Service(Path(folder))
        (service.folder / "autosync.toml").write_text(CONFIG)
        change(service, 0)
        timed_run(service)
        usual: list[float] = []
        after_kill: list[float] = []
        for n in range(options.rounds):
            change(service, 2 * n + 1)
            usual.append(timed_run(service)[0])
            change(service, 2 * n + 2)
            moment = moments.uniform(0.3, 1.0) * usual[-1]
            killed = killed_run(service, moment)
            seconds, lock = timed_run(service)
            after_kill.append(seconds)
            equal = service.json("verify")["equal"]
            print(
                f"{n + 1:3}: usual {usual[-1]:5.1f} s; {'killed' if killed else 'ended'} after {moment:4.1f} s; "
                f"next run {seconds:5.1f} s, lock {lock:.2f} s, equal {equal}",
                flush=True,
            )
            assert equal
    print(
        f"median usual {statistics.median(usual):.1f} s, after a kill {statistics.median(after_kill):.1f} s, "
        f"worst {max(after_kill):.1f} s"
    )


if __name__ == "__main__":
    main()
