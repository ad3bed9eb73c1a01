"""Which fields a collection's records have: what its view shows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import chain

import numpy as np

from autosync.records import Document, items


class Fields:
    """Collects names at the top of records, and names inside objects there."""

    def __init__(self) -> None:
        self._names: dict[str, dict[str, None]] = {}  # name -> the names inside its objects

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
        for name in _new_names(docs, self._names):
            self._names[name] = {}
        known = [name for name, inner in self._names.items() if inner]
        if len(docs) + sum(self._note_inner(name, docs) for name in known) != _objects(text):
            for name in self._names:
                self._note_inner(name, docs)

    def _note_inner(self, name: str, docs: Sequence[Document]) -> int:
        """Note the names inside the objects that a name holds; how many objects these are."""
        objects = items(docs, name)
        if set(map(type, objects)) != {dict}:
            objects = [item for item in objects if type(item) is dict]
        self._names[name] |= dict.fromkeys(_new_names(objects, self._names[name]))
        return len(objects)


def _new_names(objects: Sequence[Document], known: Collection[str]) -> list[str]:
    """The names in some objects that are not known yet, in the order in which they stand there."""
    if set[str]().union(*objects).issubset(known):
        return []
    return [name for name in dict.fromkeys(chain.from_iterable(objects)) if name not in known]


def inner_fields(paths: Collection[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Different paths in their order, without those of which others tell the names inside."""
    outer = {path[0] for path in paths if len(path) > 1}
    return [path for path in dict.fromkeys(paths) if len(path) > 1 or path[0] not in outer]


def _objects(text: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(text, dtype=np.uint8) == ord("{")))
