"""Habits of a command line: options before and after the command, examples, version, completion, help that fits."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup
from typer.main import get_command

from flows.commands import app
from flows.commands.base import line_printer
from tests.integration.service import ROOT, Service
from tests.pipeline import Pipeline

LINE = re.compile(r"^ +(autosync .*)$", re.M)
NEEDS_MORE = re.compile(
    r"autosync (run|up|dashboard|release|import-git|compact$|rebuild|quarantine (replay|show)|backup restore)"
    r"|--apply|--from|--as-of|--format"
)


def walk(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below a group with the words that call it."""
    for name, child in getattr(command, "commands", {}).items():
        yield (*words, name), child
        yield from walk(child, (*words, name))


COMMANDS = dict(walk(get_command(app)))
EXAMPLES = [line for command in COMMANDS.values() for line in LINE.findall(command.epilog or "")]


def parse(line: str) -> Any:
    """The command that a line calls, its options and arguments parsed; a usage error where they are wrong."""
    words, command, context = shlex.split(line)[1:], get_command(app), None
    while True:
        context = command.make_context(command.name or "autosync", words, parent=context)
        words = [*context._protected_args, *context.args] if isinstance(command, TyperGroup) else []
        if not words or not isinstance(command, TyperGroup):
            return command
        _, child, words = command.resolve_command(context, words)
        assert child is not None
        command = child


@pytest.fixture(autouse=True)
def _keep_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsing sets the two variables."""
    for name in ("AUTOSYNC_HOME", "AUTOSYNC_CONFIG"):
        monkeypatch.setenv(name, "")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """The project's own configuration and examples, synced once."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copytree(ROOT / "examples", folder / "examples")
    shutil.copy(ROOT / "autosync.toml", folder)
    pipeline = Pipeline(folder)
    for name in ("contacts", "readings"):
        pipeline.run(source=name)
    return pipeline


def autosync(folder: Path, *args: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = Service(folder).environment | {"PYTHONPATH": str(ROOT), "COLUMNS": "80"} | more
    command = [sys.executable, "-m", "flows.cli", *args]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_shows_an_example_of_itself(words: tuple[str, ...]) -> None:
    """`autosync COMMAND --help` ends with lines that call this command, each no wider than a terminal."""
    lines = LINE.findall(COMMANDS[words].epilog or "")
    assert lines
    for line in lines:
        assert line.startswith(" ".join(("autosync", *words))) and len(line) <= 76
        assert line == line.rstrip() and parse(line) is not None


def test_a_wrong_example_would_be_noticed() -> None:
    """The parser that reads the examples refuses what the command line refuses."""
    for line in ("autosync status --jsn", "autosync rnu", "autosync show contacts", "autosync backup lst"):
        with pytest.raises((typer.BadParameter, typer.TyperException)):
            parse(line)


@pytest.mark.parametrize("line", [line for line in EXAMPLES if not NEEDS_MORE.search(line)])
def test_examples_that_only_look_run(place: Pipeline, line: str) -> None:
    """On a home with the example sources, the examples that need no server and no file do their work."""
    home = str(place.workspace.home.path)
    done = autosync(place.folder, "--home", home, *shlex.split(line)[1:])
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize(
    "line",
    [
        "--home HOME --config FILE --json status",
        "status --home HOME --config FILE --json",
        "--json status --config=FILE --home=HOME",
        "--home WRONG status --json --config FILE --home HOME",
    ],
)
def test_shared_options_stand_before_or_after_the_command(place: Pipeline, line: str) -> None:
    """--home, --config and --json mean the same at both ends; the later one wins."""
    names = {"HOME": str(place.workspace.home.path), "FILE": str(place.folder / "autosync.toml"), "WRONG": "/nowhere"}
    args = [re.sub(r"HOME|FILE|WRONG", lambda match: names[match[0]], word) for word in line.split()]
    done = autosync(ROOT, *args)
    assert [row["source"] for row in json.loads(done.stdout)["sources"]] == ["contacts", "readings"], done.stderr


@pytest.mark.parametrize(
    "line", ["backup list --json {}", "backup --json list {}", "--json backup {} list", "--json {} backup list"]
)
def test_shared_options_reach_the_commands_of_a_group(place: Pipeline, line: str) -> None:
    """`backup list` takes them in front, in the middle and behind."""
    done = autosync(place.folder, *line.replace("{}", f"--home {place.workspace.home.path}").split())
    assert "backups" in json.loads(done.stdout), done.stderr


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_takes_the_shared_options(words: tuple[str, ...]) -> None:
    """No command is left out, whichever file it stands in."""
    options = {option for param in COMMANDS[words].params for option in param.opts}
    assert options >= {"--home", "--config", "--json"}


@pytest.mark.parametrize(
    ("line", "status", "name"),
    [
        ("rnu", 2, "run"),
        ("backup lst", 2, "list"),
        ("status --jsn", 2, "--json"),
        ("plan contcats", 2, "contacts"),
        ("run contcats", 2, "contacts"),
        ("schedule contcats", 2, "contacts"),
        ("quarantine list contcats", 2, "contacts"),
        ("show contcats c-001", 1, "contacts"),
        ("log contcats", 2, "contacts"),
        ("restore contcats --to x", 2, "contacts"),
        ("restore contcats --to x --from mirror", 1, "contacts"),
        ("restore contcats --to x --from repo", 2, "contacts"),
        ("restore contcats --apply", 2, "contacts"),
        ("restore contacts --to x --from miror", 2, "mirror"),
        ("restore contacts --to x --from repository", 2, "repo"),
        ("rebuild --from miror", 2, "mirror"),
        ("rebuild contcats --force", 1, "contacts"),
        ("report --format pfd", 2, "pdf"),
        ("release biuld", 2, "build"),
        ("plan --config autosnyc.toml", 2, "autosync.toml"),
    ],
)
def test_a_mistaken_name_suggests_the_nearest(place: Pipeline, line: str, status: int, name: str) -> None:
    """Whatever kind of name it is; the exit status says as before what kind of mistake it is."""
    done = autosync(place.folder, "--home", str(place.workspace.home.path), *line.split())
    assert done.returncode == status and not done.stdout, done
    assert re.search(rf"[Dd]id you mean '{re.escape(name)}'|Possible options: {name}", done.stderr), done.stderr
    assert "Traceback" not in done.stderr


def test_a_mistaken_backup_suggests_the_nearest(place: Pipeline) -> None:
    """By the names that the list has."""
    service = Service(place.folder)
    name = json.loads(autosync(place.folder, "--json", "backup", "--home", str(service.home)).stdout)["name"]
    done = autosync(place.folder, "--home", str(service.home), "backup", "restore", name.removesuffix(".gz"))
    assert done.returncode == 2 and f"did you mean '{name}'?" in done.stderr


@pytest.mark.parametrize(
    ("words", "name"), [(("data/a.josn",), "data/a.json"), (("data/a.json", "--branch", "mian"), "main")]
)
def test_a_mistaken_file_or_branch_suggests_the_nearest(tmp_path: Path, words: tuple[str, ...], name: str) -> None:
    """import-git looks at what the repository has."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.json").write_text("[]")
    for args in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "a"]):
        subprocess.run([*git, *args], check=True)
    done = autosync(tmp_path, "import-git", ".", *words, "--key", "/id", "--collection", "a")
    assert done.returncode == 2 and f"did you mean '{name}'?" in done.stderr, done.stderr


def test_version_is_the_installed_one() -> None:
    """`autosync --version` prints one line and needs no configuration."""
    done = autosync(Path("/"), "--version")
    text = (ROOT / "pyproject.toml").read_text()
    assert re.search(rf'^version = "{re.escape(done.stdout.split()[1])}"$', text, re.M) and done.returncode == 0


@pytest.mark.parametrize("words", [(), *COMMANDS], ids=lambda words: " ".join(words) or "autosync")
def test_help_fits_a_terminal_of_80_columns(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """No line is wider, and no command's summary is cut off."""
    monkeypatch.setenv("COLUMNS", "80")
    command = COMMANDS.get(words, get_command(app))
    context = command.make_context(words[-1] if words else "autosync", [], resilient_parsing=True)
    lines = command.get_help(context).splitlines()
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if re.match(r"  \S.*\w\.\.\.$", line)]


def test_shells_complete_commands_and_options(tmp_path: Path) -> None:
    """The script that --show-completion prints asks the program itself, which knows commands and options."""
    assert (
        "_AUTOSYNC_COMPLETE"
        in autosync(tmp_path, "--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1").stdout
    )
    (tmp_path / "autosync.toml").write_text('[[source]]\nname = "things"\nlocation = "a.json"\nkey = "/id"\n')
    for words, expected in (
        ("autosync qua", "quarantine"),
        ("autosync status --ho", "--home"),
        ("autosync plan th", "things"),
        ("autosync release bu", "build"),
    ):
        asked = {"_AUTOSYNC_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        assert expected in autosync(tmp_path, **asked).stdout.split()


def test_services_print_one_json_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """`up --json` and `dashboard --json` say the same lines as for people, each as an object."""
    line_printer(True)('Ready. "quoted"')
    line_printer(False)("Ready.")
    assert capsys.readouterr().out == '{"line":"Ready. \\"quoted\\""}\nReady.\n'


def test_help_loads_no_framework() -> None:
    """`autosync --help` imports neither Prefect nor pandas."""
    code = """
import atexit, sys
from flows import cli
atexit.register(lambda: print(sorted({"prefect", "pandas", "httpx", "altair"} & set(sys.modules)), file=sys.stderr))
sys.argv = ["autosync", "--help"]
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "[]"
