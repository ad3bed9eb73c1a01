"""Whoever has a Prefect server keeps it; blocks saved there are what autosync.toml names."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.drive_server import FOLDER, DriveServer
from tests.doubles.drive_server import TOKEN as DRIVE_TOKEN
from tests.doubles.faults import Fault, Reply
from tests.doubles.github_server import TOKEN, GitHubServer
from tests.doubles.slack_server import SlackServer
from tests.doubles.smtp_server import PASSWORD, USER, SmtpDouble
from tests.integration.service import ROOT, Service, up

SAVE = """
from blocks.notify.email import SmtpServer
from blocks.repository.github import GitHubRepository
from blocks.notify.slack import SlackWebhook
import json, os
given = json.loads(os.environ["GIVEN"])
SlackWebhook(url=given["slack"], retries=0, timeout=2).save("ops")
SmtpServer(host="localhost", port=given["port"], username=given["user"], password=given["password"],
           sender="sync@example.org", recipients=["ops@example.org"], ca_file=given["ca"]).save("ops")
GitHubRepository(repository=given["repository"], token=given["token"], base_url=given["github"], pause=0).save("data")
"""
CONFIG = """
[[source]]
name = "things"
location = "things.json"
key = "/id"

[push]
block = "autosync-github-repository/data"

[notify]
slack = "autosync-slack-webhook/ops"
email = "autosync-smtp-server/ops"
"""


class Guest(Service):
    """A home whose user has a Prefect server already."""

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {"PREFECT_API_URL": str(self.api), "PREFECT_API_AUTH_STRING": self.secret}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("host")
    (folder / "autosync.toml").write_text("")
    with up(Service(folder), "--no-observe") as running:
        yield running


def test_blocks_of_the_users_own_server_are_used(host: Service, tmp_path: Path) -> None:
    """Commits go to GitHub (a proxy's page instead of its answer is no push: it is done again), what Slack refuses goes
    by email, the report is mailed; no secret is in the log.
    """
    (tmp_path / "autosync.toml").write_text(CONFIG)
    (tmp_path / "things.json").write_text('[{"id": "الف"}, {"id": "b"}]')
    guest = Guest(tmp_path, host.api, host.secret)
    with SlackServer() as slack, SmtpDouble(tmp_path) as smtp, GitHubServer(tmp_path / "github.git") as github:
        slack.faults.append(Fault(reply=Reply(404, b"no_service"), times=99))
        github.faults.append(Fault("/git/refs/", "PATCH", reply=Reply(200, b"<html>Log in</html>")))
        given = {
            "slack": slack.webhook,
            "port": smtp.port,
            "user": USER,
            "password": PASSWORD,
            "ca": str(smtp.ca_file),
            "repository": github.name,
            "token": TOKEN,
            "github": github.url,
        }
        save = [sys.executable, "-c", SAVE]
        subprocess.run(save, env=guest.environment | {"GIVEN": json.dumps(given)}, cwd=ROOT, check=True, timeout=240)
        run = guest.json("run", "things")["runs"][0]
        assert run["outcome"] == "changed" and not github.faults[0].times, run
        assert {stage["name"]: stage["retries"] for stage in run["stages"]}["push"] == 1
        head = ["git", "--git-dir", str(tmp_path / "github.git"), "rev-parse", "main"]
        assert subprocess.run(head, capture_output=True, text=True, check=True).stdout.strip() == run["commit"]
        assert guest.json("verify")["equal"] is True
        assert ["things: +2 ~0 -0" in str(mail["Subject"]) for mail in smtp.taken] == [True]
        code = "import asyncio, os; from flows.report import report; asyncio.run(report())"
        home = {"AUTOSYNC_HOME": str(guest.home), "AUTOSYNC_CONFIG": str(tmp_path / "autosync.toml")}
        subprocess.run([sys.executable, "-c", code], env=guest.environment | home, cwd=ROOT, check=True, timeout=120)
        assert [part.get_filename() for part in smtp.taken[-1].iter_attachments()] == ["report.md"]
        log = (guest.home / "logs" / "app.log").read_text()
        assert TOKEN not in log and PASSWORD not in log and slack.webhook not in log
    assert not (guest.home / "prefect" / "server.json").exists()


def test_backups_go_to_drive(host: Service, tmp_path: Path) -> None:
    """`autosync backup` puts the database on Google Drive, lists it, and brings it back."""
    (tmp_path / "autosync.toml").write_text(
        '[[source]]\nname = "things"\nlocation = "things.json"\nkey = "/id"\n'
        '[backup]\nblock = "autosync-google-drive/b"\n'
    )
    (tmp_path / "things.json").write_text('[{"id": "a"}]')
    guest = Guest(tmp_path, host.api, host.secret)
    with DriveServer() as drive:
        block = f"GoogleDrive(token={DRIVE_TOKEN!r}, folder_id={FOLDER!r}, endpoint={drive.url!r})"
        save = f"from blocks.backup.drive import GoogleDrive; {block}.save('b')"
        subprocess.run([sys.executable, "-c", save], env=guest.environment, cwd=ROOT, check=True, timeout=240)
        guest.run("run")
        name = guest.json("backup")["name"]
        assert [row["name"] for row in guest.json("backup", "list")["backups"]] == [name]
        (guest.home / "autosync.db").rename(guest.home / "lost.db")
        guest.run("backup", "restore", name)
        assert guest.run("show", "things", "a", "--json").stdout == '{"id":"a"}\n'
