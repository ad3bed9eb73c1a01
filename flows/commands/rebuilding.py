"""rebuild: a damaged database made anew."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from flows.commands.base import AsJson, app, console, examples, print_json, print_table, workspace


@app.command(epilog=examples("autosync rebuild", "autosync rebuild contacts --from repo"))
def rebuild(
    names: Annotated[list[str] | None, typer.Argument(metavar="COLLECTION", help="All when none is named.")] = None,
    copy_name: Annotated[str, typer.Option("--from", help="What to make it from: mirror or repo.")] = "mirror",
    force: Annotated[bool, typer.Option(help="Also when the database is whole.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a damaged database anew from mirror or repository.

    The damaged file is kept aside.
    """
    from flows.operations.copies import COPIES
    from flows.operations.rebuild import rebuild_store

    done = rebuild_store(workspace(), copy_name, tuple(names or ()), force=force)
    if as_json:
        print_json(done)
        return
    columns = ["collection", "records", "seq", "steps", "since"]
    print_table("", columns, [[str(row[name]) for name in columns] for row in done["collections"]])
    out = console()
    if done["aside"]:
        out.print(f"\nThe old file is kept: {os.path.relpath(done['aside'])}")
    for problem in done["problems"]:
        out.print(problem, style="red")
    out.print("Runs, notices and quarantine were in the database alone and begin anew.")
    if older := COPIES[done["from"]].older_states:
        out.print(older)
    out.print("Next: autosync verify; autosync run")
