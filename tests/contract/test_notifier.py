"""The contract of a Notifier, for every implementation, and what only Slack or mail can do wrong."""

from __future__ import annotations

import io
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

import pytest
from pydantic import SecretStr

from autosync.errors import ConfigError, RemoteError, RemoteUnavailable
from autosync.ports import Notice, Notifier
from blocks.notify.console import ConsoleNotifier
from blocks.notify.email import SmtpServer
from blocks.notify.slack import SlackWebhook
from tests.contract.conftest import mailer, webhook
from tests.doubles.faults import Fault, Reply
from tests.doubles.memory import MemoryNotifier
from tests.doubles.slack_server import SlackServer, said
from tests.doubles.smtp_server import SmtpDouble

NOTICE = Notice(
    "run-7:failed",
    "همگام‌سازی تیکت‌ها شکست خورد <tickets>",
    "3 records were refused.\nSee *quarantine* & [red]retry[/red].",
    "error",
    (("Seq", "41-44"), ("Collection", "تیکت‌ها")),
    "https://ci.example.org/run?a=1&b=2",
)


@dataclass
class Desk:
    """A notifier to test and what its readers see."""

    kind: str
    notifier: Notifier
    read: Callable[[], list[str]]


def mails(smtp: SmtpDouble) -> list[str]:
    """Subject and text of what was taken."""
    found = []
    for mail in smtp.taken:
        body = mail.get_body(("plain",))
        assert body is not None
        found.append(f"{mail['Subject']}\n{body.get_content()}")
    return found


@pytest.fixture(params=["console", "slack", "email", "memory"])
def desk(request: pytest.FixtureRequest) -> Desk:
    """Each implementation."""
    kind: str = request.param
    if kind == "memory":
        memory = MemoryNotifier()
        return Desk(kind, memory, lambda: [f"{n.title}\n{n.text}\n{n.facts}\n{n.link}" for n in memory.sent])
    if kind == "console":
        stream = io.StringIO()
        return Desk(kind, ConsoleNotifier(stream), lambda: [t for t in stream.getvalue().split("\x1e") if t])
    if kind == "slack":
        slack = request.getfixturevalue("slack")
        return Desk(kind, webhook(slack), lambda: [_unescaped(said(message)) for message in slack.posted])
    smtp = request.getfixturevalue("smtp")
    return Desk(kind, mailer(smtp), lambda: mails(smtp))


def _unescaped(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def test_everything_arrives_once(desk: Desk) -> None:
    """Title, text, facts and link arrive as they are, in any script, and once for one call."""
    desk.notifier.send(NOTICE)
    (seen,) = desk.read()
    for part in (NOTICE.title, *NOTICE.text.splitlines(), "Seq", "41-44", "تیکت‌ها", NOTICE.link):
        assert part in seen
    assert seen.count("3 records") == 1


def test_a_bare_notice_arrives(desk: Desk) -> None:
    """A notice of a title alone is no special case."""
    desk.notifier.send(Notice("k", "Done", ""))
    (seen,) = desk.read()
    assert "Done" in seen


def test_a_very_long_notice_arrives(desk: Desk) -> None:
    """However long title, text and facts are, the notice arrives and its beginning can be read."""
    facts = tuple((f"label {number} " + "l" * 400, "v" * 5000) for number in range(600))
    desk.notifier.send(
        Notice("k", "Title & " * 100, "Text <x> " * 5000, "warning", facts, "https://x.org/" + "y" * 5000)
    )
    (seen,) = desk.read()
    assert "Title & Title &" in seen
    assert "Text <x> Text <x>" in seen
    assert "label 0" in seen


def test_control_characters_do_no_harm(desk: Desk) -> None:
    """A title or a fact with line ends and escape sequences starts no header, colour or mention."""
    if desk.kind == "memory":
        pytest.skip("nobody reads it")
    desk.notifier.send(
        Notice("k", "Hi\r\nBcc: x@example.org\x1b[31m", "a\x1b[2Jb <!channel>", facts=(("l\r\nX: y", "v"),))
    )
    (seen,) = desk.read()
    assert "\x1b" not in seen or desk.kind == "slack"
    assert "\nBcc:" not in seen


def test_check_tells_nobody(desk: Desk) -> None:
    """A check of a working notifier passes and delivers nothing."""
    desk.notifier.check()
    assert desk.read() == []


def test_a_closed_console_is_told() -> None:
    """A stream that is gone is a RemoteError, for the check and for the notice."""
    stream = io.StringIO()
    stream.close()
    for call in (ConsoleNotifier(stream).check, lambda: ConsoleNotifier(stream).send(NOTICE)):
        with pytest.raises(RemoteError):
            call()


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_dead_webhook_says_what_to_do(slack: SlackServer, status: int) -> None:
    """A revoked or archived webhook is a RemoteError that asks for a new one, in check and send."""
    slack.faults.append(Fault(reply=Reply(status, b"no_service"), times=2))
    for call in (webhook(slack).check, lambda: webhook(slack).send(NOTICE)):
        with pytest.raises(RemoteError, match="new incoming webhook") as caught:
            call()
        assert not caught.value.retryable


@pytest.mark.parametrize("form", [str, lambda seconds: formatdate(time.time() + seconds, usegmt=True)])
@pytest.mark.parametrize("status", [429, 503])
def test_slack_asking_to_wait_is_passed_on(slack: SlackServer, status: int, form: Callable[[int], str]) -> None:
    """A wait longer than granted within one send is RemoteUnavailable with its seconds, at once, in either form."""
    slack.faults.append(Fault(reply=Reply(status, b"", {"Retry-After": form(30)}), times=9))
    with pytest.raises(RemoteUnavailable, match="Slack asked to wait") as caught:
        webhook(slack, retries=2).send(NOTICE)
    assert caught.value.retry_after == pytest.approx(30, abs=2)
    assert len(slack.calls) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_short_wait_is_as_long_as_slack_asks(slack: SlackServer, status: int) -> None:
    """A second that Slack asks for is waited within the send."""
    slack.faults.append(Fault(reply=Reply(status, b"", {"Retry-After": "1"})))
    webhook(slack, retries=1).send(NOTICE)
    first, second = slack.calls
    assert second.at - first.at >= 1


@pytest.mark.parametrize("reply", [Reply(429, b"", {"Retry-After": "0"}), Reply(500, b"rollup_error")])
def test_a_short_trouble_is_sat_out(slack: SlackServer, reply: Reply) -> None:
    """A short wait or one failure is repeated within the send, and the notice arrives once."""
    slack.faults.append(Fault(reply=reply))
    webhook(slack, retries=1).send(NOTICE)
    assert len(slack.posted) == 1


def test_a_lasting_trouble_is_given_up(slack: SlackServer) -> None:
    """Failures beyond the granted repetitions are RemoteUnavailable."""
    slack.faults.append(Fault(reply=Reply(503, b""), times=9))
    with pytest.raises(RemoteUnavailable):
        webhook(slack).send(NOTICE)
    assert len(slack.calls) == 1


@pytest.mark.parametrize("fault", [Fault(dropped=True), Fault(lost=True), Fault(delay=2.2)])
def test_no_answer_hides_the_address(slack: SlackServer, fault: Fault, caplog: pytest.LogCaptureFixture) -> None:
    """A cut or silent connection is RemoteUnavailable, is not repeated, and shows the secret address nowhere."""
    caplog.set_level(logging.DEBUG)
    slack.faults.append(fault)
    notifier = webhook(slack, retries=2)
    with pytest.raises(RemoteUnavailable) as caught:
        notifier.send(NOTICE)
    assert len(slack.calls) == 1
    assert "webhook-secret" not in f"{caught.value} {caught.value!r} {notifier!r} {caplog.text}"


def test_an_address_that_is_none_is_refused() -> None:
    """A webhook that is no web address is a ConfigError that doesn't repeat it."""
    with pytest.raises(ConfigError) as caught:
        SlackWebhook(url=SecretStr("hooks.slack.com/secret")).notifier()
    assert "secret" not in str(caught.value)


def test_mail_is_complete(smtp: SmtpDouble) -> None:
    """A mail has one Message-ID per notice key, both recipients, and HTML and attachments where given."""
    sender = mailer(smtp)
    sender.send(NOTICE)
    sender.send(NOTICE)
    sender.send_message("گزارش", "text", "<p>text</p>", [("گزارش.pdf", b"%PDF-1"), ("a.csv", b"1,2")])
    first, second, report = smtp.taken
    assert first["Message-ID"] == second["Message-ID"] != report["Message-ID"]
    assert [address.addr_spec for address in report["To"].addresses] == ["ops@example.org", "ali@example.org"]
    assert [part.get_filename() for part in report.iter_attachments()] == ["گزارش.pdf", "a.csv"]
    html = report.get_body(("html",))
    assert html is not None and "<p>text</p>" in html.get_content()


Trouble = tuple[Callable[[SmtpDouble], None], bool, str]
BOTH = ("ops@example.org", "ali@example.org")
TROUBLES: list[Trouble] = [
    (lambda smtp: smtp.refuse.update({"ops@example.org": "550 no such user"}), False, "ops@example.org: 550"),
    (
        lambda smtp: smtp.refuse.update(dict.fromkeys(BOTH, "451 greylisted")),
        True,
        "",
    ),
    (
        lambda smtp: smtp.refuse.update(dict.fromkeys(BOTH, "550 no")),
        False,
        "recipients",
    ),
    (lambda smtp: setattr(smtp, "data_answer", "451 try again"), True, "451"),
    (lambda smtp: setattr(smtp, "data_answer", "552 too large"), False, "552"),
    (lambda smtp: setattr(smtp, "data_answer", "drop"), True, "did not answer"),
]


@pytest.mark.parametrize(("break_it", "later", "text"), TROUBLES)
def test_a_refused_mail(smtp: SmtpDouble, break_it: Callable[[SmtpDouble], None], later: bool, text: str) -> None:
    """What may pass is RemoteUnavailable, what won't is a RemoteError that quotes the server."""
    break_it(smtp)
    with pytest.raises(RemoteError) as caught:
        mailer(smtp).send(NOTICE)
    assert caught.value.retryable is later
    assert text in str(caught.value)


def test_one_refused_recipient_keeps_the_other(smtp: SmtpDouble) -> None:
    """When one address is refused the other still gets the mail, and the error says so."""
    smtp.refuse["ali@example.org"] = "550 no such user"
    with pytest.raises(RemoteError, match="other recipients have the mail"):
        mailer(smtp).send(NOTICE)
    assert len(smtp.taken) == 1


def test_a_wrong_password_says_what_to_do(smtp: SmtpDouble) -> None:
    """A refused login is a RemoteError about the password without the password."""
    notifier = mailer(smtp, password="wrong-secret")
    with pytest.raises(RemoteError, match="app password") as caught:
        notifier.check()
    assert not caught.value.retryable
    assert "wrong-secret" not in f"{caught.value} {notifier!r}"


def test_no_password_without_trust(smtp: SmtpDouble, tmp_path: Path) -> None:
    """With a certificate that nobody trusts, or without TLS, the password is never sent."""
    strange = SmtpDouble(tmp_path).ca_file
    with pytest.raises(RemoteError, match="not trusted"):
        mailer(smtp, ca_file=strange).check()
    with SmtpDouble(tmp_path, login=False, encrypted=False) as plain:
        with pytest.raises(RemoteError, match="port and security"):
            mailer(plain).check()
        assert plain.logins == smtp.logins == 0
    with pytest.raises(ConfigError, match="not be encrypted"):
        SmtpServer(host="h", security="none", username="u", sender="a@b.org", recipients=["c@d.org"]).notifier()


def test_a_server_without_login(tmp_path: Path) -> None:
    """A local mail server that asks for nothing gets the mail without TLS."""
    with SmtpDouble(tmp_path, login=False, encrypted=False) as smtp:
        SmtpServer(
            host="localhost", port=smtp.port, security="none", sender="a@b.org", recipients=["c@d.org"]
        ).notifier().send(NOTICE)
        assert len(smtp.taken) == 1


def test_nobody_there_is_unavailable() -> None:
    """A port where nothing listens is RemoteUnavailable, for mail and for Slack."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = SmtpServer(host="127.0.0.1", port=port, sender="a@b.org", recipients=["c@d.org"], timeout=1)
    for notifier in (server.notifier(), SlackWebhook(url=SecretStr(f"http://127.0.0.1:{port}/x")).notifier()):
        with pytest.raises(RemoteUnavailable):
            notifier.send(NOTICE)


@pytest.mark.parametrize("address", ["nobody", "a@b.org\r\nBcc: c@d.org", "a@b@c", "", "<>"])
def test_a_wrong_address_is_refused(address: str) -> None:
    """What is no email address is refused before any mail is sent."""
    with pytest.raises(ConfigError):
        SmtpServer(host="h", sender="a@b.org", recipients=[address]).notifier()
