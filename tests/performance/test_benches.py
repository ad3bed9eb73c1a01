"""The benchmarks run and measure what they say. They are no timed tests: no figure can fail them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.service import ROOT
from tests.performance.memory import Peak
from tests.pipeline import SHARED


def bench(module: str, *args: str) -> str:
    command = [sys.executable, "-m", f"tests.performance.{module}", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=600).stdout


@pytest.mark.parametrize("shape", ["jsonl", "array", "folder"])
def test_the_data_path_is_measured_against_its_floor(tmp_path: Path, shape: str) -> None:
    """Every case does what it says, has a ratio to the floor, its parts and its peak memory."""
    target = tmp_path / "out.json"
    said = bench("datapath", "--records", "5000", "--shape", shape, "--json", str(target))
    found = json.loads(target.read_text())
    cases = found["rounds"][shape][0]
    counts = {case: row["counts"][:3] for case, row in cases.items()}
    assert counts == {"a": [5000, 0, 0], "b": [0, 50, 5], "c": [0, 0, 0], "d": [50, 0, 0], "e": [0, 1, 0]}
    assert all(case["ratio"] > 0 and case["mb"] >= case["own_mb"] > 0 for case in cases.values())
    assert {"ingest", "store", "mirror"} == cases["a"]["parts"].keys() and "must" in said
    assert found["machine"]["cores"] >= 1
    assert ("stats" in cases["c"]) == (shape == "folder")


def test_others_and_sizes_are_measured(tmp_path: Path) -> None:
    """What people use today stands beside it; the curve has time and memory of each size."""
    target = tmp_path / "out.json"
    bench("datapath", "--records", "1000", "--others", "--json", str(target))
    others = json.loads(target.read_text())["others"]
    assert others["upsert_all a"]["seconds"] > 0 and others["upsert_all b"]["seconds"] > 0
    assert "seconds" in others["dlt a"] or "dlt" in others["dlt a"]["error"]
    bench("datapath", "--curve", "1000,2000", "--big", "0.001", "--json", str(target))
    curve = json.loads(target.read_text())["curve"]
    assert [row["records"] for row in curve] == [1000, 2000, 3788]
    assert all(row["a"]["counts"][0] == row["records"] and row["c"]["mb"] > 0 for row in curve)


def test_peak_memory_counts_what_a_program_starts() -> None:
    """A child's memory is part of the peak."""
    child = "x = bytearray(60_000_000); import time; time.sleep(0.5)"
    command = [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"]
    with subprocess.Popen(command, text=True) as program:
        peak = Peak(program)
        program.communicate()
    assert peak.done() > 60_000_000


@pytest.mark.skipif(not (SHARED / "data" / "traces").is_dir(), reason="../shared/data/traces is not here")
def test_the_schedule_is_measured_on_real_arrivals() -> None:
    """The predictive schedule is replayed against a fixed interval."""
    assert "geometric mean" in bench("bench_schedule").lower()


def test_importing_a_history_is_measured(tmp_path: Path) -> None:
    """Wall and CPU time are there, and the log has every insert, update and delete that the commits made."""
    target = tmp_path / "out.json"
    said = bench("bench_import_git", "--records", "50", "--commits", "5", "--kev", str(tmp_path), "--json", str(target))
    made = json.loads(target.read_text())[0]
    assert made["autosync"]["wall"] > 0 and made["autosync"]["cpu"] > 0 and "autosync" in said
    assert (made["changes"]["insert"], made["changes"]["delete"]) == (54, 4) and made["changes"]["update"] > 0
