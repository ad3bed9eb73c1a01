"""Notices to a Slack channel through an incoming webhook."""

from __future__ import annotations

import logging
import random
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from urllib.error import URLError

from prefect.blocks.core import Block
from pydantic import Field, HttpUrl, SecretStr
from slack_sdk.errors import SlackObjectFormationError
from slack_sdk.http_retry.builtin_handlers import ServerErrorRetryHandler
from slack_sdk.http_retry.handler import RetryHandler
from slack_sdk.http_retry.request import HttpRequest
from slack_sdk.http_retry.response import HttpResponse
from slack_sdk.http_retry.state import RetryState
from slack_sdk.models.blocks import Block as MessageBlock
from slack_sdk.models.blocks import ContextBlock, HeaderBlock, MarkdownTextObject, PlainTextObject, SectionBlock
from slack_sdk.webhook import WebhookClient, WebhookResponse

from autosync.errors import ConfigError, RemoteError, RemoteUnavailable
from autosync.policy import asked_wait
from autosync.ports import Level, Notice

__all__ = ["SlackNotifier", "SlackWebhook"]

HEADER, SECTION, FIELD, FIELDS, BLOCKS = 150, 3000, 2000, 10, 50
_MARKS: dict[Level, str] = {"info": "ℹ️", "warning": "⚠️", "error": "🔴"}
_KEPT = "the notice stays in the outbox"
_GONE = "make a new incoming webhook in Slack and put its address into the block"


class SlackWebhook(Block):
    """An incoming webhook of one Slack channel.

    Attributes:
        url: The webhook's secret address.
        timeout: Seconds to wait for an answer.
        retries: How often one send is repeated at once when Slack is busy or fails.
        longest_wait: The longest wait that Slack may ask for and get within one send.

    Example:
        ```python
        from blocks.notify.slack import SlackWebhook

        webhook = SlackWebhook.load("BLOCK_NAME")
        webhook.notifier().check()
        ```
    """

    _block_type_name = "AutoSync Slack Webhook"
    _block_type_slug = "autosync-slack-webhook"
    _description = "Sends AutoSync's notices to a Slack channel."
    _documentation_url = HttpUrl("https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks/")
    _logo_url = HttpUrl(
        "https://raw.githubusercontent.com/PrefectHQ/prefect/420d0d6a78bb6df1fc18bcf188fdad43c1d22ea9/assets/block-logos/slack.png"
    )

    url: SecretStr = Field(description="The webhook's address, https://hooks.slack.com/services/... It is a secret.")
    timeout: float = Field(default=15.0, gt=0, description="Seconds to wait for an answer.")
    retries: int = Field(default=2, ge=0, description="How often a send is repeated at once when Slack is busy.")
    longest_wait: float = Field(default=10.0, ge=0, description="The longest wait in seconds granted within one send.")

    def notifier(self) -> SlackNotifier:
        """The channel as a place to send notices to."""
        return SlackNotifier(
            self.url.get_secret_value(), timeout=self.timeout, retries=self.retries, longest_wait=self.longest_wait
        )


class SlackNotifier:
    """Posts notices with Block Kit; the webhook's address appears in no message, error or log."""

    name = "slack"

    def __init__(self, url: str, *, timeout: float = 15.0, retries: int = 2, longest_wait: float = 10.0) -> None:
        if not re.fullmatch(r"https?://[^\s/]+/\S*", url.strip()):
            raise ConfigError(
                "The Slack webhook's address is not a web address", where="block SlackWebhook", todo=_GONE
            )
        quiet = logging.getLogger("autosync.slack")
        quiet.setLevel(logging.CRITICAL)  # slack_sdk writes the secret address to its log
        handlers = [_ShortWait(retries, longest_wait), _ServerError(max_retry_count=retries)]
        self._client = WebhookClient(
            url.strip(),
            timeout=timeout,  # type: ignore[arg-type] # urlopen takes a float; slack_sdk's hint says int
            logger=quiet,
            retry_handlers=handlers if retries else [],
        )

    def __repr__(self) -> str:
        return "SlackNotifier()"

    def send(self, notice: Notice) -> None:
        """Post the notice once; an answer that is lost on the way counts as not delivered."""
        blocks = list(_blocks(notice))
        try:
            for block in blocks:
                block.validate_json()
        except SlackObjectFormationError as error:
            raise RemoteError(
                f"Slack can't show this notice: {error}", where=notice.key, todo="send a shorter notice"
            ) from None
        response = self._post({"text": _fit(f"{notice.title}\n{notice.text}", SECTION), "blocks": blocks})
        if response.status_code != 200:
            raise _refusal(response)

    def check(self) -> None:
        """An empty message, which a live webhook refuses and a dead one does not know."""
        response = self._post({})
        if response.status_code == 200:
            raise RemoteError("The address answered, but not as Slack does", where=self.name, todo=_GONE)
        if response.status_code != 400:
            raise _refusal(response)

    def _post(self, body: dict[str, object]) -> WebhookResponse:
        try:
            return self._client.send_dict(body)
        except (OSError, HTTPException) as error:
            reason = error.reason if isinstance(error, URLError) else error
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise RemoteError(
                    f"Slack's certificate is not trusted: {reason.verify_message}",
                    where=self.name,
                    kept=_KEPT,
                    todo="have the proxy's certificate authority added to this machine",
                ) from None
            kind = "in time" if isinstance(reason, TimeoutError) else f"({type(reason).__name__})"
            raise RemoteUnavailable(
                f"Slack did not answer {kind}", where=self.name, kept=_KEPT, todo="check the network; it is sent again"
            ) from None


class _ShortWait(RetryHandler):
    """Waits as long as Slack asks to, unless that is too long to sit out."""

    def __init__(self, retries: int, longest_wait: float) -> None:
        super().__init__(max_retry_count=retries)
        self._longest_wait = longest_wait

    def _can_retry(
        self,
        *,
        state: RetryState,  # noqa: ARG002  # the handlers' signature
        request: HttpRequest,  # noqa: ARG002
        response: HttpResponse | None = None,
        error: Exception | None = None,  # noqa: ARG002
    ) -> bool:
        wait = _asked(response.status_code, response.headers) if response is not None else None
        return wait is not None and wait <= self._longest_wait

    def prepare_for_next_attempt(
        self,
        *,
        state: RetryState,
        request: HttpRequest,  # noqa: ARG002
        response: HttpResponse | None = None,
        error: Exception | None = None,  # noqa: ARG002
    ) -> None:
        """Sit the wait out, a little longer at random."""
        wait = _asked(response.status_code, response.headers) if response is not None else None
        time.sleep((wait or 0.0) + random.random())  # noqa: S311  # spreads waiters
        state.next_attempt_requested = True
        state.increment_current_attempt()


class _ServerError(ServerErrorRetryHandler):
    """Repeats after a failure of Slack's for which it asks no wait."""

    def _can_retry(
        self,
        *,
        state: RetryState,
        request: HttpRequest,
        response: HttpResponse | None = None,
        error: Exception | None = None,
    ) -> bool:
        if response is not None and _asked(response.status_code, response.headers) is not None:
            return False
        return super()._can_retry(state=state, request=request, response=response, error=error)


def _asked(status: int, headers: Mapping[str, str | list[str]]) -> float | None:
    """The seconds that Slack asks to wait; one for a rate limit without a time."""
    if status != 429 and status < 500:
        return None
    plain = {name.lower(): value if isinstance(value, str) else value[0] for name, value in headers.items()}
    wait = asked_wait(plain, now=time.time())
    return 1.0 if wait is None and status == 429 else wait


def _refusal(response: WebhookResponse) -> RemoteError:
    """Slack's answer as an error that says what to do."""
    status, said = response.status_code, response.body.strip()[:100]
    if status == 429 or status >= 500:
        wait = _asked(status, response.headers)
        return RemoteUnavailable(
            f"Slack failed with status {status}" if wait is None else f"Slack asked to wait {wait:,.0f} s",
            where="slack",
            kept=_KEPT,
            todo="nothing; it is sent again later",
            retry_after=wait,
        )
    todo = _GONE if status in (401, 403, 404, 410) else "report this notice's text; Slack can't show it"
    return RemoteError(f"Slack refused the message: {status} {said}", where="slack", kept=_KEPT, todo=todo)


def _blocks(notice: Notice) -> Iterator[MessageBlock]:
    title = " ".join(notice.title.split()) or "AutoSync"
    yield HeaderBlock(text=PlainTextObject(text=_fit(f"{_MARKS[notice.level]} {title}", HEADER), emoji=False))
    if notice.text.strip():
        yield SectionBlock(text=MarkdownTextObject(text=_fit(notice.text.strip(), SECTION)))
    facts = [_fact(label, value) for label, value in notice.facts]
    room = (BLOCKS - 4) * FIELDS
    for start in range(0, min(len(facts), room), FIELDS):
        yield SectionBlock(fields=facts[start : start + FIELDS])
    if len(facts) > room:
        yield ContextBlock(elements=[MarkdownTextObject(text=f"… and {len(facts) - room} more")])
    if notice.link:
        yield ContextBlock(elements=[MarkdownTextObject(text=_link(notice.link))])


def _fact(label: str, value: str) -> MarkdownTextObject:
    return MarkdownTextObject(text=f"*{_fit(label, 200)}*\n" + _fit(value or "-", FIELD - 203))


def _link(address: str) -> str:
    if address.startswith(("https://", "http://")) and len(address) < FIELD:
        target = address.translate({ord("|"): "%7C", ord("<"): "%3C", ord(">"): "%3E", ord(" "): "%20"})
        return f"<{target.replace('&', '&amp;')}|Read on>"
    return _fit(address, FIELD)


def _fit(text: str, limit: int) -> str:
    """The text with Slack's three special characters escaped, cut with an ellipsis to what fits."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    if len(escaped) > limit:
        escaped = re.sub(r"&[a-z]{0,3}$", "", escaped[: limit - 1]) + "…"
    return escaped
