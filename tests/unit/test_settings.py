"""autosync.toml: typed, checked, every fault told with file and place."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from autosync.errors import ConfigError
from autosync.settings import RESERVED, Settings, read
from blocks.store.schema import connect

SOURCE = '[[source]]\nname = "a"\nlocation = "a.json"\nkey = "/id"\n'


def told(folder: Path, text: str | bytes) -> str:
    """What reading this configuration says."""
    path = folder / "autosync.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert str(path) in caught.value.where
    return str(caught.value)


def taken(folder: Path, text: str) -> Settings:
    path = folder / "autosync.toml"
    path.write_text(text)
    return read(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[source]\n", "line 1"),
        (SOURCE + "colour = 1\n", "colour"),
        ('[[source]]\nname = "a"\n', "location"),
        (SOURCE.replace('"/id"', "7"), "key"),
        (SOURCE.replace('"/id"', "[]"), "a key is needed"),
        (SOURCE + 'mode = "sometimes"\n', "sometimes"),
        (SOURCE + "timeout = true\n", "timeout"),
        (SOURCE + "[source.guard]\nmax_delete = 20\n", "between 0 and 1"),
        (SOURCE + "[source.guard]\nmax_refuse = -0.1\n", "between 0 and 1"),
        (SOURCE + "[source.guard]\nmax_delete = nan\n", "between 0 and 1"),
        (SOURCE + "[source.expect]\npatterns = { '/a' = '(' }\n", "no regular expression"),
        (SOURCE + "[source.expect]\ntypes = { '/a' = 'text' }\n", "text"),
        (SOURCE.replace('"a"', '"a b"'), "can't be used"),
        (SOURCE.replace('"a"', '"1a"'), "can't be used"),
        (SOURCE.replace('"a"', '"../a"'), "can't be used"),
        (SOURCE.replace('"a"', f'"{"a" * 64}"'), "can't be used"),
        (SOURCE + 'collection = "../x"\n', "can't be used"),
        (SOURCE.replace('"a"', '"Record"'), "own tables"),
        (SOURCE.replace('"a"', '"sqlite_a"'), "own tables"),
        (SOURCE + SOURCE, "two sources use"),
        (SOURCE + SOURCE.replace('"a"', '"A"'), "two sources use"),
        (SOURCE + SOURCE.replace('"a"', '"b"') + 'collection = "A"\n', "two sources use"),
        (b'name = "caf\xe9"', "can't be read"),
    ],
)
def test_a_wrong_configuration_is_told_with_its_place(tmp_path: Path, text: str | bytes, words: str) -> None:
    """Unknown and wrong settings, bad names, two sources of one collection: nothing is guessed."""
    assert words in told(tmp_path, text)


def test_a_missing_configuration_says_what_to_do(tmp_path: Path) -> None:
    """The file's name, and that one can be named with --config."""
    with pytest.raises(ConfigError, match=r"no configuration file.*autosync\.toml.*--config"):
        read(tmp_path / "autosync.toml")


def test_a_source_needs_three_settings(tmp_path: Path) -> None:
    """Name, location and key; everything else has a default."""
    settings = taken(tmp_path, SOURCE)
    source = settings.source[0]
    assert (source.into, source.keys, source.mode) == ("a", ["/id"], "snapshot")
    assert (source.guard.max_delete, source.guard.max_refuse) == (0.2, 0.5)
    assert settings.push.branch == "main" and settings.backup.keep == 14


def test_an_empty_configuration_has_no_sources(tmp_path: Path) -> None:
    """It is a configuration all the same."""
    assert taken(tmp_path, "").source == []


def test_sources_are_chosen_by_name(tmp_path: Path) -> None:
    """In the order asked for; all when none is named; an unknown name lists the known ones."""
    settings = taken(tmp_path, SOURCE + SOURCE.replace('"a"', '"b"'))
    assert [source.name for source in settings.named(["b", "a"])] == ["b", "a"]
    assert [source.name for source in settings.named([])] == ["a", "b"]
    with pytest.raises(ConfigError, match=r"no source 'c'.*a, b"):
        settings.named(["c"])


def test_settings_do_not_change(tmp_path: Path) -> None:
    """A run works with what it read when it began."""
    settings = taken(tmp_path, SOURCE)
    with pytest.raises(AttributeError):
        settings.source[0].name = "b"  # type: ignore[misc]


def test_no_collection_can_take_the_name_of_one_of_our_tables(tmp_path: Path) -> None:
    """Whatever a database of ours holds, tables, indexes and views, is reserved."""
    db: sqlite3.Connection = connect(tmp_path / "autosync.db")
    ours = {row[0] for row in db.execute("SELECT name FROM sqlite_master")}
    db.close()
    assert {name for name in ours if not name.startswith("sqlite_")} <= RESERVED
