"""Parsing with the help of a second process: the same answers, whatever becomes of that process."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from autosync.parsing import Parsed, RowParser
from autosync.settings import Expect, Source
from blocks.sources.parser_process import SLOT_BYTES, ProcessParser

SOURCE = Source(
    name="things", location="things.jsonl", key="/id", expect=Expect(types={"/n": "integer"}, unique=["/u"])
)
CHUNKS = [
    [b'{"id": "%d-%d", "n": %d, "u": "%d", "o": {"x": 1}}\n' % (chunk, n, n, n) for n in range(200)]
    for chunk in range(30)
] + [[b'{"id": "a"}\n', b"{\n", b'{"id": "b", "n": "x"}\n'], [b'{"id": "\xff"}\n'], [b"\n"]]


@pytest.fixture
def parser(tmp_path: Path) -> Iterator[ProcessParser]:
    """A parser whose second process has started and taken its first rows."""
    parser = ProcessParser(SOURCE, tmp_path, start_after=0)
    start(parser)
    yield parser
    parser.close()


def start(parser: ProcessParser) -> None:
    """Give a parser rows until its second process takes some."""
    end = time.monotonic() + 60
    while not parser.helped:
        assert time.monotonic() < end
        assert facts(parser.submit(CHUNKS[0])()) == expected(CHUNKS[0])


def facts(parsed: Parsed) -> tuple[object, ...]:
    return parsed.rows, parsed.ids, parsed.docs, parsed.uniques, parsed.refused


def expected(rows: list[bytes]) -> tuple[object, ...]:
    return facts(RowParser(SOURCE).parse(rows))


def helpers() -> list[psutil.Process]:
    """The second processes that run and descend from this one."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # another test's that has ended, and that nobody has waited for
            found += [child] if "blocks.sources.parser_process" in child.cmdline() else []
    return found


def test_answers_are_those_of_one_process(parser: ProcessParser) -> None:
    """Rows that are taken, refused, empty, not UTF-8: wherever they were parsed, and in whatever order one asks."""
    answers: list[Callable[[], Parsed]] = [parser.submit(rows) for rows in CHUNKS]
    assert len(helpers()) == 1 and parser.helped > 1
    told = [facts(answer()) for answer in reversed(answers)]
    assert told[::-1] == [expected(rows) for rows in CHUNKS]


def test_fields_of_all_answers_are_all_fields(parser: ProcessParser) -> None:
    """Each process tells those it has seen."""
    fields = {path for answer in [parser.submit(rows) for rows in CHUNKS] for path in answer().fields}
    assert parser.helped > 1
    assert fields == {("id",), ("n",), ("u",), ("o", "x")}


def test_a_helper_that_dies_costs_nothing_but_time(parser: ProcessParser) -> None:
    """Killed with rows in hand, then asked for them, and given more: all rows are parsed all the same."""
    answers = [parser.submit(rows) for rows in CHUNKS[:3]]
    assert parser.helped == 4
    for process in helpers():
        process.kill()
        process.wait()
    answers += [parser.submit(rows) for rows in CHUNKS[3:]]
    assert [facts(answer()) for answer in answers] == [expected(rows) for rows in CHUNKS]


def test_rows_and_answers_that_do_not_fit_are_parsed_here(parser: ProcessParser) -> None:
    """A chunk larger than its place in the exchange file stays here; so does one whose answer is larger."""
    large = [b'{"id": "%d", "text": "%b"}\n' % (n, b"x" * (SLOT_BYTES // 8)) for n in range(10)]
    long_ids = [b'{"id":"%d%b"}' % (n, b"x" * 980) for n in range(SLOT_BYTES // 1000)]
    for rows in (large, long_ids):
        assert facts(parser.submit(rows)()) == expected(rows)
    assert parser.helped == 2  # the long ids went there, and came back


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """After its end neither the process nor the exchange file is there."""
    parser = ProcessParser(SOURCE, tmp_path, start_after=0)
    start(parser)
    (helper,) = helpers()
    parser.close()
    assert not helper.is_running() and not list(tmp_path.iterdir())


def test_nobody_waits_for_a_process_that_is_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it says that it is ready all rows are parsed here."""
    program = tmp_path / "never-ready"
    program.write_text("#!/bin/sh\nexec cat > /dev/null\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    parser = ProcessParser(SOURCE, tmp_path, start_after=0)
    assert [facts(parser.submit(rows)()) for rows in CHUNKS] == [*map(expected, CHUNKS)]
    assert parser.helped == 0
    parser.close()


def test_small_inputs_start_no_process(tmp_path: Path) -> None:
    """Below the limit everything is parsed here."""
    parser = ProcessParser(SOURCE, tmp_path, start_after=sum(map(len, CHUNKS)))
    assert [facts(parser.submit(rows)()) for rows in CHUNKS] == [expected(rows) for rows in CHUNKS]
    assert not helpers()
    parser.close()
