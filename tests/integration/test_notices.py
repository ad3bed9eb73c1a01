"""Notices: what Slack refuses goes by email, and each goes out once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from autosync.ports import Notice
from blocks.store import ledger
from flows.operations.analyze import analyze
from flows.operations.notify import Channels, deliver, notify, undelivered
from flows.report import tell_anomalies
from flows.workspace import now
from reports.report_values import Anomaly
from tests.contract.conftest import mailer, webhook
from tests.doubles.faults import Fault, Reply
from tests.doubles.slack_server import SlackServer
from tests.doubles.smtp_server import SmtpDouble
from tests.pipeline import Pipeline

NOTICE = Notice(key="k", title="همگام‌سازی شکست خورد", text="the source came back empty", level="error")


@pytest.fixture
def slack() -> Iterator[SlackServer]:
    with SlackServer() as running:
        yield running


@pytest.fixture
def smtp(tmp_path: Path) -> Iterator[SmtpDouble]:
    with SmtpDouble(tmp_path) as running:
        yield running


def test_what_slack_refuses_goes_by_email(slack: SlackServer, smtp: SmtpDouble) -> None:
    """A dead webhook is told, and the notice reaches people by mail, over TLS, with its Persian subject."""
    slack.faults.append(Fault(reply=Reply(404, b"no_service"), times=9))
    channel, errors = deliver(NOTICE, [webhook(slack), mailer(smtp)])
    assert channel == "email" and list(errors) == ["slack"]
    mail = smtp.taken[0]
    assert NOTICE.title in mail["Subject"]


def test_slack_is_first_while_it_works(slack: SlackServer, smtp: SmtpDouble) -> None:
    """Email stays quiet while Slack takes notices."""
    assert deliver(NOTICE, [webhook(slack), mailer(smtp)]) == ("slack", {})
    assert len(slack.posted) == 1 and not smtp.taken


def test_a_messenger_that_asks_to_wait_is_waited_for(slack: SlackServer, smtp: SmtpDouble) -> None:
    """When nobody takes a notice, the next try comes no sooner than Slack asks; when email fails alone, by itself."""
    slack.faults.append(Fault(reply=Reply(429, b"", {"Retry-After": "30"})))
    smtp.data_answer = "451 later"
    channels = Channels([webhook(slack), mailer(smtp)], [])
    _, errors = deliver(NOTICE, channels.open)
    error = undelivered(NOTICE, channels, errors)
    assert error.retry_after == 30 and "slack: Slack asked to wait 30 s; email: " in error.what
    assert undelivered(NOTICE, channels, {"email": errors["email"]}).retry_after is None


def test_an_anomaly_is_told_once(tmp_path: Path) -> None:
    """A new anomaly becomes one notice, however often the report runs; an old one becomes none."""
    (tmp_path / "autosync.toml").write_text("")
    workspace = Pipeline(tmp_path).workspace
    with workspace.database():
        pass
    new, old = Anomaly(now() - 60, "things: changes", 94, (0, 9)), Anomaly(now() - 9e6, "things: changes", 94, (0, 9))
    values = replace(analyze(workspace), anomalies=(new, old))
    assert [tell_anomalies(workspace, values), tell_anomalies(workspace, values)] == [1, 0]
    with workspace.database() as db:
        claimed = ledger.claim(db, now=now())
    assert claimed and claimed[1].text == "things: changes was 94, expected 0 to 9"


def test_a_notice_goes_out_once(tmp_path: Path) -> None:
    """The same key is posted once, and a claimed notice is nobody else's."""
    (tmp_path / "autosync.toml").write_text("")
    workspace = Pipeline(tmp_path).workspace
    with workspace.database() as db:
        assert ledger.post(db, NOTICE, now=now()) and not ledger.post(db, NOTICE, now=now())
        claimed = ledger.claim(db, now=now())
        assert claimed is not None and ledger.claim(db, now=now()) is None
        ledger.undelivered(db, claimed[0], "nobody answered")
    assert notify(workspace).delivered == 1
    assert notify(workspace).delivered == 0
