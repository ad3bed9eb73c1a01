"""What AutoSync writes is no input: the home wherever it lies, and folders of backups and pushes below a source's."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from autosync.errors import ConfigError, Refused, SourceError
from autosync.settings import Home
from flows.commands.sync import plan_of
from flows.operations.plan import describe
from flows.operations.status import describe_status
from flows.run_result import Outcome
from flows.service.observer import saved, touched_sources, watched_folder
from flows.workspace import Workspace, open_workspace
from tests.integration.test_bad_input import everything
from tests.pipeline import Pipeline

HOME = "AutoSync's own files"
WHOLE = (".", "**/*.json", "*/**/*.json*", "../*/**/*.json")


def fill(folder: Path, count: int = 3) -> None:
    """Files with one record each: r0.json, r1.json ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(count):
        (folder / f"r{n}.json").write_text(json.dumps([{"id": f"r{n}"}]))


@dataclass
class At(Pipeline):
    """A pipeline whose home lies where a test says, from its folder."""

    home: str = "home"

    @property
    def workspace(self) -> Workspace:
        return Workspace(Home(self.folder / self.home), self.folder / "autosync.toml")


def at(folder: Path, home: str, location: str, more: str = "") -> At:
    """Three files beside the configuration, the same in a folder `data`, and a home that holds nothing yet."""
    fill(folder)
    fill(folder / "data")
    place = At(folder, home)
    place.configure(location=location, guard={"max_delete": 1.0, "max_refuse": 1.0})
    with (folder / "autosync.toml").open("a") as config:
        config.write(more)
    return place


@pytest.mark.parametrize("location", WHOLE)
@pytest.mark.parametrize("home", [".autosync", "deep/er/home"])
def test_a_home_below_the_source_is_not_read(tmp_path: Path, location: str, home: str) -> None:
    """Three runs read the user's files alone, the last two change nothing, and the repository holds no more."""
    place = at(tmp_path / "project", home, location)
    (tmp_path / "project" / "data" / "d.json").write_text('[{"id": "d"}]')
    first = place.run()
    assert set(place.records()) == {"r0", "r1", "r2", "d"} and first.found.counts.quarantined == 0
    assert [text.partition(" ")[2] for text in first.found.left_out] == [f"({HOME})"]
    assert place.run().found.batch == place.run().found.batch == ""
    assert place.git("ls-tree", "-r", "--name-only", "main").split() == ["things/manifest.json", "things/records.jsonl"]
    assert place.git("rev-list", "--count", "main").strip() == "1"


def test_a_home_that_a_glob_does_not_lead_to_is_not_spoken_of(tmp_path: Path) -> None:
    """Nothing is left out of what it names."""
    place = at(tmp_path, ".autosync", "*.json")
    assert place.run().found.left_out == [] and describe(place.workspace, "things")["left_out"] == []


def test_the_home_is_spoken_of_once(tmp_path: Path) -> None:
    """By the run that first leaves it out, in its message, and by every plan and status."""
    place, said = at(tmp_path, ".autosync", "."), [f"./.autosync ({HOME})"]
    found = place.run().found
    assert found.left_out == said and str(Outcome("things", left_out=said)).endswith(f"left out: {said[0]}")
    (tmp_path / "new.json").write_text('[{"id": "new"}]')
    again = place.run().found
    assert (again.counts.inserted, again.left_out) == (1, [])
    assert describe(place.workspace, "things")["left_out"] == said
    assert describe_status(place.workspace)["sources"][0]["left_out"] == said


def test_a_home_that_has_read_itself_forgets_it(tmp_path: Path) -> None:
    """Records that an earlier version took from the home are absent from the source, and deleted as such."""
    project = tmp_path / "project"
    place = at(project, "../home", ".")
    fill(project / "old" / "data_backup" / "things", 4)  # r3 is there alone
    place.run()
    shutil.copytree(tmp_path / "home", project / "old", dirs_exist_ok=True)
    moved = at(project, "old", ".")
    moved.configure(location=".", guard={"max_delete": 0.2})
    with pytest.raises(Refused, match="delete 1 of 4 records"):
        moved.run()
    moved.configure(location=".", guard={"max_delete": 0.3})
    assert moved.run().found.counts.deleted == 1 and set(moved.records()) == {"r0", "r1", "r2"}


@pytest.mark.parametrize("name", ["", "data_backup", "data_backup/things/current", "data_backup/things/manifest.json"])
def test_no_link_makes_the_home_input(tmp_path: Path, name: str) -> None:
    """A link to it, to a folder or to a file in it: left out by folders and globs, as what it is."""
    project = tmp_path / "project"
    place = at(project, "../home", "data")
    place.run()
    assert (tmp_path / "home" / name).exists()
    link = project / "data" / "x.json"
    link.symlink_to(Path("../../home") / name)
    below = [] if link.is_file() else ["data/*/*.json", "**/x.json*/**", "data/*/current/../current/*"]
    for location in ("data", "data/**/*.json", "*/**", *below):
        place.configure(location=location, guard={"max_delete": 1.0})
        plan = plan_of(place.workspace, "things")
        assert plan.get("inserted", 0) == 0
        assert f"data/x.json ({HOME})" in (plan.get("error") or plan["left_out"][0]), location


def test_a_home_that_is_a_link_is_known(tmp_path: Path) -> None:
    """Below the source lies what it leads to."""
    (tmp_path / "real").mkdir()
    (tmp_path / "linked").symlink_to("real")
    place = at(tmp_path, "linked", ".")
    place.run()
    assert place.run().found.batch == "" and set(place.records()) == {"r0", "r1", "r2"}
    assert sorted(describe(place.workspace, "things")["left_out"]) == [f"./linked ({HOME})", f"./real ({HOME})"]


def test_a_folder_of_the_home_that_lies_elsewhere_is_not_read(tmp_path: Path) -> None:
    """The mirror on another disk, linked from the home, below the source."""
    place = at(tmp_path / "project", "../home", ".")
    (tmp_path / "home").mkdir()
    (tmp_path / "project" / "mirror").mkdir()
    (tmp_path / "home" / "data_backup").symlink_to(tmp_path / "project" / "mirror")
    place.run()
    assert (tmp_path / "project" / "mirror" / "things").exists()
    assert place.run().found.batch == "" and set(place.records()) == {"r0", "r1", "r2"}
    assert describe(place.workspace, "things")["left_out"] == [f"./mirror ({HOME})"]


@contextmanager
def bound(folder: Path, to: Path) -> Iterator[None]:
    """A folder that is reached by a second path; skipped where none can be mounted, never in CI."""
    to.mkdir()
    done = subprocess.run(["mount", "--bind", str(folder), str(to)], capture_output=True, text=True)
    if done.returncode:
        assert not os.environ.get("CI"), done.stderr
        pytest.skip(f"a second path needs the right to mount: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(to)], check=True)


def test_a_home_that_is_mounted_below_the_source_is_not_read(tmp_path: Path) -> None:
    """As a container shows a volume in two places."""
    place = at(tmp_path / "project", "../home", ".")
    place.run()
    with bound(tmp_path / "home", tmp_path / "project" / "volume"):
        assert place.run().found.batch == ""
        assert describe(place.workspace, "things")["left_out"] == [f"./volume ({HOME})"]
        assert touched_sources(place.workspace, {str(tmp_path / "project" / "volume" / "autosync.db")}) == []


@pytest.mark.parametrize(
    "location",
    [
        ".autosync",
        ".autosync/data_backup",
        ".autosync/data_backup/things/manifest.json",
        ".autosync/nothing.json",
        ".autosync/**/*.json",
        ".autosync/data_backup/*/*.json",
        "link",
        "link/*.json",
        "file.json",
    ],
)
def test_a_source_in_the_home_is_refused(tmp_path: Path, location: str) -> None:
    """File, folder, glob, or what links lead to: named, with what to do; plan says the same."""
    place = at(tmp_path, ".autosync", "data")
    place.run()
    (tmp_path / "link").symlink_to(".autosync/data_backup")
    (tmp_path / "file.json").symlink_to(".autosync/data_backup/things/manifest.json")
    place.configure(location=location)
    before = everything(place)
    with pytest.raises(ConfigError, match=r"'things' reads what AutoSync itself writes.*--home") as caught:
        place.run()
    assert caught.value.where.startswith(str(tmp_path)) and everything(place) == before
    assert plan_of(place.workspace, "things") == {"source": "things", "outcome": "failed", "error": str(caught.value)}
    watched = watched_folder(place.workspace, place.workspace.source("things"))
    assert watched == (tmp_path if location == "file.json" else None)


@pytest.mark.parametrize(("home", "location"), [(".", "data"), (".", "data/*.json"), ("data", "data/r0.json")])
def test_peoples_files_in_the_home_are_read(tmp_path: Path, home: str, location: str) -> None:
    """A home that is the project's folder, or holds the source's file, refuses only what is AutoSync's in it."""
    place = at(tmp_path, home, location)
    place.run()
    assert set(place.records()) == ({"r0"} if "r0" in location else {"r0", "r1", "r2"})
    for own in ("data_backup/things", "data_backup/*/*.json", "home-id.json", "prefect/*.json"):
        (tmp_path / home / "home-id.json").write_text("[]")
        place.configure(location=str(Path(home) / own))
        with pytest.raises(ConfigError, match="reads what AutoSync itself writes"):
            place.run()


OTHERS = '\n[backup]\nfolder = "copies"\n[push]\nurl = "{url}"\n'


@pytest.mark.parametrize("url", ["data.git", "file://{folder}/data.git"])
def test_backups_and_pushes_below_the_source_are_not_read(tmp_path: Path, url: str) -> None:
    """Whatever lies there; also a repository whose files are checked out."""
    place = at(tmp_path, "../home", ".", OTHERS.format(url=url.format(folder=tmp_path)))
    for folder in ("copies", "data.git"):
        fill(tmp_path / folder / "things", 5)
    assert describe(place.workspace, "things")["left_out"] == [
        "./copies (AutoSync's backups)",
        "./data.git (the repository that AutoSync pushes to)",
    ]
    assert describe(place.workspace, "things")["inserted"] == 3
    for path in (tmp_path / "copies" / "autosync-1.db.gz", tmp_path / "data.git" / "things" / "r4.json"):
        assert touched_sources(place.workspace, {str(path)}) == []
    assert touched_sources(place.workspace, {str(tmp_path / "data" / "r1.json")}) == ["things"]


def test_a_source_below_backups_and_pushes_is_read(tmp_path: Path) -> None:
    """There they write nothing that is JSON, and a location that names a folder means it."""
    for folder, url in ((".", "."), ("data", "data"), ("..", "..")):
        place = at(tmp_path / "project", "../home", "data", OTHERS.replace("copies", folder).format(url=url))
        plan = describe(place.workspace, "things")
        assert (plan["inserted"], plan["left_out"]) == (3, [])


def test_only_what_autosync_writes_is_left_is_an_error_that_says_so(tmp_path: Path) -> None:
    """No empty source, and no riddle."""
    place = at(tmp_path, ".autosync", "*/data_backup/**/*.json")
    place.workspace.home.mirror.mkdir(parents=True)
    with pytest.raises(SourceError, match=rf"no JSON files; left out: \.autosync \({HOME}\)"):
        place.run()


def test_the_home_at_its_default_place_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As commands and flows open it."""
    at(tmp_path, ".autosync", ".")
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".autosync" / "reports").mkdir(parents=True)
    (tmp_path / ".autosync" / "reports" / "x.json").write_text('[{"id": "own"}]')
    assert describe(open_workspace(), "things")["left_out"] == [f"./.autosync ({HOME})"]
    monkeypatch.setenv("AUTOSYNC_HOME", "data")
    assert describe(open_workspace(), "things")["left_out"] == [f"./data ({HOME})"]


def test_the_observer_hears_nothing_of_the_home(tmp_path: Path) -> None:
    """Files below it belong to no source, by whatever path they are told."""
    place = at(tmp_path, ".autosync", ".")
    place.run()
    (tmp_path / "link").symlink_to(".autosync/logs")
    own = [".autosync", ".autosync/autosync.db", ".autosync/data_backup/things/manifest.json", "link/app.log"]
    for name in own:
        assert touched_sources(place.workspace, {str(tmp_path / name)}) == []
    assert touched_sources(place.workspace, {str(tmp_path / ".autosync-more" / "x.json")}) == ["things"]
    assert touched_sources(place.workspace, {str(tmp_path / name) for name in [*own, "r1.json"]}) == ["things"]


def test_one_save_is_one_run(tmp_path: Path) -> None:
    """What the run itself writes, below the watched folder, sets off no other."""
    place = at(tmp_path, ".autosync", ".")
    place.run()
    runs: list[Any] = []

    async def observe() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(0.2, (tmp_path / "new.json").write_text, '[{"id": "new"}]')
        async for name in saved(place.workspace, stop):
            runs.append((name, await asyncio.to_thread(place.run)))
            asyncio.get_running_loop().call_later(2.5, stop.set)

    asyncio.run(observe())
    assert [(name, result.found.counts.inserted) for name, result in runs] == [("things", 1)]
