"""status, show, log, verify: looking, without changing anything."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer

from autosync.differences import describe_change
from autosync.errors import AutoSyncError, ConfigError
from autosync.suggestions import choose_from, unknown_name
from blocks.store import history, ledger
from flows.commands.base import AsJson, age, app, console, examples, moment, print_json, print_table, workspace
from flows.operations.copies import COPIES
from flows.operations.status import describe_status, waiting_text
from flows.operations.verify import repair_mirrors, verify_all
from flows.workspace import Workspace, now


def require_store(here: Workspace) -> None:
    """ConfigError when nothing was synced into this home yet."""
    if not here.home.database.exists():
        raise ConfigError("nothing was synced here yet", where=str(here.home.path), todo="run: autosync run")


@app.command(epilog=examples("autosync status", "autosync status --json"))
def status(as_json: AsJson = False) -> None:
    """Per source: last run, freshness, cursors, locks, quarantine."""
    here = workspace()
    require_store(here)
    found = describe_status(here)
    if as_json:
        print_json(found)
        return
    columns = ["source", "last run", "outcome", "age", "freshness", "records", "quarantine", "behind"]
    print_table("", columns, [_row(source) for source in found["sources"]])
    out = console()
    for source in found["sources"]:
        if source["error"]:
            out.print(f"\n{source['source']}: {source['error']}", style="red")
        for text in source["left_out"]:
            out.print(f"\n{source['source']}: left out: {text}")
    for lock in found["locks"]:
        out.print(f"\nlock {lock['name']}: run {lock['run']}, for {age(now() - lock['since'])}")
    if found["waiting"]:
        with here.database(read_only=True) as db:
            out.print(f"\n{waiting_text(found['waiting'], ledger.delivery_error(db))}")


def _row(source: dict[str, Any]) -> list[str]:
    behind = ", ".join(
        f"{c['consumer']} -{c['newest'] - c['seq']}" for c in source["cursors"] if c["newest"] > c["seq"]
    )
    return [
        source["source"],
        moment(source["last_run"]),
        source["outcome"] or "",
        age(source["age"]),
        source["freshness"],
        f"{source['records']:,}",
        str(source["quarantine"]),
        behind or "-",
    ]


@app.command(epilog=examples("autosync show contacts c-001", "autosync show contacts c-001 --json"))
def show(collection: str, id: str, as_json: AsJson = False) -> None:
    """Print a record, indented; in canonical form with --json."""
    here = workspace()
    require_store(here)
    with here.database(read_only=True) as db:
        doc = history.record(db, collection, id)
        known = [row["name"] for row in history.collections(db)]
    if doc is None:
        todo = f"see: autosync log {collection} {id}" if collection in known else choose_from(collection, known)
        raise AutoSyncError(f"there is no record {id!r} in {collection!r}", todo=todo)
    print(doc if as_json else msgspec.json.format(doc, indent=2))


@app.command(
    "log", epilog=examples("autosync log", "autosync log contacts --limit 5", "autosync log contacts c-001 --json")
)
def log_(
    collection: Annotated[str | None, typer.Argument()] = None,
    id: Annotated[str | None, typer.Argument()] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many changes.")] = 30,
    before: Annotated[int | None, typer.Option(help="Only changes with a smaller seq: the next page.")] = None,
    as_json: AsJson = False,
) -> None:
    """The change log, newest first."""
    here = workspace()
    require_store(here)
    with here.database(read_only=True) as db:
        rows = history.changes(db, collection=collection, id=id, before=before, limit=limit)
        known = [row["name"] for row in history.collections(db)]
    if collection is not None and collection not in known:
        raise unknown_name("collection", collection, known)
    if as_json:
        print_json({"changes": [row | {side: _document(row[side]) for side in ("before", "after")} for row in rows]})
        return
    columns = ["seq", "time", "collection", "op", "id", "what", "origin"]
    print_table("", columns, [_change(row) for row in rows])


def _document(text: str | None) -> Any:
    return None if text is None else msgspec.Raw(text.encode())


def _change(row: dict[str, Any]) -> list[str]:
    return [
        str(row["seq"]),
        row["time"][:19].replace("T", " "),
        row["collection"],
        row["op"],
        row["id"],
        describe_change(row["op"], row["before"], row["after"]),
        f"git {row['run'][:10]}" if row["origin"] == "git" else row["origin"],
    ]


@app.command(epilog=examples("autosync verify", "autosync verify --repair"))
def verify(
    repair: Annotated[bool, typer.Option(help="First make damaged mirror files again from the store.")] = False,
    as_json: AsJson = False,
) -> None:
    """Prove by hashes that store, mirror and repository are equal."""
    here = workspace()
    require_store(here)
    mended = repair_mirrors(here) if repair else []
    found = verify_all(here) | ({"repaired": mended} if repair else {})
    if as_json:
        print_json(found)
    else:
        columns = ["collection", "records", *(kind.label for kind in COPIES.values()), "equal"]
        roots = [f"{name}_root" for name in COPIES]
        rows = [
            [row["collection"], f"{row['records']:,}", *((row[name] or "-")[:16] for name in roots)]
            + ["yes" if len({row[name] for name in roots}) == 1 else "NO"]
            for row in found["collections"]
        ]
        print_table("", columns, rows)
        for name in mended:
            console().print(f"made again: {name}; what stood there is in damaged/ beside it")
        for problem in found["problems"]:
            console().print(problem, style="red")
    raise typer.Exit(0 if found["equal"] else 1)
