"""A change in a few words, for the log, the report and the pages."""

from __future__ import annotations

from typing import Any

import msgspec

from autosync.records import canonical


def describe_change(row: dict[str, Any]) -> str:
    """An update as `field: old → new`, the first few fields, cut to a readable length."""
    if row["op"] != "update":
        return ""
    before, after = (msgspec.json.decode(row[side], type=dict[str, msgspec.Raw]) for side in ("before", "after"))
    names = differing(row["before"].encode(), row["after"].encode())
    parts = [f"{name}: {_cut(before.get(name))} → {_cut(after.get(name))}" for name in names[:3]]
    return "; ".join(parts) + (f"; and {len(names) - 3} more" if len(names) > 3 else "")


def _cut(value: msgspec.Raw | None, size: int = 40) -> str:
    text = "(none)" if value is None else bytes(value).decode()
    return text if len(text) <= size else text[: size - 1] + "…"


def differing(before: bytes, after: bytes) -> list[str]:
    """The top-level names whose values differ between two canonical documents."""
    old, new = (msgspec.json.decode(doc, type=dict[str, msgspec.Raw]) for doc in (before, after))
    return sorted(name for name in old.keys() | new.keys() if _raw(old, name) != _raw(new, name))


def _raw(doc: dict[str, msgspec.Raw], name: str) -> bytes | None:
    return canonical(doc[name]) if name in doc else None
