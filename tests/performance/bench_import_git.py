"""Import the history of a file from Git, and measure it beside git-history 0.8 on the same repository.

python -m tests.performance.bench_import_git [--records N] [--commits N] [--share S] [--rounds N]
    [--git-history PROGRAM] [--kev DIR] [--folder DIR] [--json FILE]

The repository is made from a fixed seed: each commit changes a share of the records, deletes one and adds one; the file
is indented as people commit it. Both programs run as commands into a new database in the same folder, one after the
other in each round; wall time and CPU time include the start of Python and git's own work. git-history goes into an
environment of its own (`pip install git-history==0.8`) and is named by --git-history. --kev holds snapshots of CISA's
catalogue, of which a second repository is made.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.histories import Step, git, write_history

ROOT = Path(__file__).resolve().parents[2]
KEV = ROOT.parent / "shared" / "data" / "kev"
BEGIN, HOUR = 1_600_000_000, 3600
FILE = "data.json"


@dataclass(frozen=True)
class History:
    """A repository to import: its folder, where records and key are, and git-history's options for the same."""

    name: str
    folder: Path
    ours: list[str]
    theirs: list[str]


@dataclass(frozen=True)
class Run:
    """What one command took: wall and CPU seconds, and its peak memory in MB."""

    wall: float
    cpu: float
    mb: float


def versions(records: int, commits: int, share: float) -> Iterator[Step]:
    """Commit by commit, the file's bytes."""
    chance = random.Random(20)
    rows = {n: _record(n, chance) for n in range(records)}
    for commit in range(commits):
        if commit:
            for n in chance.sample(list(rows), max(round(records * share), 1)):
                rows[n] = rows[n] | {"score": chance.random()}
            del rows[chance.choice(list(rows))]
            rows[records + commit] = _record(records + commit, chance)
        yield BEGIN + commit * HOUR, {FILE: json.dumps(list(rows.values()), indent=2).encode()}


def _record(n: int, chance: random.Random) -> dict[str, Any]:
    address = {"street": f"Street {n % 97}", "zip": f"{10_000 + n}", "city": f"City {n % 50}"}
    tags = chance.sample(["new", "open", "late", "paid", "vip"], 3)
    return {
        "id": n,
        "name": f"Customer {n}",
        "score": chance.random(),
        "address": address,
        "tags": tags,
        "active": True,
    }


def kev(folder: Path) -> Iterator[Step]:
    """The snapshots of the catalogue as commits."""
    for n, path in enumerate(sorted(folder.glob("*.json"))):
        yield BEGIN + n * HOUR, {FILE: path.read_bytes()}


def make(args: argparse.Namespace, folder: Path) -> list[History]:
    """The repositories to measure, made in a folder."""
    name = f"{args.records:,} records, {args.commits:,} commits, {args.share:.1%} changed"
    found = [History(name, folder / "made", ["--key", "/id"], ["--id", "id"])]
    write_history(found[0].folder, versions(args.records, args.commits, args.share), bare=False)
    if any(args.kev.glob("*.json")):
        convert = "json.loads(content)['vulnerabilities']"
        ours, theirs = ["--key", "/cveID", "--records", "/vulnerabilities"], ["--id", "cveID", "--convert", convert]
        found.append(History("KEV", folder / "kev", ours, theirs))
        write_history(found[-1].folder, kev(args.kev), bare=False)
    for history in found:
        git(history.folder, "reset", "--quiet", "--hard")  # git-history wants the file to be checked out
    return found


def run(command: list[str]) -> Run:
    """Run a command to its end; CPU and memory count what it started, too."""
    begun = time.perf_counter()
    pid = os.posix_spawn(
        command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    )
    _, status, used = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"{command[0]} failed with status {os.waitstatus_to_exitcode(status)}")
    return Run(time.perf_counter() - begun, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def ours(history: History, home: Path) -> Run:
    """autosync import-git into a new home."""
    command = [sys.executable, "-m", "flows.cli", "--home", str(home), "--config", str(home / "none.toml")]
    return run([*command, "import-git", str(history.folder), FILE, *history.ours])


def theirs(history: History, database: Path, program: str) -> Run:
    """git-history into a new database."""
    command = [program, "file", str(database), FILE, "--repo", str(history.folder), "--branch", "main", "--silent"]
    return run([*command, *history.theirs])


def changes(home: Path) -> dict[str, int]:
    """What the imported change log holds, by kind."""
    db = sqlite3.connect(home / "autosync.db")
    try:
        return dict(db.execute("SELECT op, count(*) FROM change GROUP BY op").fetchall())
    finally:
        db.close()


def measure(history: History, folder: Path, rounds: int, program: str | None) -> dict[str, Any]:
    """Both programs in turn."""
    mine, other = list[Run](), list[Run]()
    home = folder / "home"
    for n in range(rounds):
        home = folder / f"{history.folder.name}-{n}"
        mine.append(ours(history, home))
        if program:
            other.append(theirs(history, folder / f"{history.folder.name}-{n}.db", program))
    found: dict[str, Any] = {"history": history.name, "changes": changes(home), "autosync": _middle(mine)}
    if other:
        found["git-history"] = _middle(other)
        for what in ("wall", "cpu"):
            found[f"{what}_ratio"] = round(found["git-history"][what] / found["autosync"][what], 1)
    return found


def _middle(runs: list[Run]) -> dict[str, float]:
    return {name: round(statistics.median(getattr(run, name) for run in runs), 3) for name in ("wall", "cpu", "mb")}


def show(found: dict[str, Any]) -> None:
    """Print a repository's figures."""
    print(f"\n{found['history']}: {', '.join(f'{count:,} {op}s' for op, count in sorted(found['changes'].items()))}")
    for program in ("autosync", "git-history"):
        if program in found:
            figures = found[program]
            print(f"  {program:12} {figures['wall']:8.2f} s  CPU {figures['cpu']:8.2f} s  {figures['mb']:6.0f} MB")
    if "wall_ratio" in found:
        print(f"  ratio        {found['wall_ratio']:8.1f}    CPU {found['cpu_ratio']:8.1f}")


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--commits", type=int, default=200)
    parser.add_argument("--share", type=float, default=0.01)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--git-history", help="its program, in an environment of its own")
    parser.add_argument("--kev", type=Path, default=KEV, help="folder with snapshots of the catalogue")
    parser.add_argument("--folder", type=Path, help="where repositories and databases are made for the time being")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-import-", dir=args.folder) as name:
        folder = Path(name)
        figures = []
        for history in make(args, folder):
            figures.append(measure(history, folder, args.rounds, args.git_history))
            show(figures[-1])
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
