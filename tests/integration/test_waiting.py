"""A service that asks to wait gets its wait: in the open, without holding up anybody, and not for ever."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from autosync.errors import AutoSyncError, RemoteError, RemoteUnavailable
from flows.service.observer import Syncs
from flows.waiting import Patience, locked, start
from tests.doubles.faults import Call, Fault, Reply
from tests.doubles.github_server import TOKEN, GitHubServer
from tests.integration.service import ROOT, Service, up
from tests.integration.test_http_source import JSON, listening

SAVE = """
import json, os
from blocks.repository.github import GitHubRepository
given = json.loads(os.environ["GIVEN"])
GitHubRepository(repository=given["name"], token=given["token"], base_url=given["url"], pause=0).save(
    "data", overwrite=True)
"""
SOURCE = '[[source]]\nname = "{0}"\nlocation = "{0}.json"\nkey = "/id"\n'
CONFIG = SOURCE.format("things") + SOURCE.format("others") + '[push]\nblock = "autosync-github-repository/data"\n'
LIMITED = {"message": "You have exceeded a secondary rate limit. Please wait."}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("up")
    (folder / "autosync.toml").write_text(CONFIG)
    write(folder, "things", "others")
    with up(Service(folder), "--no-observe") as running:
        yield running


@pytest.fixture
def github(service: Service, tmp_path: Path) -> Iterator[GitHubServer]:
    """A new repository, which the service's block names, and new records to push there."""
    write(service.folder, "things", "others")
    with GitHubServer(tmp_path / "github.git") as running:
        given = json.dumps({"name": running.name, "token": TOKEN, "url": running.url})
        environment = at_server(service) | {"GIVEN": given}
        subprocess.run([sys.executable, "-c", SAVE], env=environment, cwd=ROOT, check=True, timeout=60)
        yield running


def at_server(service: Service) -> dict[str, str]:
    """The environment of a program that uses the service's Prefect server."""
    return service.environment | {"PREFECT_API_URL": str(service.api), "PREFECT_API_AUTH_STRING": service.secret}


def write(folder: Path, *sources: str) -> None:
    for name in sources:
        (folder / f"{name}.json").write_text(json.dumps([{"id": name, "n": time.time()}]))


def refuse(github: GitHubServer, path: str, method: str, status: int, headers: Callable[[], dict[str, str]]) -> Fault:
    """Refuse the next such call; its headers are made when it comes."""
    fault = Fault(path, method)

    def answer() -> None:
        fault.reply = Reply(status, LIMITED, headers())

    fault.meanwhile = answer
    github.faults.append(fault)
    return fault


def refused(github: GitHubServer) -> list[float]:
    """When calls were refused."""
    return [call.at for call, reply in github.replies if reply.status in (403, 429, 503)]


def calls_after(github: GitHubServer, moment: float) -> list[Call]:
    return [call for call in github.calls if call.at > moment]


def runs_in(service: Service, state: str) -> dict[str, str]:
    """The flow runs that Prefect shows in a state of this name, and the state's message."""
    found = service.post("/flow_runs/filter", {"flow_runs": {"state": {"name": {"any_": [state]}}}})
    return {run["id"]: run["state"]["message"] for run in found}


def by_source(text: str) -> dict[str, dict[str, Any]]:
    return {run["source"]: run for run in json.loads(text)["runs"]}


def test_what_github_asks_is_waited_for(service: Service, github: GitHubServer) -> None:
    """A spent limit's reset and a date in Retry-After, one after the other: no call comes inside the closed window, the
    run goes on after each, makes the one commit, and counts its tries.
    """
    later = [0.0, 0.0]

    def reset() -> dict[str, str]:
        later[0] = int(time.time()) + 2
        return {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": f"{later[0]:.0f}"}

    def date() -> dict[str, str]:
        later[1] = int(time.time()) + 2
        return {"Retry-After": formatdate(later[1], usegmt=True)}

    refuse(github, "/git/trees", "POST", 403, reset)
    refuse(github, "/git/refs/", "PATCH", 429, date)
    run = service.json("run", "things")["runs"][0]
    assert run["outcome"] == "changed" and run["commit"] == github.sha("main"), run
    assert {stage["name"]: stage["retries"] for stage in run["stages"]}["push"] == 2
    for asked, moment in zip(refused(github), later, strict=True):
        assert calls_after(github, asked)[0].at >= moment
    assert len(github.git("rev-list", "main").split()) == 2, "ours, on top of the repository's first"


def test_another_source_is_synced_meanwhile(service: Service, github: GitHubServer) -> None:
    """Of one `autosync run` of two sources the second is done while the first waits; both are pushed."""
    refuse(github, "/git/trees", "POST", 429, lambda: {"Retry-After": "3"})
    done = service.run("run", "--json")
    runs = by_source(done.stdout)
    assert [run["outcome"] for run in runs.values()] == ["changed", "changed"]
    (asked,) = refused(github)
    trees = [(call.json["tree"][0]["path"].split("/")[0], call.at - asked) for call in github.calls if _is_tree(call)]
    assert [folder for folder, _ in trees] == ["things", "others", "things"]
    assert trees[1][1] < 3 <= trees[2][1]
    assert "autosync: things: GitHub asked to wait 3 s: You have exceeded" in done.stderr
    assert {name for name, _ in (path.split("/", 1) for path in _files(github) if "/" in path)} == {"things", "others"}


def _is_tree(call: Call) -> bool:
    return call.method == "POST" and call.path.endswith("/git/trees")


def _files(github: GitHubServer) -> list[str]:
    return github.git("ls-tree", "-r", "--name-only", "main").decode().split("\n")


def test_a_wait_is_said_and_holds_no_lock(service: Service, github: GitHubServer) -> None:
    """While a run waits, Prefect shows it as Waiting and for what, every limit is free, and nobody holds the place."""
    refuse(github, "/git/ref/", "GET", 429, lambda: {"Retry-After": "4"})
    with subprocess.Popen(service.command("run", "things"), env=service.environment, cwd=ROOT) as program:
        while not refused(github) or not (waiting := runs_in(service, "Waiting")):
            assert program.poll() is None
            time.sleep(0.05)
        limits = service.post("/v2/concurrency_limits/filter", {})
        locks = service.json("status")["locks"]
        assert program.poll() is None, "all this was seen while it waited"
        assert [limit["name"] for limit in limits if limit["active_slots"]] == [] == locks
        ((run, text),) = waiting.items()
        assert text.startswith("GitHub asked to wait 4 s: You have exceeded") and "goes on at 2" in text
        assert program.wait(60) == 0
    assert run in runs_in(service, "Changed")
    log = (service.home / "logs" / "app.log").read_text()
    assert "source=things GitHub asked to wait 4 s: You have exceeded" in log


def test_a_wait_too_long_ends_the_run_and_the_next_one_pushes(service: Service, github: GitHubServer) -> None:
    """Asked to come back in an hour, the run ends at once and says when it goes on; nothing is lost."""
    reset = int(time.time()) + 3600
    refuse(github, "/git/ref/", "GET", 403, lambda: {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(reset)})
    run = service.json("run", "things", status=1)["runs"][0]
    (asked,) = refused(github)
    assert run["outcome"] == "failed" and not calls_after(github, asked)
    until = time.strftime("%Y-%m-%d %H:%M", time.gmtime(reset))
    for words in ("GitHub asked to wait 3,", "a run waits 300 s at most", f"the next run after {until}"):
        assert words in run["error"]
    assert not service.json("status")["locks"]
    again = service.json("run")["runs"][0]
    assert again["outcome"] == "unchanged" and again["commit"] == github.sha("main~1") != ""
    assert service.json("verify")["equal"] is True


def test_a_source_that_asks_to_wait_gets_its_wait(tmp_path: Path, service: Service) -> None:
    """An address that answers 503 with Retry-After is read again then, by the same run, and no lock is held."""
    times = list[float]()
    with listening() as site:

        def rule(path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
            times.append(time.time())
            return (503, {"Retry-After": "2"}, b"") if len(times) == 1 else (200, JSON, b'[{"id":"a"}]')

        site.rule = rule
        (tmp_path / "autosync.toml").write_text(f'[[source]]\nname = "far"\nlocation = "{site.url}/a"\nkey = "/id"\n')
        config = ["--home", str(tmp_path / "home"), "--config", str(tmp_path / "autosync.toml")]
        environment = at_server(service)
        command = [sys.executable, "-m", "flows.cli", *config, "run", "--json"]
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120)
    run = by_source(done.stdout)["far"]
    assert run["outcome"] == "changed" and run["stages"][0]["retries"] == 1
    assert len(times) == 2 and times[1] - times[0] >= 2
    assert "autosync: far: the server answered 503 and asked to wait 2 s; ingest goes on at" in done.stderr


def asking(seconds: float) -> RemoteUnavailable:
    return RemoteUnavailable(f"asked to wait {seconds:g} s", where="w", kept="k", retry_after=seconds)


def outcome(patience: Patience, error: AutoSyncError) -> tuple[AutoSyncError | None, float]:
    """What waiting for an error comes to, and how long it takes."""
    clock = time.monotonic()
    try:
        asyncio.run(patience.wait(error))
    except AutoSyncError as raised:
        return raised, time.monotonic() - clock
    return None, time.monotonic() - clock


def test_waits_come_to_a_limit() -> None:
    """Waits count together; the one that would exceed the limit ends it at once and says when to run again."""
    patience = Patience("x", 1.5)
    raised, seconds = outcome(patience, asking(0.2))
    assert raised is None and seconds >= 1, "never less than asked, and no shorter than a retry's own delay"
    raised, seconds = outcome(patience, asking(1))
    assert isinstance(raised, RemoteUnavailable) and seconds < 0.5 and raised.retry_after == 1
    assert raised.what == "asked to wait 1 s; a run waits 2 s at most" and (raised.where, raised.kept) == ("w", "k")
    assert raised.todo.startswith("nothing; the next run after 2")


def test_who_asks_for_nothing_is_not_waited_for() -> None:
    """Such an error is what it was; so is one that comes while a lock is held."""
    for error in (RemoteError("no"), RemoteUnavailable("later")):
        assert outcome(Patience("x"), error)[0] is error
    with locked():
        error = asking(1)
        assert outcome(Patience("x"), error)[0] is error


def test_saves_of_other_sources_are_synced_while_one_waits() -> None:
    """The observer syncs one source after the other, but not behind one that waits; what was saved meanwhile of that
    one is synced after it.
    """
    events = list[str]()

    async def call(name: str) -> None:
        events.append(f"{name} begins")
        if events.count("slow begins") == 1 and name == "slow":
            await Patience(name).wait(asking(1))
        await asyncio.sleep(0.01)
        events.append(f"{name} ends")

    async def saves() -> None:
        syncs = Syncs(call)
        for name in ("quick", "slow", "quick", "slow", "slow"):
            await syncs.sync(name)
        await asyncio.sleep(1.5)
        await syncs.sync("quick")
        await syncs.stop()

    asyncio.run(saves())
    quick, slow = ["quick begins", "quick ends"], ["slow begins", "slow ends"]
    assert events == [*quick, "slow begins", *quick, "slow ends", *slow, *quick]


def test_a_run_that_fails_after_its_wait_is_not_silent() -> None:
    """What it raises comes out where it is awaited."""

    async def fails() -> None:
        await Patience("x").wait(asking(0.1))
        raise RemoteError("for good")

    async def main() -> None:
        task = await start(fails())
        assert not task.done()
        with pytest.raises(RemoteError, match="for good"):
            await task

    asyncio.run(main())
