"""The settings that name a Prefect block: the wrong kind, a malformed name, and one that isn't there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from pydantic import SecretStr

from autosync.errors import AutoSyncError, ConfigError
from autosync.ports import Notice
from blocks.backup.drive import GoogleDrive
from blocks.catalog import GitRemote, JsonSource
from blocks.notify.email import SmtpServer
from blocks.notify.slack import SlackWebhook
from blocks.store import ledger
from flows.operations.backups import save_backup
from flows.operations.health import Health, examine
from flows.operations.notify import notify
from flows.operations.plan import describe
from flows.operations.status import describe_status
from flows.report import mail
from flows.workspace import Workspace, now
from tests.doubles.smtp_server import PASSWORD, USER, SmtpDouble
from tests.integration.service import Service, up
from tests.pipeline import Pipeline

NOTICE = Notice(key="k", title="things: +1", text="one record came")
REPOSITORIES = ("autosync-github-repository", "git-remote")


def _push(workspace: Workspace) -> None:
    Pipeline(workspace.home.path.parent).run()


def _backup(workspace: Workspace) -> None:
    with workspace.database():
        pass
    save_backup(workspace)


SETTINGS: dict[str, tuple[str, tuple[str, ...], Callable[[Workspace], Any]]] = {
    "[push] block": ("\n[push]\nblock = {name}", REPOSITORIES, _push),
    "[notify] slack": ("\n[notify]\nslack = {name}", ("autosync-slack-webhook",), notify),
    "[notify] email": ("\n[notify]\nemail = {name}", ("autosync-smtp-server",), notify),
    "[backup] block": ("\n[backup]\nblock = {name}", ("autosync-google-drive",), _backup),
    "[[source]] things, block": ("block = {name}", ("json-source",), lambda workspace: describe(workspace, "things")),
}
ROWS = dict(zip(SETTINGS, ("repository", "slack", "email", "backup", "sources"), strict=True))


@pytest.fixture
def place(tmp_path: Path) -> Pipeline:
    pipeline = Pipeline(tmp_path)
    pipeline.write([{"id": "a"}])
    return pipeline


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A Prefect server that holds a Slack block and a Git block."""
    folder = tmp_path_factory.mktemp("host")
    (folder / "autosync.toml").write_text("")
    with up(Service(folder), "--no-observe") as running:
        address = {PREFECT_API_URL: running.api, PREFECT_API_AUTH_STRING: SecretStr(running.secret)}
        with temporary_settings(address):
            asyncio.run(SlackWebhook(url=SecretStr("https://hooks.slack.com/services/T/B/x")).asave("operations"))
            asyncio.run(GitRemote(url=str(folder / "data.git")).asave("mirror"))
            asyncio.run(JsonSource().asave("crm"))
            asyncio.run(GoogleDrive(token=SecretStr("t"), folder_id="f").asave("drive"))
            yield running


def configure(place: Pipeline, setting: str, name: str) -> Workspace:
    """A workspace in which a setting names a block, and one notice waits."""
    text, _, _ = SETTINGS[setting]
    location = "https://localhost:1/things.json" if setting.startswith("[[source") else "things.json"
    place.configure(location=location)
    with place.workspace.config.open("a") as file:
        file.write(text.format(name=f'"{name}"') + "\n")
    with place.workspace.database() as db:
        ledger.post(db, NOTICE, now=now())
    return place.workspace


def row_of(workspace: Workspace, setting: str) -> Health:
    return next(row for row in examine(workspace) if row.module == ROWS[setting])


@pytest.mark.parametrize("name", ["sqlite-store/x", "slack-webhook/x", "ops", "a/b/c", "/x", "git-remote/"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_block_that_cannot_fit_is_named_with_the_kinds_that_do(place: Pipeline, setting: str, name: str) -> None:
    """Whatever names it, the error says setting, block and kinds; health has a red row; no server is needed."""
    workspace, (_, kinds, use) = configure(place, setting, name), SETTINGS[setting]
    with pytest.raises(ConfigError) as caught:
        use(workspace)
    row = row_of(workspace, setting)
    assert row.status == "error"
    for text in (str(caught.value), row.text):
        assert setting in text and repr(name) in text
        assert all(kind in text for kind in kinds)


@pytest.mark.parametrize("setting", ["[notify] slack", "[notify] email"])
def test_a_notice_that_no_block_can_take_waits_with_the_reason(place: Pipeline, setting: str) -> None:
    """Nobody holds it, health says why it waits, and it goes out at once when the setting is right."""
    workspace = configure(place, setting, "sqlite-store/x")
    for _ in range(2):
        with pytest.raises(ConfigError, match="stays in the outbox"):
            notify(workspace)
    outbox = next(row for row in examine(workspace) if row.module == "outbox")
    assert outbox.status == "warning" and setting in outbox.text
    assert describe_status(workspace)["waiting"] == 1
    place.configure()
    assert notify(place.workspace).delivered == 1


def test_a_report_that_no_block_can_mail_names_the_setting(place: Pipeline) -> None:
    """Mailing a report looks at the block's kind as notices do."""
    workspace = configure(place, "[notify] email", "autosync-slack-webhook/operations")
    with pytest.raises(ConfigError, match=r"\[notify\] email"):
        mail(workspace, [])


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_block_that_is_not_on_the_server_is_named(place: Pipeline, setting: str) -> None:
    """The error names setting, block and kinds."""
    _, kinds, use = SETTINGS[setting]
    name = f"{kinds[0]}/missing"
    workspace = configure(place, setting, name)
    with pytest.raises(ConfigError) as caught:
        use(workspace)
    for text in (str(caught.value), row_of(workspace, setting).text):
        assert setting in text and repr(name) in text and "there is no block" in text
        assert all(kind in text for kind in kinds)


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("setting", "name", "near"),
    [
        ("[notify] slack", "autosync-slack-webhook/operation", "autosync-slack-webhook/operations"),
        ("[push] block", "autosync-github-repository/mirror", "git-remote/mirror"),
    ],
)
def test_a_near_name_is_suggested(place: Pipeline, setting: str, name: str, near: str) -> None:
    """A slip of the pen in a block's name is answered with the block that is meant."""
    workspace = configure(place, setting, name)
    with pytest.raises(ConfigError, match=f"did you mean {near}"):
        SETTINGS[setting][2](workspace)


@pytest.mark.usefixtures("server")
def test_a_block_of_each_fitting_kind_is_used(place: Pipeline) -> None:
    """A saved Git block takes the commits, a saved source block is proven by health."""
    workspace = configure(place, "[push] block", "git-remote/mirror")
    assert place.run().pushed.sha
    assert row_of(workspace, "[push] block").status == "ok"
    workspace = configure(place, "[[source]] things, block", "json-source/crm")
    assert row_of(workspace, "[[source]] things, block").status == "ok"


@pytest.mark.usefixtures("server")
def test_email_takes_what_a_wrong_slack_block_cannot(place: Pipeline) -> None:
    """One channel that can't be opened keeps no notice from the next."""
    workspace = configure(place, "[notify] slack", 'sqlite-store/x"\nemail = "autosync-smtp-server/ops')
    with SmtpDouble(place.folder) as smtp:
        block = SmtpServer(
            host="localhost",
            port=smtp.port,
            username=USER,
            password=SecretStr(PASSWORD),
            sender="sync@example.org",
            recipients=["ops@example.org"],
            ca_file=smtp.ca_file,
        )
        asyncio.run(block.asave("ops"))
        assert notify(workspace).delivered == 1
        assert len(smtp.taken) == 1
    assert row_of(workspace, "[notify] slack").status == "error"


def test_a_command_asks_the_server_of_its_home(server: Service) -> None:
    """`autosync backup list` finds the blocks that were saved on the server of `autosync up`."""
    text = '[backup]\nblock = "autosync-google-drive/drivee"\n'
    (server.folder / "autosync.toml").write_text(text)
    shown = server.run("backup", "list", status=2)
    assert "did you mean autosync-google-drive/drive?" in shown.stderr


def test_a_server_that_does_not_answer_is_told(place: Pipeline) -> None:
    """Health has a red row, and the notice waits for the next run."""
    workspace = configure(place, "[notify] slack", "autosync-slack-webhook/operations")
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert row_of(workspace, "[notify] slack").status == "error"
        with pytest.raises(AutoSyncError) as caught:
            notify(workspace)
    assert caught.value.retryable and "stays in the outbox" in str(caught.value)
