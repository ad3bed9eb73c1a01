"""Programs that a release job starts, with their logs, and telling people about a job."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from autosync.errors import AutoSyncError, ConfigError
from autosync.ports import Notice
from autosync.release_policy import JobFailed
from flows.log import mask
from flows.temporary_server import without_server

SECRET = "SLACK_WEBHOOK_URL"  # noqa: S105  # a variable's name


def say(line: str) -> None:
    """A line for the job's log: standard error, because standard output is the result's."""
    print(_hidden(line), file=sys.stderr, flush=True)


def run_program(command: list[str], log: Path, *, cwd: Path, minutes: float, **env: str) -> None:
    """Run a program; what it says goes to the job's log and to a file, with secrets masked.

    It finds this Python's programs first and gets no Slack address. When its time is over, it is ended with
    everything that it started.

    Raises:
        JobFailed: It can't be started, ends with another status than 0 or takes too long.
    """
    shown = shlex.join("python" if part == sys.executable else part for part in command)
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {name: value for name, value in without_server(os.environ).items() if name != SECRET} | env
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
    say(f"$ {shown}")
    try:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except (OSError, IndexError) as error:
        raise JobFailed(f"{shown or 'an empty command'} can't be started: {error}", todo="check the command") from None
    late = _copy(process, log, minutes * 60)
    if late:
        raise JobFailed(f"{shown} took longer than {minutes:g} minutes and was ended", where=f"logs/{log.name}")
    if process.returncode:
        raise JobFailed(f"{shown} ended with status {process.returncode}", where=f"logs/{log.name}")


def words(command: str) -> list[str]:
    """A command's words as a shell would split them; nothing else of a shell's is understood."""
    try:
        return shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"the command {command!r} can't be read: {error}", todo="check its quotes") from None


def _copy(process: subprocess.Popen[str], log: Path, seconds: float) -> bool:
    """Copy a program's output until it ends. Returns whether its time ran out."""
    late = threading.Event()

    def end() -> None:
        late.set()
        _kill(process)

    timer = threading.Timer(seconds, end)
    timer.start()
    try:
        assert process.stdout
        with process.stdout as lines, log.open("a", encoding="utf-8") as file:
            for line in lines:
                file.write(_hidden(line))
                say(line.rstrip("\n"))
        process.wait()
    finally:
        timer.cancel()
        _kill(process)
        process.wait()
    return late.is_set()


def _kill(process: subprocess.Popen[str]) -> None:
    """End the program and what it started; its session is its own, so nobody else is in the group."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _hidden(text: str) -> str:
    secret = os.environ.get(SECRET)
    return mask(text.replace(secret, "***") if secret else text)


def tell(notice: Notice) -> str:
    """Tell people by Slack, or in the job's log when there is no webhook or it fails. Returns where."""
    from blocks.notify.console import ConsoleNotifier

    if url := os.environ.get(SECRET):
        from pydantic import SecretStr

        from blocks.notify.slack import SlackWebhook

        try:
            SlackWebhook(url=SecretStr(url)).notifier().send(notice)
            return "Slack"
        except AutoSyncError as error:
            say(f"Slack: {error}")
    ConsoleNotifier().send(notice)
    return "the job's log"
