"""Notices and reports by email, over any SMTP server."""

from __future__ import annotations

import contextlib
import hashlib
import mimetypes
import re
import smtplib
import ssl
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from email.header import Header
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from pathlib import Path
from typing import Literal

from prefect.blocks.core import Block
from pydantic import Field, HttpUrl, SecretStr

from autosync.errors import ConfigError, RemoteError, RemoteUnavailable
from autosync.ports import Notice

__all__ = ["EmailNotifier", "SmtpServer"]

Security = Literal["starttls", "tls", "none"]
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_KEPT = "the notice stays in the outbox"
_LOGIN = "check user name and password; many providers want an app password made for this purpose"


class SmtpServer(Block):
    """A mail server and who gets AutoSync's mail.

    Attributes:
        host: The mail server's name.
        port: Usually 587 for STARTTLS, 465 for TLS.
        security: How the connection is encrypted.
        username: The account, or nothing when the server takes mail without one.
        password: The account's password or app password.
        sender: The address that mail comes from.
        recipients: The addresses that get every notice.
        ca_file: A certificate authority's file, for a server with a private certificate.
        timeout: Seconds to wait for an answer.

    Example:
        ```python
        from blocks.notify.email import SmtpServer

        server = SmtpServer.load("BLOCK_NAME")
        server.notifier().check()
        ```
    """

    _block_type_name = "AutoSync SMTP Server"
    _block_type_slug = "autosync-smtp-server"
    _description = "Sends AutoSync's notices and reports by email."
    _documentation_url = HttpUrl("https://docs.python.org/3/library/smtplib.html")
    _logo_url = HttpUrl(
        "https://cdn.sanity.io/images/3ugk85nk/production/82bc6ed16ca42a2252a5512c72233a253b8a58eb-250x250.png"
    )

    host: str = Field(description="The mail server's name, such as smtp.example.org.")
    port: int = Field(default=587, gt=0, lt=65536, description="The server's port: 587 for STARTTLS, 465 for TLS.")
    security: Security = Field(default="starttls", description="How the connection is encrypted.")
    username: str = Field(default="", description="The account; empty when the server asks for none.")
    password: SecretStr = Field(default=SecretStr(""), description="The account's password or app password.")
    sender: str = Field(description="The address that mail comes from.")
    recipients: list[str] = Field(min_length=1, description="The addresses that get every notice.")
    ca_file: Path | None = Field(default=None, description="A file with the certificate authority to trust instead.")
    timeout: float = Field(default=30.0, gt=0, description="Seconds to wait for an answer.")

    def notifier(self) -> EmailNotifier:
        """The recipients as a place to send notices to."""
        return EmailNotifier(
            Account(self.host, self.port, self.security, self.username, self.password.get_secret_value()),
            sender=self.sender,
            recipients=self.recipients,
            ca_file=self.ca_file,
            timeout=self.timeout,
        )


@dataclass(frozen=True)
class Account:
    """Where mail is handed in, and as whom."""

    host: str
    port: int = 587
    security: Security = "starttls"
    username: str = ""
    password: str = field(default="", repr=False)


class EmailNotifier:
    """Sends mail; the password goes over an encrypted, verified connection or not at all."""

    name = "email"

    def __init__(
        self,
        account: Account,
        *,
        sender: str,
        recipients: Iterable[str],
        ca_file: Path | None = None,
        timeout: float = 30.0,
    ) -> None:
        if account.username and account.security == "none":
            raise ConfigError(
                "The mail account has a password, but its connection would not be encrypted",
                where=f"block SmtpServer, {account.host}",
                kept="the password was not sent",
                todo="set security to starttls or tls",
            )
        self._account, self._ca_file, self._timeout = account, ca_file, timeout
        self._sender = _address(sender)
        self._recipients = tuple(_address(recipient) for recipient in recipients)

    def __repr__(self) -> str:
        return f"EmailNotifier({self._account.host!r}, recipients={[str(address) for address in self._recipients]})"

    def send(self, notice: Notice) -> None:
        """Mail the notice; its key gives the Message-ID, so a repeated delivery can be recognised."""
        facts = "\n".join(f"{label}: {value}" for label, value in notice.facts)
        text = "\n\n".join(part for part in (notice.text.strip(), facts, notice.link) if part)
        self.send_message(f"[AutoSync {notice.level}] {notice.title}", _CONTROL.sub(" ", text) + "\n", key=notice.key)

    def send_message(
        self,
        subject: str,
        text: str,
        html: str | None = None,
        attachments: Iterable[tuple[str, bytes]] = (),
        *,
        key: str = "",
    ) -> None:
        """Mail a text, with its HTML form and attached files (name, bytes) if there are any."""
        message = EmailMessage(policy=SMTP)
        # EmailMessage loses the space between two encoded words when it folds them; Header keeps it.
        message.set_raw("Subject", Header(_line(subject), "utf-8", header_name="Subject").encode())
        message["From"], message["To"] = self._sender, self._recipients
        message["Date"] = formatdate(localtime=False)
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text)
        if html is not None:
            message.add_alternative(html, subtype="html")
        for name, data in attachments:
            kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
            main, _, sub = kind.partition("/")
            message.add_attachment(data, maintype=main, subtype=sub, filename=_line(name))
        digest = hashlib.sha256(key.encode() if key else message.as_bytes()).hexdigest()[:32]
        message["Message-ID"] = f"<{digest}@{self._sender.domain or 'localhost'}>"
        with self._session() as client:
            refused = client.send_message(message)
        if refused:
            raise RemoteError(
                f"The mail server refused {_refusals(refused)}",
                where=self._account.host,
                kept="the other recipients have the mail",
                todo="correct the address in the block; the mail is not sent again to the others",
            )

    def check(self) -> None:
        """Connect, encrypt, log in and leave again."""
        with self._session() as client:
            client.noop()

    @contextlib.contextmanager
    def _session(self) -> Iterator[smtplib.SMTP]:
        try:
            client = self._connect()
            try:
                yield client
                with contextlib.suppress(OSError, smtplib.SMTPException):
                    client.quit()  # whatever goes wrong now, the mail was taken
            finally:
                client.close()
        except (smtplib.SMTPException, OSError, ssl.CertificateError) as error:
            raise self._explained(error) from None

    def _connect(self) -> smtplib.SMTP:
        account = self._account
        context = ssl.create_default_context(cafile=self._ca_file)
        if account.security == "tls":
            client: smtplib.SMTP = smtplib.SMTP_SSL(account.host, account.port, timeout=self._timeout, context=context)
        else:
            client = smtplib.SMTP(account.host, account.port, timeout=self._timeout)
        with contextlib.ExitStack() as unless_done:
            unless_done.callback(client.close)
            if account.security == "starttls":
                client.starttls(context=context)
            if account.username:
                client.login(account.username, account.password)
            unless_done.pop_all()
        return client

    def _explained(self, error: Exception) -> RemoteError:
        """The server's answer as an error that says what to do."""
        where = f"{self._account.host}, port {self._account.port}"
        later, what, todo = _verdict(error)
        if later:
            return RemoteUnavailable(what, where=where, kept=_KEPT, todo="nothing; it is sent again later")
        return RemoteError(what, where=where, kept=_KEPT, todo=todo)


def _verdict(error: Exception) -> tuple[bool, str, str]:
    """Whether it may work later, what happened, and what to do if it won't."""
    match error:
        case smtplib.SMTPRecipientsRefused():
            later = all(400 <= code < 500 for code, _ in error.recipients.values())
            return (
                later,
                f"The mail server refused {_refusals(error.recipients)}",
                "correct the recipients in the block",
            )
        case smtplib.SMTPAuthenticationError():
            return error.smtp_code < 500, f"The mail server refused the login ({error.smtp_code})", _LOGIN
        case smtplib.SMTPResponseException():
            what = f"The mail server answered {error.smtp_code} {_said(error.smtp_error)}"
            return 400 <= error.smtp_code < 500, what, "follow the server's answer, or send through another server"
        case smtplib.SMTPNotSupportedError():
            return False, f"The mail server can't do what is needed: {error}", "check port and security in the block"
        case ssl.SSLCertVerificationError():
            what = f"The mail server's certificate is not trusted: {error.verify_message}"
            return False, what, "use the name in its certificate as host, or give its authority's file as ca_file"
        case ssl.SSLError():
            return False, "The mail server speaks no TLS there", "use starttls with port 587 or tls with port 465"
        case FileNotFoundError():
            return False, "The file named as ca_file is missing", "correct ca_file in the block"
        case TimeoutError():
            return True, "The mail server did not answer in time", ""
        case _:
            return True, f"The mail server did not answer ({type(error).__name__})", ""


def _refusals(refused: dict[str, tuple[int, bytes]]) -> str:
    return "; ".join(f"{address}: {code} {_said(reason)}" for address, (code, reason) in refused.items())


def _said(reason: bytes | str) -> str:
    return _line(reason.decode("utf-8", "replace") if isinstance(reason, bytes) else reason)[:200]


def _line(text: str) -> str:
    """One line: a header can't be ended from inside its value."""
    return " ".join(_CONTROL.sub(" ", text).split())


def _address(text: str) -> Address:
    name, _, spec = text.strip().removesuffix(">").rpartition("<")
    try:
        if _line(text) != text.strip() or spec.count("@") != 1:
            raise ValueError("it has no @")
        return Address(name.strip().strip('"'), addr_spec=spec)
    except (ValueError, IndexError) as error:
        raise ConfigError(
            f"{text!r} is not an email address", where="block SmtpServer", todo="write it as name@example.org"
        ) from error
