"""A first push over GitHub's API beside one to a local repository, of the same store.

python -m tests.performance.bench_push [--records 20000,100000] [--rounds N] [--json FILE]

Each push is made in a process of its own: wall and CPU seconds of the push alone (what git takes for the local one
included), peak memory of the process and all that it starts. The GitHub double runs in the bench's own process; its
CPU, git's work behind it included, counts apart. Its writes follow each other without the second that GitHub asks for.
Both repositories must hold the same tree in the end.
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

from pydantic import SecretStr

from autosync.ports import Remote
from autosync.settings import Home
from blocks.repository.git import GitRepository
from blocks.repository.github import GitHubRepository
from blocks.store import ledger
from flows.operations.push import Job, commit_changes
from flows.workspace import Workspace
from tests.doubles.github_server import TOKEN, GitHubServer
from tests.performance.inputs import configuration, make_first
from tests.performance.memory import Peak
from tests.pipeline import Pipeline

ROOT = Path(__file__).resolve().parents[2]


def cpu() -> float:
    """CPU seconds of this process and of all that it started and that has ended."""
    return sum(os.times()[:4])


def open_remote(address: str) -> Remote:
    """A GitHub double (http://...) or a local repository."""
    if address.startswith("http://"):
        return GitHubRepository(
            repository=GitHubServer.name, token=SecretStr(TOKEN), base_url=address, pause=0
        ).remote()
    return GitRepository(address)


def push(folder: Path, address: str) -> dict[str, float]:
    """Push the store in a folder, in this process."""
    remote = open_remote(address)
    workspace = Workspace(Home(folder / "home"), folder / "autosync.toml")
    source = workspace.source("things")
    with workspace.database() as db:
        target = workspace.target(db, source)
        assert target is not None
        cursor, newest = ledger.cursor(db, "push", target.collection), ledger.newest_seq(db, target.collection)
        job = Job(db, source, target.collection, cursor, newest, "bench", "root")
        begun, used = time.perf_counter(), cpu()
        commit_changes(job, remote)
        return {"wall": time.perf_counter() - begun, "cpu": cpu() - used}


def apart(folder: Path, address: str) -> dict[str, float]:
    """The same in a process of its own, with its peak memory and the CPU that the double took meanwhile."""
    before = cpu()
    command = [sys.executable, "-m", getattr(__spec__, "name", __name__), "--push", str(folder), address]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as program:
        peak = Peak(program)
        said, _ = program.communicate()
    if program.returncode:
        raise SystemExit(f"the push to {address} failed")
    figures: dict[str, float] = json.loads(said)
    return figures | {"mb": peak.done() / 1e6, "double": cpu() - before - figures.pop("all")}


def tree(repository: Path) -> str:
    """The tree at the branch's head."""
    command = ["git", "--git-dir", str(repository), "rev-parse", "main^{tree}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def measure(folder: Path, records: int, rounds: int) -> dict[str, Any]:
    """Load a store once, push it to new repositories of both kinds in turn."""
    make_first(folder, records)
    (folder / "a.jsonl").rename(folder / "things.jsonl")
    (folder / "autosync.toml").write_text(configuration("jsonl"))
    Pipeline(folder).load()
    pushes: dict[str, list[dict[str, float]]] = {"local": [], "GitHub": []}
    requests = 0
    for n in range(rounds):
        local, far = folder / f"local-{n}.git", folder / f"github-{n}.git"
        pushes["local"].append(apart(folder, str(local)))
        with GitHubServer(far) as server:
            pushes["GitHub"].append(apart(folder, server.url))
            requests = len(server.calls)
        if tree(local) != tree(far):
            raise SystemExit("the repositories differ")
    figures = {name: _middle(each) for name, each in pushes.items()}
    return {"records": records, "requests": requests, **figures}


def _middle(pushes: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(each[name] for each in pushes), 3) for name in pushes[0]}


def show(figures: dict[str, Any]) -> None:
    """Print a size's figures."""
    print(f"\n{figures['records']:,} records, {figures['requests']} requests to GitHub")
    for name in ("local", "GitHub"):
        row = figures[name]
        double = f"  (double: CPU {row['double']:.2f} s)" if name == "GitHub" else ""
        print(f"  {name:8} {row['wall']:8.2f} s  CPU {row['cpu']:8.2f} s  {row['mb']:6.0f} MB{double}")


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", default="20000,100000", help="sizes, with commas between them")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--push", nargs=2, metavar=("FOLDER", "ADDRESS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.push:
        figures = push(Path(args.push[0]), args.push[1])
        print(json.dumps(figures | {"all": cpu()}))
        return
    found = []
    for records in map(int, args.records.split(",")):
        with tempfile.TemporaryDirectory(prefix="bench-push-") as folder:
            found.append(measure(Path(folder), records, args.rounds))
        show(found[-1])
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
