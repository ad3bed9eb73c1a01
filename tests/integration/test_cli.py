"""The commands that look, on what the stages left: no server needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autosync.errors import AutoSyncError
from flows.operations.overrides import Replay
from tests.integration.service import Service
from tests.pipeline import Pipeline

CONFIG = """
[[source]]
name = "things"
location = "things.json"
key = "/id"
[source.expect]
ranges = { "/n" = [0, 100] }
"""


@pytest.fixture
def place(tmp_path: Path) -> Pipeline:
    (tmp_path / "autosync.toml").write_text(CONFIG)
    save(tmp_path, [{"id": "a", "n": 1}, {"id": "b", "n": 2}])
    pipeline = Pipeline(tmp_path)
    pipeline.run()
    return pipeline


def save(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "things.json").write_text(json.dumps(rows))


def test_show_prints_the_record_and_its_canonical_form(place: Pipeline) -> None:
    """`show` indents for people; with --json it prints the canonical bytes."""
    service = Service(place.folder)
    assert service.run("show", "things", "a", "--json").stdout == '{"id":"a","n":1}\n'
    assert json.loads(service.run("show", "things", "a").stdout) == {"id": "a", "n": 1}
    assert "no record 'zz'" in service.run("show", "things", "zz", status=1).stderr


def test_log_tells_the_history_of_a_record_newest_first(place: Pipeline) -> None:
    """`log COLLECTION ID --json` has before and after of every change."""
    save(place.folder, [{"id": "a", "n": 5}, {"id": "b", "n": 2}])
    place.run()
    changes = Service(place.folder).json("log", "things", "a")["changes"]
    assert [(row["op"], row["before"], row["after"]) for row in changes] == [
        ("update", {"id": "a", "n": 1}, {"id": "a", "n": 5}),
        ("insert", None, {"id": "a", "n": 1}),
    ]


def test_plan_says_what_run_would_do_and_writes_nothing(place: Pipeline) -> None:
    """`plan` names inserts, updates with their fields, deletes and refusals; nothing in the home changes."""
    save(place.folder, [{"id": "a", "n": 5}, {"id": "b", "n": 2}, {"id": "c", "n": 3}, {"id": "d", "n": 300}])
    before = {path: path.read_bytes() for path in place.workspace.home.path.rglob("*") if path.is_file()}
    plan = Service(place.folder).json("plan")["plans"][0]
    assert (plan["inserted"], plan["updated"], plan["deleted"], plan["quarantined"]) == (1, 1, 0, 1)
    assert {"op": "update", "id": "a", "fields": ["n"]} in plan["changes"]
    assert "[0, 100]" in plan["refused"][0]["reason"]
    after = {path: path.read_bytes() for path in place.workspace.home.path.rglob("*") if path.is_file()}
    assert {path.name for path in before.keys() ^ after.keys()} <= {"autosync.db-shm", "autosync.db-wal"}
    assert all(after[path] == data for path, data in before.items() if "-shm" not in path.name and path in after)


def test_verify_sees_an_edited_mirror(place: Pipeline) -> None:
    """`verify` exits 0 when all roots are equal and 1 when a mirror file was edited by hand."""
    service = Service(place.folder)
    assert set(service.json("verify")) >= {"equal", "collections"}
    file = place.workspace.home.mirror / "things" / "current" / "records.jsonl"
    file.write_text(file.read_text().replace('"n":2', '"n":3'))
    found = service.json("verify", status=1)
    row = found["collections"][0]
    assert found["equal"] is False and row["store_root"] == row["repo_root"] != row["mirror_root"]


def test_restore_brings_back_any_state(place: Pipeline) -> None:
    """`restore --as-of SEQ` writes the canonical lines of that moment."""
    save(place.folder, [{"id": "a", "n": 5}, {"id": "b", "n": 2}])
    place.run()
    target = place.folder / "old.jsonl"
    Service(place.folder).run("restore", "things", "--as-of", "2", "--to", str(target))
    assert target.read_text() == '{"id":"a","n":1}\n{"id":"b","n":2}\n'


def test_a_corrected_row_comes_out_of_quarantine(place: Pipeline) -> None:
    """A replayed row with a corrected text becomes a record, and its quarantine item is closed by the run."""
    save(place.folder, [{"id": "a", "n": 1}, {"id": "b", "n": 2}, {"id": "d", "n": 300}])
    place.run()
    service = Service(place.folder)
    item = service.json("quarantine", "list")["items"][0]
    assert item["id"] == "d"
    place.run(override=Replay(items=[item["item"]], text='{"id": "d", "n": 30}'))
    assert place.records()["d"] == '{"id":"d","n":30}'
    assert service.json("quarantine", "list")["items"] == []


def test_backup_and_back(place: Pipeline) -> None:
    """A backup restored over a lost database gives the same records, and the lost one is kept aside."""
    service = Service(place.folder)
    name = service.json("backup")["name"]
    assert [row["name"] for row in service.json("backup", "list")["backups"]] == [name]
    save(place.folder, [{"id": "a", "n": 9}, {"id": "b", "n": 2}])
    place.run()
    assert service.json("backup", "restore", name) == {"database": str(place.workspace.home.database), "backup": name}
    assert place.records() == {"a": '{"id":"a","n":1}', "b": '{"id":"b","n":2}'}
    assert list(place.workspace.home.path.glob("autosync.db.before-restore-*"))
    assert place.run().found.counts.updated == 1
    assert service.json("verify")["equal"] is True


def test_health_has_a_row_a_module(place: Pipeline) -> None:
    """`health --json` names every module with status and text."""
    rows = {row["module"]: row["status"] for row in Service(place.folder).json("health", status=None)["modules"]}
    assert rows.keys() >= {
        "server",
        "database",
        "mirror",
        "repository",
        "slack",
        "email",
        "outbox",
        "disk",
        "freshness",
    }
    assert rows["database"] == rows["mirror"] == rows["repository"] == "ok"
    assert rows["slack"] == rows["email"] == "off"


def test_schedule_shows_what_was_learnt(place: Pipeline) -> None:
    """`schedule SOURCE --json` has the week's profile and the next syncs."""
    found = Service(place.folder).json("schedule", "things")
    assert len(found["profile"]["hourly"]) == 168 and found["profile"]["next_syncs"]


def test_a_wrong_configuration_names_file_and_place(tmp_path: Path) -> None:
    """A misspelt setting is a usage error (2) that names the file and the setting."""
    (tmp_path / "autosync.toml").write_text('[[source]]\nname = "x"\nlocation = "x.json"\nkey = "/id"\nshedule = 5\n')
    said = Service(tmp_path).run("plan", status=2).stderr
    assert "autosync.toml" in said and "shedule" in said


def test_an_unknown_source_is_a_usage_error(place: Pipeline) -> None:
    """Exit status 2, and the known names."""
    assert "use one of: things" in Service(place.folder).run("plan", "thingz", status=2).stderr


def test_looking_before_the_first_run_says_what_to_do(tmp_path: Path) -> None:
    """status, log and verify in an empty home are usage errors that name the next command."""
    (tmp_path / "autosync.toml").write_text(CONFIG)
    for command in ("status", "log", "verify"):
        assert "autosync run" in Service(tmp_path).run(command, status=2).stderr


def test_errors_of_stages_are_ours(place: Pipeline) -> None:
    """A stage raises errors that say what was kept and what to do."""
    (place.folder / "things.json").write_text("[")
    with pytest.raises(AutoSyncError, match=r"Kept safe: .* What to do: "):
        place.run()
