"""A mail server double: STARTTLS with a private authority's certificate, login, scripted refusals."""

from __future__ import annotations

import socket
import ssl
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

USER, PASSWORD = "mailer", "mail-secret"


class SmtpDouble:
    """A server on `localhost`; mail that it took is in `taken`.

    Attributes:
        refuse: Recipient -> answer to RCPT.
        data_answer: Answer to the mail's text; "drop" closes the connection instead.
    """

    def __init__(self, folder: Path, *, login: bool = True, encrypted: bool = True) -> None:
        self.taken: list[EmailMessage] = []
        self.logins = 0
        self.refuse: dict[str, str] = {}
        self.data_answer = "250 OK"
        authority = trustme.CA()
        self.ca_file = folder / "authority.pem"
        authority.cert_pem.write_to_path(str(self.ca_file))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        options: dict[str, Any] = {"tls_context": context} if encrypted else {}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self._controller = Controller(
            self,
            hostname="localhost",
            port=self.port,
            authenticator=self._login,
            auth_required=login,
            auth_require_tls=encrypted,
            require_starttls=encrypted,
            **options,
        )

    def __enter__(self) -> Self:
        self._controller.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._controller.stop()

    def _login(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        self.logins += 1
        if isinstance(data, LoginPassword) and (data.login, data.password) == (USER.encode(), PASSWORD.encode()):
            return AuthResult(success=True)
        return AuthResult(success=False, handled=False)  # handled=True would leave the client waiting for ever

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.refuse:
            return self.refuse[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.data_answer == "drop":
            cast(Any, server).transport.abort()
            return "451 gone"
        if self.data_answer.startswith("250"):
            message = BytesParser(policy=default).parsebytes(cast(bytes, envelope.content))
            self.taken.append(message)
        return self.data_answer
