"""Which fields a collection's records have: what its view shows."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from autosync.records import Document, items


class Fields:
    """Collects names at the top of records, and names inside objects there."""

    def __init__(self) -> None:
        self._names: dict[str, dict[str, None]] = {}  # name -> the names inside its objects
        self._shapes: set[tuple[str, ...]] = set()

    @property
    def paths(self) -> list[tuple[str, ...]]:
        """Every field's path; of a name that ever holds an object with names, those are the fields."""
        paths = list[tuple[str, ...]]()
        for name, inner in self._names.items():
            paths += [(name, one) for one in inner] if inner else [(name,)]
        return paths

    def note(self, docs: Sequence[Document], text: bytes) -> None:
        """Note the fields of documents.

        Args:
            text: Their canonical forms: as many { as objects that are known say that there is no other.
        """
        for shape in set(map(tuple, docs)) - self._shapes:
            self._shapes.add(shape)
            self._names |= {name: {} for name in shape if name not in self._names}
        known = [name for name, inner in self._names.items() if inner]
        if len(docs) + sum(self._note_inner(name, docs) for name in known) != _objects(text):
            for name in self._names:
                self._note_inner(name, docs)

    def _note_inner(self, name: str, docs: Sequence[Document]) -> int:
        """Note the names inside the objects that a name holds; how many objects these are."""
        objects = [item for item in items(docs, name) if type(item) is dict]
        for shape in set(map(tuple, objects)):
            self._names[name] |= dict.fromkeys(shape)
        return len(objects)


def inner_fields(paths: Collection[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Different paths in their order, without those of which others tell the names inside."""
    outer = {path[0] for path in paths if len(path) > 1}
    return [path for path in dict.fromkeys(paths) if len(path) > 1 or path[0] not in outer]


def _objects(text: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(text, dtype=np.uint8) == ord("{")))
