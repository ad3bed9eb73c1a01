"""import-git: the history of a JSON file in a Git repository as a collection's change log."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.commands.base import AsJson, app, console, examples, print_json, print_table, workspace

SHOWN = 20


@app.command(
    "import-git",
    epilog=examples(
        "autosync import-git . examples/contacts.json --key /id --records /contacts",
        "autosync import-git ../notes a.jsonl --key /x --key /y --collection points",
    ),
)
def import_git(
    repository: Annotated[str, typer.Argument(metavar="REPO", help="A folder, or an address that git clones from.")],
    path: Annotated[str, typer.Argument(help="The JSON or JSONL file, from the repository's root.")],
    key: Annotated[list[str], typer.Option(metavar="POINTER", help="A record's key; repeat it for a key of several.")],
    records: Annotated[str, typer.Option(metavar="POINTER", help="Where the array of records is.")] = "",
    collection: Annotated[str, typer.Option(help="The collection to make; the file's name when left out.")] = "",
    branch: Annotated[str, typer.Option(metavar="REF", help="A branch, tag or commit; HEAD when left out.")] = "",
    as_json: AsJson = False,
) -> None:
    """Import the Git history of a JSON file as a change log.

    Each change has the time of its commit.
    """
    from flows.operations.import_history import import_history, imported_source

    here = workspace()
    source, fed = imported_source(here, path, key, records, collection)
    done = import_history(here, source, fed, repository, branch)
    if as_json:
        print_json(done)
    else:
        _print(done)


def _print(done: dict[str, Any]) -> None:
    out = console()
    out.print(
        f"{done['collection']}: {done['records']:,} records from {done['versions']:,} versions of {done['path']} "
        f"({done['repository']}, {done['head'][:10]})"
    )
    if done["changed"]:
        out.print(f"{done['changed']:,} versions changed something, {done['first_time']} to {done['last_time']}")
    counted = [f"{done[name]:,}" for name in ("inserted", "updated", "deleted")]
    print_table("", ["inserted", "updated", "deleted", "seq"], [[*counted, f"{done['first_seq']}-{done['last_seq']}"]])
    if done["times_moved"]:
        out.print(
            f"{done['times_moved']:,} versions are dated before an earlier one or in the future: times were moved"
        )
    _print_some("skipped version", [(row.commit[:10], row.reason) for row in done["skipped"]])
    _print_some("refused row", [(row.place, row.reason) for row in done["refused"]])
    out.print(f"\nNext: autosync log {done['collection']}")


def _print_some(label: str, rows: list[tuple[str, str]]) -> None:
    out = console()
    for where, reason in rows[:SHOWN]:
        out.print(f"{label} {where}: {reason}")
    if len(rows) > SHOWN:
        out.print(f"… and {len(rows) - SHOWN:,} more; --json has them all")
