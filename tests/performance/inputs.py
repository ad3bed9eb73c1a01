"""Made-up inputs for the benchmarks: records of about 270 bytes, as JSON Lines, as an array, as a folder of files."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

SHAPES = ("jsonl", "array", "folder")
FILES = 15_000
WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu".split()
MASK = (1 << 64) - 1


def _mixed(number: int) -> int:
    """A number that looks like chance, the same for the same number (SplitMix64)."""
    number = (number * 0x9E3779B97F4A7C15) & MASK
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & MASK
    return number ^ (number >> 31)


def record(n: int, version: int = 0) -> str:
    """Record n as a JSON line, nested; another version differs in some fields."""
    one = _mixed(2 * n + 1000003 * version)
    two = _mixed(2 * n + 1 + 1000003 * version)
    words = [WORDS[(one >> shift) % 12] for shift in (0, 6, 12, 18, 24)]
    return (
        f'{{"id": "R{n:09d}", "name": "{words[0]} {words[1]} {n}", "amount": {(one >> 32) % 1000000}.'
        f'{(one >> 52) % 100:02d}, "count": {two % 1001}, "active": {"true" if n % 3 else "false"}, '
        f'"tags": ["{words[2]}", "{words[3]}"], "address": {{"city": "{words[4]}", '
        f'"zip": "{n % 99999:05d}", "lat": {(two >> 10) % 90_00000 / 1e5:.5f}, '
        f'"lon": {(two >> 34) % 180_00000 / 1e5:.5f}}}, '
        f'"updated": "2026-01-{n % 28 + 1:02d}T00:00:00Z", "note": null, "v": {version}}}\n'
    )


def make_first(folder: Path, records: int) -> None:
    """The input of a first load, `a.jsonl`."""
    with (folder / "a.jsonl").open("w") as handle:
        handle.writelines(map(record, range(records)))


def make_all(folder: Path, records: int) -> None:
    """The inputs of all cases: `a.jsonl`, `b.jsonl` (1 % changed, 0.1 % deleted), `d.jsonl` (1 % appended)."""
    chance = random.Random(1)
    some = chance.sample(range(records), records // 100 + max(records // 1000, 1))
    changed, gone = set(some[: records // 100]), set(some[records // 100 :])
    make_first(folder, records)
    with (folder / "b.jsonl").open("w") as handle:
        handle.writelines(record(n, int(n in changed)) for n in range(records) if n not in gone)
    with (folder / "d.jsonl").open("w") as handle:
        handle.writelines(record(n) for n in range(records + records // 100))


def configuration(shape: str) -> str:
    """The autosync.toml that reads an input which `feed` wrote."""
    facts = {
        "jsonl": 'location = "things.jsonl"',
        "array": 'location = "things.json"\nrecords = "/records"',
        "folder": 'location = "things"',
    }
    return f'[[source]]\nname = "things"\nkey = "/id"\n{facts[shape]}\n'


def feed(lines: Path, folder: Path, shape: str, per_file: int) -> Path:
    """Make the source equal to a file of JSON lines, as its writer would some time ago.

    Args:
        per_file: Records of a file of the folder; only files whose content differs are written.

    Returns:
        The source's file or folder.
    """
    if shape == "jsonl":
        target = folder / "things.jsonl"
        shutil.copy(lines, target)
        _age(target)
    elif shape == "array":
        target = folder / "things.json"
        with target.open("w") as handle:
            handle.writelines(_as_array(lines))
        _age(target)
    else:
        target = folder / "things"
        target.mkdir(exist_ok=True)
        _feed_folder(lines, target, per_file)
    return target


def _as_array(lines: Path) -> Iterator[str]:
    yield '{"made": "2026-01-01", "records": [\n'
    with lines.open() as handle:
        for n, row in enumerate(handle):
            yield f"{',' if n else ''}{row}"
    yield "]}\n"


def _feed_folder(lines: Path, target: Path, per_file: int) -> None:
    left = {entry.name for entry in os.scandir(target)}
    with lines.open() as handle:
        for number, rows in groupby(handle, key=lambda row: int(row[9:18]) // per_file):
            path = target / f"{number:06d}.json"
            left.discard(path.name)
            _write_changed(path, rows)
    for name in left:
        (target / name).unlink()


def _write_changed(path: Path, rows: Iterable[str]) -> None:
    text = "[" + ",".join(rows) + "]\n"
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
        _age(path)


def _age(path: Path) -> None:
    """As if written a minute ago, so that its time says for sure that it wasn't written again since."""
    at = time.time() - 60
    os.utime(path, (at, at))
