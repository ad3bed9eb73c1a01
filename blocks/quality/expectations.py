"""Dataset checks: Great Expectations on the changed rows of a batch, with Data Docs.

Importing this module is cheap; Great Expectations and pandas are imported by the first `validate`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from autosync.errors import ConfigError
from autosync.records import Document, Pointer, canonical, parse
from autosync.settings import DatasetCheck
from autosync.suggestions import did_you_mean
from blocks.quality.data_docs import joined, publish, raised

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.core import ExpectationSuiteValidationResult, ExpectationValidationResult
    from great_expectations.expectations.expectation import Expectation

Row = tuple[str, Document]

ID = "record"
_DATABASE = "expect_query_results_to_match_comparison expect_table_row_count_to_equal_other_table".split()
_DATABASE += ["unexpected_rows_expectation"]
_COLUMNS = "expect_table_column_count_to_be_between expect_table_column_count_to_equal".split()
_COLUMNS += "expect_table_columns_to_match_ordered_list expect_table_columns_to_match_set".split()
_ABSENT = object()


class Verdict(msgspec.Struct, frozen=True):
    """What the checks of one batch found.

    Attributes:
        ok: Whether every check passed.
        failures: One sentence a failed check.
        refused: Record id -> reason, for the rows that failed checks name.
        docs: The Data Docs page; empty when there was nothing to check.
        whole: The failures that name no rows, so that they speak against the batch as a whole.
    """

    ok: bool
    failures: list[str] = []
    refused: dict[str, str] = {}
    docs: str = ""
    whole: list[str] = []


def validate(rows: Iterable[tuple[str, bytes]], checks: Sequence[DatasetCheck], docs: Path, name: str) -> Verdict:
    """Check changed rows, given as id and canonical JSON.

    Args:
        docs: Folder whose `index.html` becomes the Data Docs of this check.
        name: What the checks are called there: the source.

    Raises:
        ConfigError: A check doesn't exist, or its arguments are wrong.
        StoreError: The Data Docs can't be written.
    """
    records = [(id, parse(doc)[0]) for id, doc in rows]
    if not records or not checks:
        return Verdict(ok=True)
    load()
    expectations = [_expectation(check, n) for n, check in enumerate(checks)]
    result = _run(records, checks, expectations, name)
    failures, whole, refused = list[str](), list[str](), dict[str, list[str]]()
    for one in sorted(result.results, key=_position):
        if not one.success:
            sentence, named = _explain(checks[_position(one)], one)
            failures.append(sentence)
            whole += [] if named else [sentence]
            for id, reason in named.items():
                refused.setdefault(id, []).append(reason)
    page = publish(result, docs)
    reasons = {id: "; ".join(texts) for id, texts in refused.items()}
    return Verdict(ok=not failures, failures=failures, refused=reasons, docs=str(page), whole=whole)


def load() -> None:
    """Import Great Expectations, which takes seconds; it sends no statistics and logs no traces of its pages."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import logging

    import great_expectations.expectations
    import great_expectations.render.renderer.page_renderer
    import great_expectations.render.view.view  # noqa: F401  # warm, so that the first batch doesn't wait for it

    logging.getLogger("great_expectations").setLevel(logging.CRITICAL)


# Checks


def _column(text: str) -> str:
    return text if text.startswith("/") else "/" + text


def _moment(value: Any) -> datetime | None:
    """An ISO date or time as UTC without zone, as bounds and values must agree on that; None for anything else."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) and len(value) >= 10 else None
    except ValueError:
        return None
    return moment.astimezone(UTC).replace(tzinfo=None) if moment and moment.tzinfo else moment


def _args(check: DatasetCheck) -> dict[str, Any]:
    """The expectation's arguments: columns by their pointers, dates as times (a bare date would not compare)."""
    args: dict[str, Any] = msgspec.to_builtins(check.args)
    if check.column is not None:
        args["column"] = check.column
    for name, value in args.items():
        if name in ("column", "column_A", "column_B") and isinstance(value, str):
            args[name] = _column(value)
        elif name == "column_list" and isinstance(value, list):
            args[name] = [_column(text) for text in value]
        elif name in ("min_value", "max_value") and (moment := _moment(value)):
            args[name] = moment.isoformat()
    if args.get("row_condition"):
        args.setdefault("condition_parser", "great_expectations")  # the only one that can name a pointer
    return args


def _dated(check: DatasetCheck) -> bool:
    return any(_moment(value) for name, value in _args(check).items() if name in ("min_value", "max_value"))


def _expectation(check: DatasetCheck, position: int) -> Expectation:
    from great_expectations.exceptions.exceptions import ExpectationNotFoundError, GreatExpectationsError
    from great_expectations.expectations.registry import (
        get_expectation_impl,
        list_registered_expectation_implementations,
    )

    name, where = check.expect, f"source.expect.dataset {position + 1}"
    if name in _DATABASE or name in _COLUMNS:
        todo = "use the row checks `required` and `types`" if name in _COLUMNS else "leave it out"
        raise ConfigError(f"the check {name!r} can't be used on changed records", where=where, todo=todo)
    try:
        made: Expectation = get_expectation_impl(name)(**{**_args(check), "meta": {"position": position}})
    except ExpectationNotFoundError:
        question = did_you_mean(name, list_registered_expectation_implementations())
        todo = question or "see the list in the Great Expectations gallery"
        raise ConfigError(f"there is no check {name!r}", where=where, todo=todo) from None
    except (ValueError, TypeError, GreatExpectationsError) as error:
        details: list[Any] = getattr(error, "errors", list)()
        told = dict.fromkeys(f"{'/'.join(map(str, one['loc']))}: {one['msg']}" for one in details)
        raise ConfigError(f"the check {name!r} has wrong arguments: {'; '.join(told) or error}", where=where) from None
    return made


# Frame


def _plain(value: Any) -> Any:
    """A parsed value as a frame takes it: numbers without loss, objects and arrays as canonical text."""
    if isinstance(value, msgspec.Raw):
        text = bytes(value).decode()
        return float(text) if re.search("[.eE]", text) or len(text) > 4000 else int(text)
    return canonical(value).decode() if isinstance(value, (dict, list)) else value


def _series(values: list[Any]) -> pd.Series[Any]:
    """Values as a column whose type follows from them, never by guessing: no digit is lost, "007" stays text."""
    import pandas as pd

    kinds = {type(value) for value in values} - {type(None)}
    whole = [value for value in values if type(value) is int]
    large = any(abs(value) > 2**53 for value in whole)
    dtype: Any = object
    if kinds == {str}:
        dtype = "str"
    elif kinds == {bool}:
        dtype = "boolean"
    elif kinds == {int} and all(-(2**63) <= value < 2**63 for value in whole):
        dtype = "Int64" if large or None in values else "int64"
    elif kinds and kinds <= {int, float} and not large:
        dtype = "float64"
    column: pd.Series[Any] = pd.Series(values, dtype=dtype)
    return column


def _pointers(checks: Iterable[DatasetCheck]) -> Iterator[str]:
    for args in map(_args, checks):
        yield from (args[name] for name in ("column", "column_A", "column_B") if name in args)
        yield from args.get("column_list", [])
        yield from re.findall(r"""col\(["']([^"']+)["']\)""", str(args.get("row_condition") or ""))


def _frame(rows: Sequence[Row], checks: Sequence[DatasetCheck]) -> pd.DataFrame:
    """The columns that the checks name, beside the record's id."""
    import pandas as pd

    needed = {_column(check.column or "") for check in checks if check.expect == "expect_column_to_exist"}
    dates = {_column(check.column or "") for check in checks if _dated(check)}
    columns = {ID: pd.Series([id for id, _ in rows], dtype="str")}
    for text in dict.fromkeys(_pointers(checks)):
        pointer = Pointer(text)
        found = [pointer.get(doc, _ABSENT) for _, doc in rows]
        if text in needed and all(value is _ABSENT for value in found):
            continue
        values = [None if value is _ABSENT else _plain(value) for value in found]
        if text in dates:
            columns[text] = pd.Series([_moment(value) or value for value in values], dtype=object)
        else:
            columns[text] = _series(values)
    return pd.DataFrame(columns)


# Run


def _run(
    rows: Sequence[Row], checks: Sequence[DatasetCheck], expectations: Sequence[Expectation], name: str
) -> ExpectationSuiteValidationResult:
    """Run the checks; those with date bounds see their columns as times, all others as text."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("changed rows").add_dataframe_asset(name)
    whole = asset.add_batch_definition_whole_dataframe("batch")
    form = {"result_format": "COMPLETE", "unexpected_index_column_names": [ID]}
    results, meta = list[Any](), None
    for dated in (False, True):
        if chosen := [n for n, check in enumerate(checks) if _dated(check) == dated]:
            suite = gx.ExpectationSuite(name=name, expectations=[expectations[n] for n in chosen])
            batch = whole.get_batch({"dataframe": _frame(rows, [checks[n] for n in chosen])})
            found = batch.validate(suite, result_format=form)
            results, meta = results + found.results, found.meta
    return joined(results, name, meta)


# Sentences


def _position(result: ExpectationValidationResult) -> int:
    position: int = (result.expectation_config.meta or {})["position"]  # type: ignore[union-attr]  # always set
    return position


def _show(value: Any) -> str:
    """A value as JSON, cut to a readable length."""
    import pandas as pd

    if hasattr(value, "item"):
        value = value.item()
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "null"
    with suppress(msgspec.ValidationError, TypeError, OverflowError):
        value = msgspec.json.encode(value, enc_hook=str).decode()
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _explain(check: DatasetCheck, result: ExpectationValidationResult) -> tuple[str, dict[str, str]]:
    """A failed check as a sentence, and why each row that it names is refused."""
    args = _args(check)
    columns = args.get("column_list") or [args[name] for name in ("column", "column_A", "column_B") if name in args]
    rest = ", ".join(f"{name} {_show(value)}" for name, value in check.args.items() if not name.startswith("column"))
    wish = check.expect.removeprefix("expect_").replace("_", " ") + (f" ({rest})" if rest else "")
    wish = f"{', '.join(columns) or 'the changed rows'}: expected {wish}"
    if trouble := raised(result):
        return f"{wish}; this could not be found out: {trouble}", {}
    found = result.result
    named = {
        str(row[ID]): f"{wish}; found {', '.join(_show(value) for name, value in row.items() if name != ID)}"
        for row in found.get("unexpected_index_list") or []
    }
    if named:
        return f"{wish}; {found['unexpected_count']} of {found['element_count']} rows differ", named
    value = found.get("observed_value")
    return f"{wish}; {'no changed row has a value' if value is None else f'found {_show(value)}'}", {}
