"""Whose a backup is, and which of a home's own are past their number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosync.backups import backup_name, divide, expired, has_backup_name, maker, next_number
from autosync.ports import Stored

HOME, OTHER = "0123456789abcdef", "f" * 16
UNMARKED = "autosync-20260101T000000Z-r7.db.gz"


def backup(number: int, time: float = 0.0, *, home: str = HOME, manifest: str | None = None) -> Stored:
    """A backup of a home; its manifest names that home unless told otherwise."""
    return Stored(backup_name(home, number, time, 1), 1, "", time, home if manifest is None else manifest)


@pytest.mark.parametrize(
    "name",
    [
        UNMARKED.upper(),
        f"{UNMARKED}.sha256",
        f" {UNMARKED}",
        f"{UNMARKED}\n",
        "autosync-old.db.gz",
        backup_name(HOME, 1, 0.0, 1).replace("-0000", "-٠٠٠٠"),
        backup_name(HOME[:-1], 1, 0.0, 1),
        "x.db.gz",
    ],
)
def test_only_the_exact_form_is_a_backups_name(name: str) -> None:
    """What merely looks like a backup has no maker, whatever lies beside it."""
    assert not has_backup_name(name)
    assert maker(Stored(name, 1, "", 0.0, HOME)) == ""


def test_name_and_manifest_must_agree() -> None:
    """The maker is who both name; a manifest alone, a name alone, or two different ids prove nothing."""
    assert has_backup_name(UNMARKED) and maker(backup(1)) == HOME
    assert maker(backup(1, manifest="")) == maker(backup(1, manifest=OTHER)) == ""
    assert maker(Stored(UNMARKED, 1, "", 0.0, HOME)) == ""


def test_backups_are_divided_by_their_maker() -> None:
    """One's own come by their number, whatever the clock said; the rest by time; what is no backup is left out."""
    old, forged, user = Stored(UNMARKED, 1, "", 5.0), backup(9, 4.0, manifest=""), Stored("x.db.gz", 1, "", 3.0)
    mine = [backup(1, 900.0), backup(2, 9.0), backup(10, 50.0)]
    found = divide([user, Stored("letter.txt", 1, "", 9.0), *mine, forged, backup(3, 6.0, home=OTHER), old], HOME)
    assert found.own == (mine[2], mine[1], mine[0])
    assert found.others == (backup(3, 6.0, home=OTHER), old, forged, user)
    assert found.unmarked == (old, forged)
    assert next_number(found.own) == 11 and next_number(()) == 1


def test_a_home_without_an_id_owns_nothing() -> None:
    """An empty id never meets the empty id of what nobody is proven to have made."""
    assert divide([Stored(UNMARKED, 1, "", 0.0), backup(1)], "").own == ()


@given(st.integers(0, 9), st.integers(-3, 12), st.sets(st.integers(1, 9)))
def test_the_newest_and_the_newest_good_one_never_go(count: int, keep: int, damaged: set[int]) -> None:
    """`keep` backups stay, at least the newest; the newest good one stays; without a good one all stay."""
    own = [backup(number) for number in range(count, 0, -1)]
    good = [one for number, one in zip(range(count, 0, -1), own, strict=True) if number not in damaged]
    gone = expired(own, keep, good.__contains__)
    assert not set(gone) & set(own[: max(keep, 1)]) and not set(gone) & set(good[:1])
    if good:
        assert set(own[max(keep, 1) :]) - set(gone) <= set(good[:1])
    else:
        assert gone == []


def test_nothing_is_read_while_nothing_is_past_its_number() -> None:
    """The bytes are looked at only before something is deleted, and no further than the newest good one."""
    own, read = [backup(number) for number in (4, 3, 2, 1)], list[Stored]()

    def good(one: Stored) -> bool:
        read.append(one)
        return True

    assert expired(own, 4, good) == [] and read == []
    assert expired(own, 2, good) == own[2:] and read == own[:1]
