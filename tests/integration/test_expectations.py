"""Dataset checks by the real Great Expectations in a real validator process."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from autosync.errors import ConfigError, RemoteUnavailable
from autosync.records import parse
from autosync.settings import DatasetCheck, Settings
from blocks.quality import validator_state
from blocks.quality.validator import Request, Verdict, ask, ready, start
from blocks.quality.validator_state import State
from blocks.store.staged_batch import Stage

LIMIT = 60.0
Ask = Callable[..., Verdict]


def check(expect: str, column: str | None = None, **args: Any) -> DatasetCheck:
    return DatasetCheck(expect=f"expect_{expect}", column=column, args=args)


def request(
    folder: Path, documents: list[dict[str, Any]], *checks: DatasetCheck, skip: tuple[int, ...] = ()
) -> Request:
    """Documents staged as ingest does it; ids are `id`, or the position."""
    stage = Stage(folder / "rows")
    for n, document in enumerate(documents):
        stage.write(f"{document.get('id', n)}\n".encode(), parse(json.dumps(document).encode())[1] + b"\n")
    stage.close()
    return Request(
        rows=str(folder / "rows"), checks=list(checks), docs=str(folder / "docs"), name="things", skip=list(skip)
    )


def validators(state: Path | None = None) -> list[psutil.Process]:
    """The validators that descend from this process; only those of a state file when one is given."""
    wanted = {"blocks.quality.validator"} if state is None else {"blocks.quality.validator", str(state)}
    found = psutil.Process().children(recursive=True)
    return [one for one in found if one.status() != psutil.STATUS_ZOMBIE and wanted <= set(one.cmdline())]


def note(state: Path) -> State:
    found = validator_state.read(state)
    assert found is not None
    return found


def wait(condition: Callable[[], bool], seconds: float = LIMIT) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "did not happen in time"
        time.sleep(0.02)


def end(state: Path) -> None:
    """End the validator of a state file and see it gone."""
    process = psutil.Process(note(state).pid)
    process.terminate()
    wait(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, float]]:
    """A validator that answered once, and how long that took from nothing."""
    folder = tmp_path_factory.mktemp("warm")
    state = folder / "validator.json"
    began = time.perf_counter()
    assert ask(state, request(folder, [{"n": 1}], check("column_values_to_not_be_null", "/n")), LIMIT).ok
    yield state, time.perf_counter() - began
    end(state)
    wait(lambda: not validators())


@pytest.fixture
def see(warm: tuple[Path, float], tmp_path: Path) -> Ask:
    """Ask the warm validator about documents."""
    return lambda documents, *checks, skip=(): ask(warm[0], request(tmp_path, documents, *checks, skip=skip), LIMIT)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A state file of one's own; its validators are ended afterwards, also one that is still starting."""
    state = tmp_path / "own.json"
    yield state
    for one in validators(state):
        one.terminate()
    wait(lambda: not validators(state))


PEOPLE: list[dict[str, Any]] = [
    {"id": "a", "n": 1, "s": "open", "code": "007"},
    {"id": "ب", "n": 9, "s": "gone", "code": "7x"},
    {"id": "c", "n": 2, "s": "open", "code": "42"},
    {"id": "d", "n": None, "s": "بسته", "code": "007"},
]


@pytest.mark.parametrize(
    ("asked", "refused"),
    [
        (check("column_values_to_be_between", "/n", max_value=5), {"ب"}),
        (check("column_values_to_not_be_null", "/n"), {"d"}),
        (check("column_values_to_be_in_set", "/s", value_set=["open", "بسته"]), {"ب"}),
        (check("column_values_to_match_regex", "/code", regex=r"^\d+$"), {"ب"}),
        (check("column_values_to_be_unique", "/code"), {"a", "d"}),
        (check("compound_columns_to_be_unique", column_list=["/s", "/code"]), set()),
        (check("column_values_to_be_in_set", "/s", value_set=["open"], mostly=0.5), set()),
        (check("column_values_to_be_in_set", "/s", value_set=["x"], row_condition='col("/n") > 5'), {"ب"}),
    ],
    ids=lambda value: value.expect if isinstance(value, DatasetCheck) else "",
)
def test_rows_are_named(see: Ask, asked: DatasetCheck, refused: set[str]) -> None:
    """A check of rows names exactly the ids that fail it, and speaks against nothing else."""
    verdict = see(PEOPLE, asked)
    assert set(verdict.refused) == refused
    assert verdict.ok is not bool(refused)
    assert verdict.whole == []
    assert len(verdict.failures) == bool(refused)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (check("column_mean_to_be_between", "/n", min_value=5), "/n: expected column mean to be between (min_value 5)"),
        (check("table_row_count_to_be_between", min_value=10), "expected table row count to be between (min_value 10)"),
        (check("column_mean_to_be_between", "/none", max_value=1), "no changed row has a value"),
        (check("column_to_exist", "/none"), "/none: expected column to exist"),
    ],
)
def test_the_whole_batch(see: Ask, asked: DatasetCheck, sentence: str) -> None:
    """A check of the whole batch fails with what it wanted and what it found, and names no row."""
    verdict = see(PEOPLE, asked)
    assert not verdict.ok
    assert verdict.refused == {}
    assert verdict.failures == verdict.whole
    assert sentence in verdict.failures[0]


def test_what_passes(see: Ask) -> None:
    """Checks that hold give a verdict without failures, and its Data Docs."""
    verdict = see(
        PEOPLE,
        check("column_mean_to_be_between", "/n", min_value=3, max_value=5),
        check("table_row_count_to_equal", value=4),
        check("column_values_to_be_unique", "/id"),
    )
    assert verdict == Verdict(ok=True, docs=verdict.docs)
    assert Path(verdict.docs).is_file()


def test_failures_come_in_the_order_of_the_checks(see: Ask) -> None:
    """Each failed check gives one sentence, in the order of the settings; a row collects its reasons."""
    verdict = see(
        PEOPLE,
        check("column_values_to_be_in_set", "/s", value_set=["open", "بسته"]),
        check("column_max_to_be_between", "/n", max_value=3),
        check("column_values_to_be_between", "/n", max_value=5),
    )
    assert [sentence.split(" (")[0].split("expected ")[1] for sentence in verdict.failures] == [
        "column values to be in set", "column max to be between", "column values to be between",
    ]  # fmt: skip
    assert verdict.refused["ب"] == (
        '/s: expected column values to be in set (value_set ["open","بسته"]); found "gone"; '
        "/n: expected column values to be between (max_value 5); found 9"
    )


def test_skipped_rows_are_not_seen(see: Ask) -> None:
    """Positions to skip, which ingest refused already, are left out."""
    assert see(PEOPLE, check("column_values_to_be_between", "/n", max_value=5), skip=(1,)).ok


@pytest.mark.parametrize("large", [2**53 + 1, 2**63 + 1, 2**70 + 1])
def test_large_integers(see: Ask, large: int) -> None:
    """Integers past 2^53 are compared and reported with every digit, beside a null too."""
    documents = [{"id": "even", "n": large - 1}, {"id": "odd", "n": large}, {"id": "null", "n": None}]
    verdict = see(documents, check("column_values_to_be_in_set", "/n", value_set=[large - 1]))
    assert list(verdict.refused) == ["odd"]
    assert verdict.refused["odd"].endswith(f"found {large}")
    assert see(documents, check("column_values_to_be_unique", "/n")).ok


def test_dates(see: Ask) -> None:
    """Dates and times are compared with ISO bounds as times, while a pattern on the same field sees the text."""
    days = {"old": "2023-12-31", "edge": "2024-01-01T01:00:00+03:30", "new": "2024-02-01"}
    documents = [{"id": id, "d": day} for id, day in days.items()]
    bound = check("column_values_to_be_between", "/d", min_value="2024-01-01", max_value="2025-01-01")
    assert set(see(documents, bound).refused) == {"old", "edge"}
    both = see(documents, check("column_values_to_match_regex", "/d", regex="^.{10}$"), bound)
    assert set(both.refused) == {"old", "edge"}
    assert len(both.failures) == 2


def test_a_check_that_raises_is_a_failure(see: Ask) -> None:
    """A check that could not be evaluated fails the batch with its message instead of passing."""
    verdict = see([{"d": "soon"}], check("column_values_to_be_between", "/d", min_value="2024-01-01"))
    assert "could not be found out: Column values, min_value, and max_value" in verdict.whole[0]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (check("colum_mean_to_be_between", "/n"), "did you mean 'expect_column_mean_to_be_between'"),
        (check("column_mean_to_be_between", "/n", min_valu=3), "min_valu: extra fields not permitted"),
        (check("column_mean_to_be_between"), "column: field required"),
        (check("table_columns_to_match_set", column_set=["/n"]), "use the row checks"),
    ],
    ids=["unknown", "argument", "column", "unsuitable"],
)
def test_wrong_checks(see: Ask, wrong: DatasetCheck, told: str) -> None:
    """A check that doesn't exist or has wrong arguments is an error of the settings that names it."""
    with pytest.raises(ConfigError, match=re.escape(told)) as caught:
        see(PEOPLE, check("column_values_to_not_be_null", "/n"), wrong)
    assert wrong.expect in str(caught.value)
    assert "dataset 2" in caught.value.where


def test_a_condition_that_cannot_be_read(see: Ask) -> None:
    """A row condition in another notation is an error of the settings."""
    with pytest.raises(ConfigError, match="unable to parse condition"):
        see(PEOPLE, check("column_values_to_not_be_null", "/n", row_condition="n > 5"))


def test_the_example_in_the_docs(see: Ask) -> None:
    """The settings shown in docs/data-quality.md are valid and do what their text says."""
    text = (Path(__file__).parents[2] / "docs" / "data-quality.md").read_text(encoding="utf-8")
    found = re.search(r"```toml\n(.*?)```", text, re.DOTALL)
    assert found is not None
    checks = msgspec.convert(tomllib.loads(found[1]), Settings).source[0].expect.dataset
    good = {"celsius": 20.5, "sensor": {"state": "ok"}, "high": 3, "low": 2}
    assert see([good] * 3, *checks).ok
    bad = see([good, {"id": "hot", "celsius": 102.2, "sensor": {"state": "?"}, "high": 3, "low": 2}], *checks)
    assert list(bad.refused) == ["hot"]
    assert bad.whole == [
        "/celsius: expected column mean to be between (min_value -20, max_value 35); found 61.35",
    ]  # fmt: skip


def test_data_docs_load_nothing(see: Ask) -> None:
    """The Data Docs page names no other host, runs no script, and shows a record's markup as text."""
    documents = [{"id": "<i>", "s": "<img src=http://example.org/x.png>"}]
    verdict = see(documents, check("column_values_to_be_in_set", "/s", value_set=["مریم"]))
    page = Path(verdict.docs).read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|img|iframe|object|embed)\b|@import|url\(", page)
    assert re.findall(r"""(?:src|href)=["']?([^"'#\s>]+)""", page.replace("&lt;img src=", "")) == []
    assert "default-src 'none'" in page
    assert "&lt;img src=http://example.org/x.png&gt;" in page
    assert "مریم" in page
    assert "Traceback" not in page


def test_only_the_newest_data_docs_stay(see: Ask, tmp_path: Path) -> None:
    """A second check replaces the page of the first and leaves nothing else behind."""
    first = see([{"n": 1}], check("column_max_to_be_between", "/n", max_value=77))
    second = see([{"n": 1}], check("column_max_to_be_between", "/n", max_value=88))
    assert first.docs == second.docs
    assert [path.name for path in (tmp_path / "docs").iterdir()] == ["index.html"]
    assert "77" not in re.sub("<style>.*?</style>", "", Path(second.docs).read_text(), flags=re.DOTALL).split("/n")[-1]


def test_warm_is_fast(warm: tuple[Path, float], see: Ask) -> None:
    """A warm validator answers at least five times faster than one that must be started."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        assert see(PEOPLE, check("column_values_to_be_unique", "/id")).ok
        times.append(time.perf_counter() - began)
    print(f"from nothing {warm[1]:.2f} s, warm {min(times):.3f} s")
    assert min(times) * 5 < warm[1]


def test_strangers(warm: tuple[Path, float], see: Ask) -> None:
    """Who has another key is turned away, and one who says nothing keeps nobody waiting."""
    found = note(warm[0])
    with pytest.raises(AuthenticationError), Client(("127.0.0.1", found.port), authkey=b"guess"):
        pass
    with socket.create_connection(("127.0.0.1", found.port)):
        assert see(PEOPLE, check("column_values_to_be_unique", "/id")).ok


def test_the_key_stays_in_its_file(warm: tuple[Path, float]) -> None:
    """The key stands in a file for the owner only, not in the command line or the log."""
    found = note(warm[0])
    assert stat.S_IMODE(warm[0].stat().st_mode) == 0o600
    assert found.key not in " ".join(psutil.Process(found.pid).cmdline())
    assert found.key not in warm[0].with_name(warm[0].name + ".log").read_text()
    assert {link.laddr.ip for link in psutil.Process(found.pid).net_connections()} == {"127.0.0.1"}


def test_clients_at_once(see: Ask) -> None:
    """Several clients are answered one after the other, each with its own verdict."""
    with ThreadPoolExecutor(4) as pool:
        verdicts = list(
            pool.map(lambda _: see(PEOPLE, check("column_values_to_be_between", "/n", max_value=5)), "1234")
        )
    assert [set(verdict.refused) for verdict in verdicts] == [{"ب"}] * 4


def test_a_killed_validator_is_started_again(state: Path, tmp_path: Path) -> None:
    """A stale state file starts a validator; killed in the middle of a request it is started again, once."""
    validator_state.write(state, State(os.getpid(), 9, "00", ready=True))
    asked = request(tmp_path, PEOPLE, check("column_values_to_be_between", "/n", max_value=5))
    assert set(ask(state, asked, LIMIT).refused) == {"ب"}
    first = note(state).pid
    os.kill(first, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, state, asked, LIMIT)
        time.sleep(0.3)
        os.kill(first, signal.SIGKILL)
        assert set(answer.result().refused) == {"ب"}
    assert note(state).pid != first
    assert len(validators(state)) == 1


def test_two_crashes_are_an_error(state: Path, tmp_path: Path) -> None:
    """When the new validator dies too, the error says so, that nothing was stored, and that a retry may help."""
    done = threading.Event()

    def kill() -> None:
        while not done.wait(0.01):
            for one in validators(state):
                one.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(RemoteUnavailable, match="ended twice") as caught:
            ask(state, request(tmp_path, PEOPLE, check("column_values_to_be_unique", "/id")), LIMIT)
    finally:
        done.set()
        killer.join()
    assert caught.value.retryable
    assert "nothing of this batch was stored" in caught.value.kept


def test_no_answer_in_time(state: Path, tmp_path: Path) -> None:
    """An answer that doesn't come in time is an error that a retry may help."""
    with pytest.raises(RemoteUnavailable, match="in time"):
        ask(state, request(tmp_path, PEOPLE, check("column_values_to_be_unique", "/id")), 0.02)


ASK = """
import sys, msgspec
from pathlib import Path
from blocks.quality.validator import Request, ask
state = Path(sys.argv[1])
print(ask(state, msgspec.json.decode(sys.argv[2], type=Request), 60).ok, flush=True)
print(msgspec.json.decode(state.read_bytes())["pid"], flush=True)
assert "great_expectations" not in sys.modules and "pandas" not in sys.modules
sys.stdin.read()
"""


def test_two_at_once_use_one_which_ends_with_them(state: Path, tmp_path: Path) -> None:
    """Two processes that start a validator at once use the same, which goes with the one that started it."""
    asked = msgspec.json.encode(request(tmp_path, PEOPLE, check("column_values_to_be_unique", "/id"))).decode()
    command = [sys.executable, "-c", ASK, str(state), asked]
    pair = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in "12"]
    said = [[one.stdout.readline().strip() for _ in "12"] for one in pair if one.stdout]
    assert said[0] == said[1]
    assert said[0][0] == "True"
    process = psutil.Process(int(said[0][1]))
    wait(lambda: len(validators(state)) == 1)
    for one in pair:
        one.kill()
        one.communicate()
    wait(lambda: not process.is_running(), 5)
    assert not ready(state)


def test_idle_and_ready(state: Path) -> None:
    """A started validator becomes ready, and ends by itself after its idle time, leaving no state file."""
    process = start(state, idle=0.5)
    try:
        assert not ready(state)
        wait(lambda: ready(state))
        assert process.wait(10) == 0
        assert not state.exists()
    finally:
        process.kill()
        process.wait()
