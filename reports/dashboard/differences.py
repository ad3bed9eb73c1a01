"""What differs between two records, per JSON Pointer, without losing a digit of any number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import msgspec

__all__ = ["MOST", "Difference", "differences"]

MOST = 500
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
    for name in sorted(old.keys() | new.keys()):
        place = f"{path}/{name.replace('~', '~0').replace('/', '~1')}"
        if name not in new:
            yield Difference("remove", place, old[name], None)
        elif name not in old:
            yield Difference("add", place, None, new[name])
        else:
            yield from _compare(bytes(old[name]), bytes(new[name]), place)


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
