"""What the contract suites share: every implementation of a port, each over its double."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from pydantic import SecretStr

from autosync.ports import Commit, Notifier, Remote
from blocks.notify.email import EmailNotifier, SmtpServer
from blocks.notify.slack import SlackWebhook
from blocks.repository.git import GitRepository
from blocks.repository.github import GitHubRepository
from blocks.store import ledger
from flows.operations.push import Job, commit_changes
from tests.doubles.github_server import TOKEN, GitHubServer
from tests.doubles.memory import MemoryRemote
from tests.doubles.slack_server import SlackServer
from tests.doubles.smtp_server import PASSWORD, USER, SmtpDouble
from tests.pipeline import Pipeline


@dataclass
class Place:
    """A remote to test, the repository behind it, and another person's way in."""

    kind: str
    remote: Remote
    other: Remote
    path: Path | None = None
    server: GitHubServer | None = None

    def put(self, files: Mapping[str, bytes | None], seq: int = 1, *, replace: tuple[str, ...] = ()) -> str:
        """Commit on top of whatever is there."""
        head = self.remote.head()
        return self.remote.commit(commit(files, seq, replace=replace), parent=head.sha if head else None)

    def everything(self) -> dict[str, bytes]:
        """All files at the branch's head."""
        return dict(self.remote.files(""))


def commit(files: Mapping[str, bytes | None], seq: int = 1, *, replace: tuple[str, ...] = ()) -> Commit:
    """A commit as the push stage makes it: its files can be read once, deletions come first."""
    trailers = (("AutoSync-Seq", str(seq)), ("AutoSync-Run", f"run-{seq}"))
    changes = iter(sorted(files.items(), key=lambda change: change[1] is not None))
    return Commit(f"Sync tickets\n\n{len(files)} files", trailers, changes, 1_700_000_000.25 + seq, replace)


def push_store(store: Pipeline, remote: Remote, source: str = "things") -> tuple[str, int]:
    """Commit what the push stage commits: the stream of files that the store renders, all of them or those touched.

    Returns:
        The sha, and how many steps SQLite took, in hundreds: what was read and rendered, whatever the machine.
    """
    workspace, steps = store.workspace, count()
    with workspace.database() as db:
        target = workspace.target(db, workspace.source(source))
        assert target is not None
        cursor, newest = ledger.cursor(db, "push", target.collection), ledger.newest_seq(db, target.collection)
        job = Job(db, workspace.source(source), target.collection, cursor, newest, f"run-{newest}", f"root-{newest}")
        db.set_progress_handler(lambda: next(steps) < 0, 100)
        sha = commit_changes(job, remote)
        db.set_progress_handler(None, 0)
        info = {"sha": sha, "layout": job.layout, "to": remote.address}
        ledger.advance(db, "push", target.collection, newest, now=newest, info=info)
    return sha, next(steps)


def github(server: GitHubServer, *, token: str = TOKEN, branch: str = "main") -> GitHubRepository:
    """The GitHub block, pointed at the double."""
    return GitHubRepository(
        repository=server.name, token=SecretStr(token), branch=branch, base_url=server.url, pause=0, timeout=5
    )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitHubServer]:
    """A GitHub double over an empty repository."""
    with GitHubServer(tmp_path / "github.git") as running:
        yield running


@pytest.fixture(params=["bare", "address", "login", "github", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Each implementation: a bare folder, a Git address, one that asks for a login, GitHub, memory."""
    kind: str = request.param
    if kind == "memory":
        yield Place(kind, memory := MemoryRemote(), memory)
    elif kind in ("bare", "address"):
        path = tmp_path / "remote.git"
        subprocess.run(["git", "init", "--bare", "--quiet", "-b", "main", str(path)], check=True)
        address = GitRepository(path.as_uri(), cache=tmp_path / "cache")
        yield Place(kind, GitRepository(path) if kind == "bare" else address, GitRepository(path), path)
    else:
        running = request.getfixturevalue("server")
        address = GitRepository(
            running.url.replace("://", f"://octo:{TOKEN}@") + f"/{running.name}.git", cache=tmp_path / "cache"
        )
        remote: Remote = github(running).remote() if kind == "github" else address
        yield Place(kind, remote, GitRepository(running.path), running.path, running)


@pytest.fixture
def slack() -> Iterator[SlackServer]:
    """A Slack double."""
    with SlackServer() as running:
        yield running


@pytest.fixture
def smtp(tmp_path: Path) -> Iterator[SmtpDouble]:
    """A mail server double with STARTTLS and a login."""
    with SmtpDouble(tmp_path) as running:
        yield running


def webhook(slack: SlackServer, *, retries: int = 0) -> Notifier:
    """The Slack block, pointed at the double."""
    return SlackWebhook(url=SecretStr(slack.webhook), retries=retries, timeout=2, longest_wait=1).notifier()


def mailer(smtp: SmtpDouble, *, password: str = PASSWORD, ca_file: Path | None = None) -> EmailNotifier:
    """The mail block, pointed at the double."""
    server = SmtpServer(
        host="localhost",
        port=smtp.port,
        username=USER,
        password=SecretStr(password),
        sender="AutoSync <sync@example.org>",
        recipients=["ops@example.org", "علی <ali@example.org>"],
        ca_file=ca_file or smtp.ca_file,
        timeout=3,
    )
    return server.notifier()
