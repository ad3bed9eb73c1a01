"""The benchmarks run and measure what they say. They are no timed tests: no figure can fail them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.service import ROOT
from tests.pipeline import SHARED


def bench(module: str, *args: str) -> str:
    command = [sys.executable, "-m", f"tests.performance.{module}", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=600).stdout


@pytest.mark.parametrize("shape", ["jsonl", "array"])
def test_the_data_path_is_measured_against_its_floor(tmp_path: Path, shape: str) -> None:
    """Every case has a ratio to the floor, its parts and its peak memory."""
    target = tmp_path / "out.json"
    said = bench("datapath", "--records", "5000", "--shape", shape, "--json", str(target))
    cases = json.loads(target.read_text())["rounds"][0]
    assert cases.keys() == {"a", "b", "c", "d"}
    assert all(case["ratio"] > 0 and case["mb"] > 0 for case in cases.values())
    assert {"ingest", "store", "mirror"} == cases["a"]["parts"].keys() and "ratio" in said


@pytest.mark.skipif(not (SHARED / "data" / "traces").is_dir(), reason="../shared/data/traces is not here")
def test_the_schedule_is_measured_on_real_arrivals() -> None:
    """The predictive schedule is replayed against a fixed interval."""
    assert "geometric mean" in bench("bench_schedule").lower()
