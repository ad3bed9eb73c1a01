"""What dataset checks decide before Great Expectations is needed."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from autosync.records import Document, parse
from autosync.settings import DatasetCheck
from blocks.quality import expectations, validator_state
from blocks.quality.expectations import Verdict, validate
from blocks.quality.validator_state import State

CHECK = DatasetCheck(expect="expect_column_mean_to_be_between", column="/n", args={"min_value": 0})


def frame(documents: list[dict[str, Any]], *checks: DatasetCheck) -> Any:
    rows: list[tuple[str, Document]] = [(str(n), parse(json.dumps(d).encode())[0]) for n, d in enumerate(documents)]
    return expectations._frame(rows, checks)


def column(*values: Any) -> Any:
    """The frame's column for values at /n."""
    return frame([{"n": value} for value in values], CHECK)["/n"]


@pytest.mark.parametrize("module", ["blocks.quality.expectations", "blocks.quality.validator"])
def test_import_is_cheap(module: str) -> None:
    """Importing the module loads neither Great Expectations nor pandas."""
    code = f"import sys, {module}; print([m for m in sys.modules if m in ('great_expectations', 'pandas')])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize(("rows", "checks"), [([], [CHECK]), ([("a", b'{"n":1}')], [])])
def test_nothing_to_check(rows: list[tuple[str, bytes]], checks: list[DatasetCheck], tmp_path: Path) -> None:
    """A batch that only deletes, or a source without checks, passes and writes nothing."""
    assert validate(rows, checks, tmp_path / "docs", "things") == Verdict(ok=True)
    assert not (tmp_path / "docs").exists()


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (["007", None], "str"),
        ([1, 2], "int64"),
        ([1, None], "Int64"),
        ([2**53 + 1, 2], "Int64"),
        ([2**70, 2], "object"),
        ([0.5, 2], "float64"),
        ([0.5, 2**53 + 1], "object"),
        ([True, None], "boolean"),
        ([1, "1"], "object"),
        ([None, None], "object"),
        ([{"a": 1}, None], "str"),
    ],
)
def test_types(values: list[Any], dtype: str) -> None:
    """A column's type follows from its values alone."""
    assert str(column(*values).dtype) == dtype


def test_nothing_is_lost() -> None:
    """Numbers keep every digit beside a null, zeros in front stay, an object becomes its canonical text."""
    assert column(2**53 + 1, None)[0] == 2**53 + 1
    assert column(2**70 + 1, None)[0] == 2**70 + 1
    assert column("007")[0] == "007"
    assert column({"b": 1.0, "a": "مریم"})[0] == '{"a":"مریم","b":1.0}'


def test_a_missing_column_is_null_unless_it_must_exist() -> None:
    """A field that no changed row has is a column of nulls, but left out where a check wants it to exist."""
    assert frame([{"a": 1}], CHECK)["/n"].isna().all()
    assert "/n" not in frame([{"a": 1}], CHECK, DatasetCheck(expect="expect_column_to_exist", column="/n"))


def test_date_bounds_make_times() -> None:
    """A column that is compared with a date holds times in UTC; what is no date stays as it is."""
    check = DatasetCheck(expect="expect_column_values_to_be_between", column="/d", args={"min_value": "2024-01-01"})
    found = frame([{"d": "2024-02-02T01:00:00+03:30"}, {"d": "2024-01-02"}, {"d": "soon"}], check)["/d"]
    assert list(found) == [datetime(2024, 2, 1, 21, 30), datetime(2024, 1, 2), "soon"]


def test_columns_of_every_argument() -> None:
    """Columns are found wherever Great Expectations lets them be named; a plain name is a pointer."""
    checks = [
        DatasetCheck(expect="x", column="a"),
        DatasetCheck(expect="x", args={"column_A": "/b", "column_B": "c"}),
        DatasetCheck(expect="x", args={"column_list": ["/d", "/e"]}),
        DatasetCheck(expect="x", column="/a", args={"row_condition": 'col("/f") > 1 and col("/g/h") == 2'}),
    ]
    assert set(expectations._pointers(checks)) == {"/a", "/b", "/c", "/d", "/e", "/f", "/g/h"}


def test_a_state_file_without_lock_is_stale(tmp_path: Path) -> None:
    """A state file counts only while its validator lives, even when the process number is somebody's."""
    state = tmp_path / "validator.json"
    assert not validator_state.ready(state)
    validator_state.write(state, State(os.getpid(), 1, "00", ready=True))
    assert not validator_state.ready(state)
    held = validator_state.claim(state)
    assert held is not None
    assert validator_state.ready(state)
    assert validator_state.claim(state) is None
    os.close(held)
    assert not validator_state.ready(state)


def test_the_key_is_private(tmp_path: Path) -> None:
    """Only the owner can read the state file, and the key doesn't show when a state is printed."""
    note = State(1, 2, "c0ffee", ready=False)
    validator_state.write(tmp_path / "s", note)
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
    assert validator_state.read(tmp_path / "s") == note
    assert "c0ffee" not in repr(note)
