"""What an update of the mirror is planned to do: a table from manifest, changes and damaged files, no disk needed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from autosync.shards import Shard
from blocks.mirror.files import Header, Manifest
from blocks.mirror.plan import EVERYTHING, MirrorPlan, must_render_anew, plan_update
from blocks.store.history import Changes

A, D, M, T = SHARDS = [Shard(start, 100, 1000, f"{start:x<64}") for start in ("", "d", "m", "t")]
OLD = Manifest(
    format=1, collection="things", key=["/id"], seq=5, time=50.0, records=400, root="old", shards=SHARDS, since=2
)
VERSION = Header(from_=5, to=9, from_time=50.0, time=90.0, root="old", records=400)
INSERTED, UPDATED, DELETED = (True, None), (True, b"{}"), (False, b"{}")


def plan(
    old: Manifest | None, changes: Changes | None = None, damaged: tuple[int, ...] = (), *, upto: int = 9, **more: Any
) -> MirrorPlan:
    return plan_update(old, changes or {}, damaged, upto=upto, now=90.0, **{"records": 400} | more)


def partial(ranges: list[tuple[str, str | None]], changes: Changes, replaced: list[Shard]) -> MirrorPlan:
    """A plan that renders some shards again, writes the version file and keeps the other shards."""
    unchanged = tuple(shard for shard in SHARDS if shard not in replaced)
    return MirrorPlan(
        tuple(ranges), unchanged=unchanged, replaced=tuple(replaced), version=VERSION, changes=changes, since=2
    )


TOUCHED: dict[str, tuple[Changes, list[tuple[str, str | None]], list[Shard]]] = {
    "appended": ({"zz": INSERTED}, [("t", None)], [T]),
    "one record in the first file": ({"b": UPDATED}, [("", "d")], [A]),
    "one record in the middle": ({"n": UPDATED}, [("m", "t")], [M]),
    "two files beside each other": ({"e": UPDATED, "n": DELETED}, [("d", "t")], [D, M]),
    "two files apart": ({"b": UPDATED, "z": DELETED}, [("", "d"), ("t", None)], [A, T]),
    "every file": (dict.fromkeys("benz", UPDATED), [("", None)], [A, D, M, T]),
    "a first key changed": ({"m": UPDATED}, [("m", "t")], [M]),
    "a first key deleted joins two files": ({"m": DELETED}, [("d", "t")], [D, M]),
    "the very first key deleted": ({"": DELETED}, [("", "d")], [A]),
}


@pytest.mark.parametrize(("changes", "ranges", "replaced"), TOUCHED.values(), ids=TOUCHED)
def test_files_that_changes_touch_are_rendered(
    changes: Changes, ranges: list[tuple[str, str | None]], replaced: list[Shard]
) -> None:
    """Each run of them is one key range; the others stay; the version file leads back over the changes."""
    assert plan(OLD, changes) == partial(ranges, changes, replaced)


def test_nothing_changed_is_an_idle_plan() -> None:
    """No file is rendered, no version written."""
    found = plan(OLD, upto=5)
    assert found == MirrorPlan(unchanged=tuple(SHARDS), since=2) and found.idle


def test_a_seq_without_changes_renders_no_file_and_is_not_idle() -> None:
    """Manifest and versions follow the store's seq all the same."""
    found = plan(OLD)
    assert found == partial([], {}, []) and not found.idle


def test_a_damaged_file_is_rendered_without_any_change() -> None:
    """It is the only one, and no version comes of it."""
    found = plan(OLD, damaged=(2,), upto=5)
    assert found == MirrorPlan((("m", "t"),), unchanged=(A, D, T), replaced=(M,), damaged=(M,), since=2)
    assert not found.idle


def test_a_damaged_file_beside_a_changed_one() -> None:
    """Both are rendered as one range; only the damaged one is told as such."""
    found = plan(OLD, {"n": UPDATED}, damaged=(3,))
    assert found == replace(partial([("m", None)], {"n": UPDATED}, [M, T]), damaged=(T,))


def test_a_missing_manifest_renders_everything() -> None:
    """Nothing is known of what lies there: neither a version nor how far the versions lead back."""
    assert plan(None) == MirrorPlan((EVERYTHING,), anew=True)


ANEW: dict[str, dict[str, Any]] = {
    "another layout": {"records": 255},
    "an update that died": {"unfinished": True},
}


@pytest.mark.parametrize("state", ANEW.values(), ids=ANEW)
def test_what_can_not_be_built_upon_is_rendered_anew(state: dict[str, Any]) -> None:
    """Every file; the version file still leads back to the manifest's state."""
    found = plan(OLD, {"n": UPDATED}, **state)
    assert found == MirrorPlan(
        (EVERYTHING,), anew=True, replaced=tuple(SHARDS), version=VERSION, changes={"n": UPDATED}, since=2
    )
    assert not plan(OLD, upto=5, **state).idle


@pytest.mark.parametrize("upto", [3, 5, 9])
def test_a_store_that_was_put_back_leads_to_no_version(upto: int) -> None:
    """The mirror's state is none of the store's: no way leads back to it, whichever seq is the greater."""
    found = plan(OLD, upto=upto, diverged=True)
    assert found == MirrorPlan((EVERYTHING,), anew=True, replaced=tuple(SHARDS))


def test_an_empty_mirror_is_rendered_from_the_first_key_on() -> None:
    """There is no shard that a new record could fall into."""
    empty = msgspec.structs.replace(OLD, shards=[], records=0)
    assert plan(empty, {"a": INSERTED}, records=1).ranges == (EVERYTHING,)
    assert plan(empty, upto=5, records=0).idle


def test_a_manifest_of_an_older_release_is_where_proven_versions_begin() -> None:
    """It doesn't say how far its version files lead back; those from now on have a proof."""
    assert plan(msgspec.structs.replace(OLD, since=None), {"n": UPDATED}).since == 5


@pytest.mark.parametrize(
    ("old", "records", "state", "anew"),
    [
        (OLD, 400, {}, False),
        (OLD, 300, {}, False),
        (OLD, 255, {}, True),
        (OLD, 400, {"diverged": True}, True),
        (OLD, 400, {"unfinished": True}, True),
        (None, 400, {}, True),
    ],
)
def test_when_a_mirror_is_rendered_anew(old: Manifest | None, records: int, state: dict[str, bool], anew: bool) -> None:
    """Without a manifest that the store knows, with files in transition, or where files are cut differently."""
    assert must_render_anew(old, records, **{"diverged": False, "unfinished": False} | state) is anew
