"""The commands of `autosync`, one file per group; each prints for people, or JSON with --json."""

from flows.commands import dashboard, importing, inspect, operate, quarantine, rebuilding, release, restoring, sync
from flows.commands.base import app

app.add_typer(quarantine.app, name="quarantine")

__all__ = ["app", "dashboard", "importing", "inspect", "operate", "rebuilding", "release", "restoring", "sync"]
