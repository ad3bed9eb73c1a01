"""The benchmarks run and measure what they say. They are no timed tests: no figure can fail them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.service import ROOT
from tests.performance import bench_anomaly
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


def test_what_a_group_leaves_of_the_whole_is_told() -> None:
    """Counts are what is left; scores are weighted by windows; what isn't known exactly stays so."""
    one = bench_anomaly.Group("one", 2, 100, 3, 4, 1, {"standard": 50.0}, margin=0.5)
    whole = bench_anomaly.Group("all", 3, 160, 4, 6, 4, {"standard": 60.0})
    rest = bench_anomaly.others(whole, one)
    assert (rest.files, rest.points, rest.found, rest.windows, rest.false_points) == (1, 60, 1, 2, 3)
    assert rest.scores == {"standard": 80.0} and rest.margin == 1.0  # (4 * 50 + 2 * 80) / 6 = 60


@pytest.mark.skipif(not (SHARED / "data" / "nab").is_dir(), reason="../shared/data/nab is not here")
def test_the_page_has_the_detectors_figures(tmp_path: Path) -> None:
    """docs/analytics.md gives what the benchmark measures: of the files chosen on, of the others, and of all."""
    target = tmp_path / "out.json"
    bench("bench_anomaly", "--data", str(SHARED / "data"), "--json", str(target))
    result = json.loads(target.read_text())
    rows = []
    for label, group in zip(("the 30 ", "the other 28 ", "all 58 "), bench_anomaly.groups(result), strict=True):
        form = "{:.2f} ± 0.05" if group.name == "others" else "{:.1f}"
        scores = [form.format(group.scores[profile]) for profile in bench_anomaly.PROFILES]
        rows.append(
            (label, [*scores, f"{group.found} of {group.windows}", str(group.false_points), f"{group.points:,}"])
        )
    for label, kind in (("this one, as shipped ", "fixed"), ("this one, threshold searched ", "tuned")):
        table = result[f"{kind}_threshold"]
        rows.append((label, [f"{table[profile]['score']:.1f}" for profile in bench_anomaly.PROFILES]))
    lines = (ROOT / "docs" / "analytics.md").read_text().splitlines()
    for label, cells in rows:
        line = next(line for line in lines if line.startswith(f"| {label}"))
        assert [cell.strip() for cell in line.strip("|").split("|")][1:] == cells, line
    assert any(f"{result['alerts_per_1000_points']:.2f} alerts per 1,000 points" in line for line in lines)


def test_a_first_push_is_measured_beside_a_local_one(tmp_path: Path) -> None:
    """Wall, CPU and peak memory of both, at every size; the double's CPU apart."""
    target = tmp_path / "out.json"
    said = bench("bench_push", "--records", "500,1000", "--json", str(target))
    found = json.loads(target.read_text())
    assert [row["records"] for row in found] == [500, 1000] and "requests to GitHub" in said
    pushes = [row[to] for row in found for to in ("local", "GitHub")]
    assert all(push["wall"] > 0 and push["mb"] > 20 and push["double"] > 0 for push in pushes)
