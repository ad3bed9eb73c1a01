"""restore: a collection as it was, to a file or back into the collection."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from autosync.errors import ConfigError
from autosync.suggestions import did_you_mean, or_else
from flows.commands.base import AsJson, app, console, examples, print_json, workspace
from flows.commands.inspect import require_store
from flows.commands.sync import Accept, plan_of, print_plan, print_runs, run_all, status_of
from flows.workspace import Workspace


@app.command(
    epilog=examples(
        "autosync restore contacts --to contacts.jsonl",
        "autosync restore contacts --as-of 2026-01-31 --from mirror --to a.jsonl",
        "autosync restore contacts --as-of 8 --apply --plan",
    )
)
def restore(
    collection: str,
    to: Annotated[Path | None, typer.Option(help="The file to write, canonical JSON Lines.")] = None,
    as_of: Annotated[str, typer.Option(help="A seq, or a time such as 2026-01-31T12:00; now when left out.")] = "",
    copy_name: Annotated[str, typer.Option("--from", help="Where to read it: store, mirror or repo.")] = "store",
    apply: Annotated[bool, typer.Option(help="Write it back into the collection as ordinary changes.")] = False,
    plan: Annotated[bool, typer.Option(help="With --apply: only say what would change.")] = False,
    accept: Accept = "",
    as_json: AsJson = False,
) -> None:
    """Write a collection as it was at any seq or time.

    To a file or, with --apply, back into the collection.
    """
    here = workspace()
    if (to is None) != apply:
        raise ConfigError(
            "a restored collection goes to a file or back into the store", todo="give --to FILE, or --apply"
        )
    if copy_name == "store" or apply:
        require_store(here)
    if to is not None:
        _write(here, collection, as_of, to, copy_name, as_json)
    else:
        _apply(here, collection, as_of, copy_name, accept, as_json, plan_only=plan)


def _write(here: Workspace, collection: str, as_of: str, to: Path, copy_name: str, as_json: bool) -> None:
    from flows.operations.copies import COPIES, parse_copy
    from flows.operations.restore import write_collection

    done = write_collection(here, collection, as_of, str(to), copy_name)
    if as_json:
        print_json(done)
        return
    if "asked" in done:
        label = COPIES[parse_copy(copy_name)].label
        console().print(f"The {label} has no state of seq {done['asked']}; the one before is seq {done['seq']}.")
    console().print(f"{done['records']:,} records of {collection} as of seq {done['seq']}: {done['file']}")


def _apply(
    here: Workspace, collection: str, as_of: str, copy_name: str, accept: str, as_json: bool, *, plan_only: bool
) -> None:
    from flows.operations.copies import parse_copy
    from flows.operations.overrides import Restored
    from flows.operations.restore import parse_moment

    override = Restored(as_of=as_of, place=parse_copy(copy_name))
    if as_of:
        parse_moment(as_of)
    source = next((source for source in here.settings.source if source.into == collection), None)
    if source is None:
        raise ConfigError(
            f"no source feeds the collection {collection!r}",
            where=str(here.config),
            todo=or_else(
                did_you_mean(collection, (source.into for source in here.settings.source)),
                "restore it to a file with --to, or give it a [[source]] first",
            ),
        )
    if plan_only or not as_json:
        found = plan_of(here, source.name, override)
        if plan_only and as_json:
            print_json({"plans": [found]})
        else:
            print_plan(found)
        if plan_only or found["outcome"] == "failed" or (found["outcome"] == "refused" and not accept):
            raise typer.Exit({"failed": 1, "refused": 3}.get(found["outcome"], 0))
    results: list[dict[str, Any]] = run_all(here, [source.name], accept, restored=override.model_dump())
    if as_json:
        print_json({"runs": results})
    else:
        print_runs(here, results)
    if not as_json and results[0]["outcome"] == "changed":
        console().print(f"\nThe next sync lets {source.location} have its say again: correct it there, too.")
    raise typer.Exit(status_of(results))
