"""What keeps the project's files true to each other."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from autosync.settings import read

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("prefect", "pandas", "great_expectations", "sqlite_utils", "github", "slack_sdk", "altair", "googleapiclient")


def loaded_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize("statement", ["import autosync.change_detection, autosync.checks", "import flows.commands"])
def test_rules_and_commands_load_no_framework(statement: str) -> None:
    """Importing the rules, or the command line, loads neither Prefect nor pandas nor any client."""
    assert not loaded_after(statement) & set(HEAVY)


def test_importing_a_flow_loads_no_great_expectations() -> None:
    """Great Expectations costs seconds; no flow imports it."""
    loaded = loaded_after(
        "import flows.sync, flows.report, flows.monitor, flows.backup, flows.restore, flows.import_git"
    )
    assert not loaded & {"great_expectations", "pandas", "altair"}


def test_prefect_yaml_has_the_deployments_of_autosync_toml() -> None:
    """prefect.yaml names every source of autosync.toml with its schedule, and the other flows."""
    settings = read(ROOT / "autosync.toml")
    held = {row["name"]: row for row in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]}
    wanted = {source.name: source.schedule for source in settings.source}
    wanted |= {"report": settings.report.schedule, "monitor": settings.report.monitor_schedule}
    wanted |= {"backup": settings.backup.schedule, "restore": None, "import-git": None}
    wanted |= {"compact": settings.retention.schedule}
    assert held.keys() == wanted.keys()
    for name, when in wanted.items():
        schedules = held[name].get("schedules", [])
        assert [row.get("cron") or row.get("interval") for row in schedules] == ([when] if when else []), name


def test_every_command_of_the_readme_exists() -> None:
    """Each `autosync COMMAND` that README.md shows answers --help."""
    text = (ROOT / "README.md").read_text()
    commands = {match[1] for match in re.finditer(r"`autosync ([a-z]+)", text)}
    assert {"run", "plan", "up", "status", "show", "log", "verify", "quarantine", "report"} <= commands
    shown = subprocess.run([sys.executable, "-m", "flows.cli", "--help"], cwd=ROOT, capture_output=True, text=True)
    missing = {command for command in commands if not re.search(rf"^  {command}\b", shown.stdout, re.M)}
    assert not missing


def test_every_dependency_has_its_reason() -> None:
    """docs/dependencies.md names every direct dependency of pyproject.toml."""
    text = (ROOT / "docs" / "dependencies.md").read_text()
    wanted = (ROOT / "pyproject.toml").read_text().split("[project.scripts]")[0]
    names = re.findall(r'^  "([A-Za-z0-9_-]+)', wanted, re.M)
    assert len(names) > 20
    assert not [name for name in names if name not in text]


def test_the_lock_holds_versions_with_hashes_and_no_address() -> None:
    """requirements.lock has exact versions and hashes, and names no registry."""
    text = (ROOT / "requirements.lock").read_text()
    pins = re.findall(r"^[a-z0-9][^\s]*==[^\s]+", text, re.M)
    assert len(pins) > 100
    assert text.count("--hash=sha256:") >= len(pins)
    assert "://" not in text and "--index" not in text and "--find-links" not in text


def test_every_package_tells_that_it_is_typed() -> None:
    """Each package of the wheel carries py.typed, so that whoever imports it gets its types."""
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
    assert [name for name in packages if not (ROOT / name / "py.typed").exists()] == []


def test_hooks_download_nothing() -> None:
    """The hooks of .pre-commit-config.yaml are local, and run what `make check` runs."""
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    assert [repo["repo"] for repo in yaml.safe_load(text)["repos"]] == ["local"] and "://" not in text
    recipe = (ROOT / "Makefile").read_text().split("check: $(STAMP)")[1].split("\n\n")[0]
    for program in ("ruff format", "ruff check", "mypy autosync blocks analytics reports flows tests", "lint-imports"):
        assert program in text and program in recipe


def test_the_index_leads_to_every_page() -> None:
    """docs/README.md names each page of docs/ once; every link between the project's pages leads somewhere."""
    index = (ROOT / "docs" / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or index.count(f"({page.name})") == 1, page.name
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_glossary_is_sorted_and_short() -> None:
    """One line a word, in the order of a dictionary, no word twice."""
    words = re.findall(r"^\| (.+?) \| .+ \|$", (ROOT / "docs" / "glossary.md").read_text(), re.M)[1:]
    assert words == sorted(set(words), key=str.lower) and len(words) > 40


def test_fastapi_is_held_where_prefect_works() -> None:
    """Prefect 3.8.8 breaks with fastapi 0.151 and later."""
    pin = re.search(r"^fastapi==0\.(\d+)", (ROOT / "requirements.lock").read_text(), re.M)
    assert pin and 139 <= int(pin[1]) < 151
