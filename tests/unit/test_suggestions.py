"""Suggestions for mistaken names."""

from __future__ import annotations

from pathlib import Path

import pytest

from autosync.errors import ConfigError
from autosync.settings import read
from autosync.suggestions import choose_from, did_you_mean, nearest

SOURCE = '[[source]]\nname = "a"\nlocation = "a.json"\nkey = "/id"\n'


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("contcats", "contacts"),
        ("CONTACTS", "contacts"),
        ("readings2", "readings"),
        ("repository", "repo"),
        ("read", "readings"),
        ("zzz", ""),
        ("", ""),
    ],
)
def test_the_nearest_name(name: str, expected: str) -> None:
    """A slip of the fingers, another case, a beginning; nothing where nothing is near."""
    assert nearest(name, ["contacts", "readings", "repo"]) == expected


def test_what_to_do_names_the_nearest_and_the_others() -> None:
    """The sentence people read; a long list is cut."""
    assert did_you_mean("contact", ["contacts"]) == "did you mean 'contacts'?"
    assert choose_from("contact", ["a", "contacts"]) == "did you mean 'contacts'? Or use one of: a, contacts"
    assert choose_from("x", []) == "use one of: (there is none)"
    assert choose_from("zzz", [f"n{number}" for number in range(15)]).endswith("n11 and 3 more")


def test_a_question_ends_an_error_without_a_full_stop() -> None:
    """`did you mean ...?` keeps its own mark."""
    assert str(ConfigError("wrong", todo="did you mean 'a'?")) == "wrong. What to do: did you mean 'a'?"


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        (SOURCE.replace("source", "sources"), "source"),
        ('[psh]\nurl = "x"\n', "push"),
        (SOURCE + "shedule = 5\n", "schedule"),
        (SOURCE + "[source.gaurd]\nmax_delete = 1\n", "guard"),
        (SOURCE + "[source.guard]\nmax_deletes = 1\n", "max_delete"),
        (SOURCE + "[[source.expect.dataset]]\nexpct = 'x'\n", "expect"),
        (SOURCE + "[source.expect]\ntypes = { '/a' = 'strng' }\n", "string"),
        (SOURCE + "[source.expect]\ntypes = { '/a' = ['integer', 'nul'] }\n", "null"),
        (SOURCE + "mode = 'snapshoot'\n", "snapshot"),
        ("[report]\nlanguage = 'EN'\n", "en"),
    ],
)
def test_a_misspelt_setting_suggests_the_nearest_at_its_place(tmp_path: Path, text: str, setting: str) -> None:
    """Unknown fields and values of autosync.toml, at any depth."""
    (tmp_path / "autosync.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read(tmp_path / "autosync.toml")
    assert f"did you mean {setting!r}?" in caught.value.todo


def test_a_misspelt_configuration_file_suggests_the_one_beside_it(tmp_path: Path) -> None:
    """`--config autosnyc.toml`."""
    (tmp_path / "autosync.toml").write_text(SOURCE)
    with pytest.raises(ConfigError, match=r"did you mean 'autosync\.toml'\?"):
        read(tmp_path / "autosnyc.toml")
