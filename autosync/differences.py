"""Differences of two records: per JSON Pointer, by top-level field, and in a few words; no digit is lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import msgspec

__all__ = ["MOST", "Difference", "changed_fields", "describe_change", "differences"]

MOST, NAMED, LENGTH = 500, 3, 40
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])


@dataclass(frozen=True)
class Difference:
    """One place that differs. `old` is null for `add`, `new` for `remove`."""

    op: Literal["add", "remove", "replace"]
    path: str
    old: Any
    new: Any


def differences(before: msgspec.Raw, after: msgspec.Raw) -> list[Difference]:
    """The places where two canonical JSON values differ, at most `MOST`; values are raw JSON."""
    return list(islice(_compare(bytes(before), bytes(after), ""), MOST))


def changed_fields(before: bytes, after: bytes) -> list[str]:
    """The top-level names whose values differ between two canonical documents, sorted."""
    return [name for name, _, _ in _changed(_OBJECT.decode(before), _OBJECT.decode(after))]


def describe_change(op: str, before: str | None, after: str | None) -> str:
    """An update as `field: old → new`, the first few fields, cut to a readable length; "" for any other change."""
    if op != "update" or before is None or after is None:
        return ""
    changed = list(_changed(_OBJECT.decode(before), _OBJECT.decode(after)))
    parts = [f"{name}: {_cut(old)} → {_cut(new)}" for name, old, new in changed[:NAMED]]
    return "; ".join(parts) + (f"; and {len(changed) - NAMED} more" if len(changed) > NAMED else "")


def _cut(value: bytes | None) -> str:
    text = "(none)" if value is None else value.decode()
    return text if len(text) <= LENGTH else text[: LENGTH - 1] + "…"


def _changed(
    old: dict[str, msgspec.Raw], new: dict[str, msgspec.Raw]
) -> Iterator[tuple[str, bytes | None, bytes | None]]:
    """(name, old value, new value) of the names whose values differ, sorted; None where there is none."""
    for name in sorted(old.keys() | new.keys()):
        before, after = (bytes(side[name]) if name in side else None for side in (old, new))
        if before != after:
            yield name, before, after


def _compare(old: bytes, new: bytes, path: str) -> Iterator[Difference]:
    if old == new:
        return
    if old[:1] == new[:1] == b"{":
        yield from _objects(_OBJECT.decode(old), _OBJECT.decode(new), path)
    elif old[:1] == new[:1] == b"[":
        yield from _arrays([bytes(item) for item in _ARRAY.decode(old)], [bytes(i) for i in _ARRAY.decode(new)], path)
    else:
        yield Difference("replace", path, msgspec.Raw(old), msgspec.Raw(new))


def _objects(old: dict[str, msgspec.Raw], new: dict[str, msgspec.Raw], path: str) -> Iterator[Difference]:
    for name, before, after in _changed(old, new):
        pointer = f"{path}/{name.replace('~', '~0').replace('/', '~1')}"
        if after is None:
            yield Difference("remove", pointer, old[name], None)
        elif before is None:
            yield Difference("add", pointer, None, new[name])
        else:
            yield from _compare(before, after, pointer)


def _arrays(old: list[bytes], new: list[bytes], path: str) -> Iterator[Difference]:
    """Equal beginnings and ends are left out, so that one item put in between is one difference."""
    start = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    gone, come = old[start : len(old) - end], new[start : len(new) - end]
    for place in range(max(len(gone), len(come))):
        pointer = f"{path}/{start + place}"
        if place >= len(come):
            yield Difference("remove", pointer, msgspec.Raw(gone[place]), None)
        elif place >= len(gone):
            yield Difference("add", pointer, None, msgspec.Raw(come[place]))
        else:
            yield from _compare(gone[place], come[place], pointer)
