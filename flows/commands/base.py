"""What every command shares: the application, the options, printing."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from flows.workspace import Space, open_space

app = typer.Typer(
    help="Keep JSON records in continuous, verified sync: database, versioned mirror, Git commits, notices, reports.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Names = Annotated[list[str] | None, typer.Argument(metavar="SOURCE", help="Sources; all when none is named.")]


@app.callback()
def options(
    home: Annotated[str, typer.Option(envvar="AUTOSYNC_HOME", help="Folder where data lives.")] = ".autosync",
    config: Annotated[str, typer.Option(envvar="AUTOSYNC_CONFIG", help="Configuration file.")] = "autosync.toml",
) -> None:
    """Options before the command."""
    os.environ["AUTOSYNC_HOME"], os.environ["AUTOSYNC_CONFIG"] = home, config


def space(*, private: bool = True) -> Space:
    """The space that the options name; see `open_space`."""
    return open_space(private=private)


def console() -> Console:
    """Standard output for people; values are never read as markup."""
    return Console(markup=False, highlight=False, emoji=False, soft_wrap=True)


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
