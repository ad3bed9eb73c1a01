"""What every command shares: the application, the options, printing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from autosync.errors import ConfigError
from flows.workspace import Workspace, open_workspace


class Root(TyperGroup):
    """The group of all commands. Its options for every command are accepted before and after the command's name."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        shared = [param for param in self.params if param.name in SHARED]
        for param in shared:
            param.expose_value = False  # their callbacks take the value
        for command in descendants(self):
            names = {param.name for param in command.params}
            command.params.extend(param for param in shared if param.name not in names)


def descendants(group: TyperGroup) -> Iterator[Any]:
    """Every command and group below a group, depth first."""
    for command in group.commands.values():
        yield command
        if isinstance(command, TyperGroup):
            yield from descendants(command)


SHARED = frozenset(["home", "config", "as_json"])

app = typer.Typer(
    cls=Root,
    help="Keep JSON records in continuous, verified sync: database, versioned mirror, Git commits, notices, reports.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _set_home(value: str) -> str:
    os.environ["AUTOSYNC_HOME"] = value
    return value


def _set_config(value: str) -> str:
    os.environ["AUTOSYNC_CONFIG"] = value
    return value


def _inherit_json(context: typer.Context, value: bool) -> bool:
    """Whether --json stands here or before the command; contexts of one command line share `meta`."""
    context.meta["as_json"] = value = value or context.meta.get("as_json", False)
    return value


def _print_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        print(f"autosync {version('autosync')}")
        raise typer.Exit


def source_names() -> list[str]:
    """The sources of autosync.toml for completion; none while it can't be read."""
    try:
        return [source.name for source in open_workspace(private=False).settings.source]
    except ConfigError:
        return []


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.", callback=_inherit_json)]
Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="SOURCE", help="Sources; all when none is named.", autocompletion=source_names),
]
_Home = Annotated[
    str, typer.Option(envvar="AUTOSYNC_HOME", help="Folder where data lives.", metavar="DIR", callback=_set_home)
]
_Config = Annotated[
    str, typer.Option(envvar="AUTOSYNC_CONFIG", help="Configuration file.", metavar="FILE", callback=_set_config)
]
_Version = Annotated[
    bool, typer.Option("--version", help="Show the version and exit.", callback=_print_version, is_eager=True)
]


@app.callback()
def options(
    home: _Home = ".autosync", config: _Config = "autosync.toml", as_json: AsJson = False, version: _Version = False
) -> None:
    """Options for every command; their callbacks do what they say."""


def examples(*lines: str) -> str:
    """The end of a command's --help: command lines as people would type them. A test reads each."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def workspace(*, private: bool = True) -> Workspace:
    """The workspace that the options name; see `open_workspace`."""
    return open_workspace(private=private)


def console() -> Console:
    """Standard output for people; values are never read as markup."""
    return Console(markup=False, highlight=False, emoji=False, soft_wrap=True)


def line_printer(as_json: bool) -> Callable[[str], None]:
    """What prints the lines of a service: as they are, or each as a JSON object."""
    if as_json:
        return lambda line: print(msgspec.json.encode({"line": line}).decode(), flush=True)
    return lambda line: print(line, flush=True)


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


WRAPPED = frozenset(["what", "reason", "where"])
PIPED_WIDTH = 400


def print_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table. Numbers are aligned to the right; only text in words is wrapped, and nothing in a pipe."""
    table = Table(
        title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="bold"
    )
    for place, name in enumerate(columns):
        cells = [row[place] for row in rows]
        numeric = bool(rows) and all(not cell or cell.replace(",", "").lstrip("+~-").isdigit() for cell in cells)
        justify: Literal["left", "right"] = "right" if numeric else "left"
        table.add_column(name, justify=justify, overflow="fold", no_wrap=name not in WRAPPED)
    for row in rows:
        table.add_row(*row)
    width = None if sys.stdout.isatty() else PIPED_WIDTH
    Console(markup=False, highlight=False, emoji=False, width=width).print(table)


def moment(time: float | None) -> str:
    """A Unix time as people read it, UTC; "never" for None."""
    return "never" if time is None else datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def age(seconds: float | None) -> str:
    """An age in the largest unit that fits."""
    if seconds is None:
        return ""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
