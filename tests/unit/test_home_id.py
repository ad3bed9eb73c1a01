"""The id of a home: made once, read back, not taken along by a copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from autosync.errors import StoreError
from blocks import home_id


def test_an_id_is_made_once(tmp_path: Path) -> None:
    """The first claim makes it, later ones read it; two homes differ; only its user may read the file."""
    path = tmp_path / "home-id.json"
    assert home_id.read(path) == ""
    mine = home_id.claim(path)
    assert home_id.claim(path) == home_id.read(path) == mine
    assert home_id.claim(tmp_path / "other.json") != mine
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(file.name for file in tmp_path.iterdir()) == ["home-id.json", "other.json"]


def test_a_copy_gets_an_id_of_its_own(tmp_path: Path) -> None:
    """A copied file is no id; the copy's claim leaves the first one alone. A renamed one stays what it is."""
    first, copy, moved = tmp_path / "a.json", tmp_path / "b.json", tmp_path / "c.json"
    mine = home_id.claim(first)
    shutil.copy2(first, copy)
    assert home_id.read(copy) == ""
    assert home_id.claim(copy) not in ("", mine)
    first.rename(moved)
    assert home_id.read(moved) == mine


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"{}", b'{"id": 1, "inode": 1}'])
def test_what_is_no_id_is_replaced(tmp_path: Path, data: bytes) -> None:
    """A damaged file owns nothing; the next backup makes a new id."""
    path = tmp_path / "home-id.json"
    path.write_bytes(data)
    assert home_id.read(path) == ""
    assert home_id.claim(path) == home_id.read(path) != ""


def test_an_id_of_another_form_is_none(tmp_path: Path) -> None:
    """Only sixteen hex digits are an id: it becomes part of file names."""
    path = tmp_path / "home-id.json"
    path.touch()
    path.write_text(f'{{"id": "../../etc/passwd", "inode": {path.stat().st_ino}}}')
    assert home_id.read(path) == ""


def test_an_unwritable_home_is_told(tmp_path: Path) -> None:
    """Without a folder to write to the error names the file and the next step."""
    with pytest.raises(StoreError, match="What to do"):
        home_id.claim(tmp_path / "nowhere" / "home-id.json")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="can't be read"):
        home_id.read(tmp_path / "folder")
