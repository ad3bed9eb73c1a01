"""Rows of one input that can't all be taken: keys that stand more than once, values that must be unique and aren't."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest

from autosync.row_hashes import Recs


def suspects(key_hashes: npt.NDArray[np.uint64], refused_ids: set[str], taken: npt.NDArray[np.bool_]) -> list[int]:
    """Positions of rows whose key may stand more than once.

    Args:
        key_hashes: 64-bit XXH3 of each row's key; shape (rows,).
        refused_ids: Keys of rows that were refused.
        taken: Whether a row's record has another row that is as it was; shape (rows,).
    """
    ordered = np.sort(key_hashes)
    refused = np.array([xxh3_64_intdigest(id.encode()) for id in refused_ids], dtype=np.uint64)
    several = np.concatenate([ordered[1:][ordered[1:] == ordered[:-1]], refused])
    found = taken | np.isin(key_hashes, several) if len(several) else taken
    positions: list[int] = np.flatnonzero(found).tolist()
    return positions


def of_keys(
    rows: Mapping[int, tuple[str, bytes]],
    refused_ids: set[str],
    taken: npt.NDArray[np.bool_],
    place: Callable[[int], str],
) -> tuple[set[int], dict[int, str]]:
    """Equal rows with one key count once; different rows with one key are all refused.

    Args:
        rows: Position -> id and canonical form of the suspects.
        place: Where the row at a position stands in the input.

    Returns:
        Positions of repetitions, and positions that are refused with the reason.
    """
    groups: dict[str, list[int]] = {}
    for position in sorted(rows):
        groups.setdefault(rows[position][0], []).append(position)
    repeats, clashes = set[int](), dict[int, str]()
    for id, group in groups.items():
        docs = {rows[position][1] for position in group}
        if len(docs) > 1 or id in refused_ids or taken[group[0]]:
            places = ", ".join(place(position) for position in group[:5])
            clashes |= dict.fromkeys(group, f"the key {id!r} stands more than once with different content: {places}")
        else:
            repeats.update(group[1:])
    return repeats, clashes


def of_values(
    values: Mapping[str, Mapping[int, str]],
    held: Mapping[str, Mapping[str, tuple[int, str]]],
    recs: Recs,
    skip: set[int],
    deletes: set[int],
) -> dict[int, str]:
    """Positions -> why their unique value can't be taken, because another row or a record has it.

    A record that is rewritten or deleted lets go of its values; one whose row is refused keeps them, so that each
    refusal may cause more.

    Args:
        values: Pointer -> position -> value, for the fields that must be unique.
        held: Pointer -> value -> (rec, id) of the live record that has it.
        recs: The rows' records, 0 for new ones; shape (rows,).
        skip: Positions that are not written.
        deletes: Records that are deleted.
    """
    clashes = dict[int, str]()
    while held:
        out = skip | clashes.keys()
        taken = recs > 0
        taken[list(out)] = False
        free = deletes | set(recs[taken].tolist())
        more = [_of_field(text, values[text], out, free, holder) for text, holder in held.items()]
        if not any(more):
            break
        for found in more:
            clashes |= found
    return clashes


def _of_field(
    text: str, values: Mapping[int, str], out: set[int], free: set[int], held: Mapping[str, tuple[int, str]]
) -> dict[int, str]:
    users: dict[str, list[int]] = {}
    for position, value in values.items():
        if position not in out:
            users.setdefault(value, []).append(position)
    clashes: dict[int, str] = {}
    for value, positions in users.items():
        holder = held.get(value)
        if len(positions) > 1:
            clashes |= dict.fromkeys(positions, f"{text} must be unique; {value} stands {len(positions)} times")
        elif holder is not None and holder[0] not in free:
            clashes[positions[0]] = f"{text} must be unique; {value} belongs to {holder[1]!r}"
    return clashes
