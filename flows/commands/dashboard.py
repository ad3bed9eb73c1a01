"""dashboard: pages and REST API for people and programs that only look."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.base import AsJson, app, examples, line_printer, workspace


@app.command(epilog=examples("autosync dashboard", "autosync dashboard --port 8080"))
def dashboard(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to serve on.")] = 4280,
    host: Annotated[str, typer.Option(help="Address to serve on; another than the loopback needs a token.")] = (
        "127.0.0.1"
    ),
    name: Annotated[list[str] | None, typer.Option(help="A further host name that people reach it by.")] = None,
    as_json: AsJson = False,
) -> None:
    """Pages and REST API, read-only, until Ctrl-C.

    AUTOSYNC_DASHBOARD_TOKEN sets the token that they ask for.
    """
    from flows.service.dashboard import serve

    serve(workspace(), host, port, name or [], line_printer(as_json))
