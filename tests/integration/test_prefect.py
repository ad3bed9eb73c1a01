"""The pipeline as Prefect users see it: a real server and worker, deployments, limits, artifacts, locks."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.integration.service import ROOT, Service, up

CONFIG = """
[[source]]
name = "things"
location = "things.json"
key = "/id"
schedule = 3600

[[source]]
name = "others"
location = "others.jsonl"
key = "/id"
mode = "upsert"
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("up")
    (folder / "autosync.toml").write_text(CONFIG)
    write(folder, 3)
    (folder / "others.jsonl").write_text('{"id": 1}\n')
    with up(Service(folder), "--no-observe") as running:
        yield running


def write(folder: Path, count: int, note: str = "") -> None:
    rows = [{"id": f"k{n}", "n": n, "note": note} for n in range(count)]
    (folder / "things.json").write_text(json.dumps(rows))


def test_run_reports_every_stage_and_a_second_run_changes_nothing(service: Service) -> None:
    """`run --json` has the fixed form; the second run is unchanged, without commit and notice."""
    first = service.json("run")["runs"]
    assert [run["outcome"] for run in first] == ["changed", "changed"]
    assert set(first[0]) == {
        "source",
        "outcome",
        "seq",
        "inserted",
        "updated",
        "deleted",
        "quarantined",
        "commit",
        "root",
        "error",
        "stages",
    }
    assert [stage["name"] for stage in first[0]["stages"]] == ["ingest", "lock", "store", "mirror", "push", "notify"]
    assert all(set(stage) == {"name", "state", "seconds", "retries"} for stage in first[0]["stages"])
    again = service.run("run", "--json")
    assert [run["outcome"] for run in json.loads(again.stdout)["runs"]] == ["unchanged", "unchanged"]
    assert "things" not in again.stderr
    assert service.json("verify")["equal"] is True


def test_a_deployment_syncs_what_changed(service: Service) -> None:
    """`prefect deployment run 'sync/SOURCE'` runs on the worker and commits."""
    service.run("run")
    write(service.folder, 4)
    done = service.prefect("deployment", "run", "sync/things", "--watch")
    assert done.returncode == 0, done.stdout + done.stderr
    newest = service.json("log", "things")["changes"][0]
    assert (newest["op"], newest["id"]) == ("insert", "k3")
    assert service.json("verify")["equal"] is True


def test_history_is_compacted_under_the_locks_of_a_sync(service: Service) -> None:
    """`compact --plan` says what `compact` then does, as a command and as a deployment; syncs go on."""
    for note in ("a", "b", "c"):
        write(service.folder, 4, note)
        service.run("run", "things")
    with closing(sqlite3.connect(service.home / "autosync.db", isolation_level=None)) as db:
        db.execute("UPDATE batch SET time = 86400.0 * 365 + batch")
    planned = service.json("compact", "--plan")["collections"]
    assert {row["collection"]: row["merged"] > 0 for row in planned}["things"]
    assert service.json("compact")["collections"] == planned
    done = service.prefect("deployment", "run", "compact/compact", "--watch")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not service.json("status")["locks"]
    assert sum(row["merged"] for row in service.json("compact", "--plan")["collections"]) == 0
    write(service.folder, 4)
    assert service.json("run", "things")["runs"][0]["outcome"] == "changed"
    assert service.json("verify")["equal"] is True


def test_up_makes_deployments_limits_pool_and_blocks(service: Service) -> None:
    """The server holds a deployment per source and flow, AutoSync's limits, the pool and the blocks."""
    deployments = {row["name"] for row in service.post("/deployments/filter", {})}
    assert {"things", "others", "report", "backup", "compact", "monitor", "restore"} <= deployments
    limits = {row["name"]: row["limit"] for row in service.post("/v2/concurrency_limits/filter", {})}
    wanted = {f"autosync-{name}": 1 for name in ("scheduler", "db-write", "git-push", "notify")}
    assert {name: limit for name, limit in limits.items() if name.startswith("autosync-")} == wanted
    assert "autosync" in {row["name"] for row in service.post("/work_pools/filter", {})}
    kinds = {row["slug"] for row in service.post("/block_types/filter", {})}
    assert {"sqlite-store", "git-remote", "json-source", "autosync-slack-webhook", "autosync-smtp-server"} <= kinds


def test_the_deployments_of_prefect_yaml_load_and_run(service: Service) -> None:
    """`prefect deploy --all` works as it stands, for the example sources."""
    done = service.prefect("--no-prompt", "deploy", "--all")
    assert done.returncode == 0, done.stdout + done.stderr
    ran = service.prefect("deployment", "run", "monitor/monitor", "--watch")
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_two_runs_at_once_make_one_commit(service: Service) -> None:
    """Two `autosync run` at the same time are safe: the change is stored, committed and told once."""
    service.run("run")
    write(service.folder, 5, "at once")
    commits = count_commits(service)
    racers = [
        subprocess.Popen(
            service.command("run", "things", "--json"),
            env=service.environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outcomes = [json.loads(racer.communicate(timeout=200)[0])["runs"][0]["outcome"] for racer in racers]
    assert sorted(outcomes) == ["changed", "unchanged"], outcomes
    assert count_commits(service) == commits + 1
    assert service.json("verify")["equal"] is True


def count_commits(service: Service) -> int:
    args = ["git", "--git-dir", str(service.home / "repository.git"), "rev-list", "--count", "main"]
    return int(subprocess.run(args, capture_output=True, text=True, check=True).stdout)


def test_a_run_leaves_artifacts(service: Service) -> None:
    """A changed run leaves a summary, a table of the changes and a link to the commit."""
    write(service.folder, 6, "artifacts")
    run = service.json("run", "things")["runs"][0]
    assert run["outcome"] == "changed"
    keys = {row["key"] for row in service.post("/artifacts/filter", {})}
    assert {"summary-things", "changes-things", "commit-things"} <= keys


def test_a_failing_source_is_told_once_and_its_recovery_too(service: Service) -> None:
    """A broken file fails the run with exit status 1; people are told once; nothing else is touched."""
    service.run("run")
    before = service.json("verify")
    (service.folder / "things.json").write_text('[{"id": "k0"')
    first = service.run("run", "things", status=1)
    assert "truncated" in first.stderr + first.stdout
    second = service.run("run", "things", status=1)
    assert "[error]" in first.stderr and "[error]" not in second.stderr
    assert service.json("verify") == before
    write(service.folder, 6, "well again")
    assert "works again" in service.run("run", "things").stderr


def test_a_guard_refuses_with_exit_status_3_and_takes_the_code(service: Service) -> None:
    """Deleting more than the guard allows is refused; the printed code lets this one input pass."""
    write(service.folder, 6, "guard")
    service.run("run", "things")
    write(service.folder, 2, "guard")
    refused = service.run("run", "things", status=3)
    assert service.json("plan", "things", status=3)["plans"][0]["deleted"] == 4
    code = refused.stdout.split("--accept ")[1].split()[0].rstrip(".")
    assert service.json("run", "things", "--accept", code)["runs"][0]["deleted"] == 4


def test_a_refused_row_is_replayed_with_a_corrected_text(service: Service) -> None:
    """`quarantine replay ITEM --with FILE` runs the flow with the corrected row, and the item is settled."""
    (service.folder / "others.jsonl").write_text('{"id": 1}\n{"id": null, "n": 1}\n')
    service.run("run", "others")
    item = service.json("quarantine", "list", "others")["items"][0]["item"]
    (service.folder / "fixed.json").write_text('{"id": 2, "n": 1}')
    runs = service.json("quarantine", "replay", str(item), "--with", str(service.folder / "fixed.json"))["runs"]
    assert (runs[0]["outcome"], runs[0]["inserted"]) == ("changed", 1)
    assert service.json("quarantine", "list", "others")["items"] == []


def test_the_lock_is_really_held_while_a_run_stores(service: Service) -> None:
    """In the middle of a run all four limits have their slot taken; afterwards none."""
    rows = "".join(f'{{"id": "big{n}", "text": "{"x" * 100}"}}\n' for n in range(40_000))
    (service.folder / "others.jsonl").write_text(rows)
    racer = subprocess.Popen(service.command("run", "others"), env=service.environment, cwd=ROOT)
    taken: set[str] = set()
    while racer.poll() is None:
        taken = max(taken, held(service), key=len)
        time.sleep(0.05)
    assert racer.returncode == 0
    assert taken == {"autosync-scheduler", "autosync-db-write", "autosync-git-push", "autosync-notify"}
    assert held(service) == set()


def held(service: Service) -> set[str]:
    rows = service.post("/v2/concurrency_limits/filter", {})
    return {row["name"] for row in rows if row["active_slots"] and row["name"].startswith("autosync-")}
