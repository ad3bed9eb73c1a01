"""Who may read: host names, the token, what a browser may load. One piece of ASGI middleware before everything."""

from __future__ import annotations

import hmac
import time
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from autosync.errors import ConfigError
from reports.dashboard.problems import is_api, problem

__all__ = ["LOOPBACK", "SESSION", "Access", "Guard", "check_exposure"]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
LEAST_TOKEN = 16
SESSION = "autosync_session"
SESSION_SECONDS = 14 * 86_400
OPEN = ("/static/", "/healthz", "/readyz", "/login")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def check_exposure(host: str, token: str | None) -> None:
    """Raises ConfigError when this host would show the data to others without a token, or with a weak one."""
    if token is not None and (len(token) < LEAST_TOKEN or not token.isascii() or token != token.strip()):
        raise ConfigError(
            f"the token of the dashboard is not {LEAST_TOKEN} or more ASCII characters",
            where="AUTOSYNC_DASHBOARD_TOKEN",
            todo="make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    if token is None and host not in LOOPBACK:
        raise ConfigError(
            f"on {host} others could read everything, and no token is set",
            where="autosync dashboard",
            kept="nothing was started",
            todo="set AUTOSYNC_DASHBOARD_TOKEN, or leave --host out",
        )


@dataclass(frozen=True)
class Access:
    """Who may read. token: None means everybody who reaches it. hosts: names it answers to; None means any."""

    token: str | None = None
    hosts: Collection[str] | None = LOOPBACK

    def __repr__(self) -> str:
        return f"Access(token={'***' if self.token else None}, hosts={self.hosts})"

    def host_known(self, host: str) -> bool:
        """Whether the Host header names us: a page elsewhere that points its name at us must not read us."""
        if self.hosts is None:
            return True
        try:
            return urlsplit(f"//{host}").hostname in self.hosts
        except ValueError:
            return False

    def token_right(self, given: str) -> bool:
        """Compares in constant time."""
        return self.token is not None and hmac.compare_digest(given.encode(), self.token.encode())

    def session(self) -> str:
        """A cookie's value that proves for two weeks that the token was given; it doesn't tell the token."""
        until = str(int(time.time()) + SESSION_SECONDS)
        return f"{until}.{self._sign(until)}"

    def session_right(self, given: str) -> bool:
        """Whether a cookie is one of ours that has not ended."""
        until, _, sign = given.partition(".")
        right = hmac.compare_digest(sign.encode(), self._sign(until).encode())
        return right and until.isascii() and until.isdigit() and int(until) > time.time()

    def _sign(self, text: str) -> str:
        return hmac.digest((self.token or "").encode(), f"dashboard session {text}".encode(), "sha256").hex()

    def admits(self, request: Request) -> bool:
        """Whether a request carries the token, or the cookie that came of it."""
        if self.token is None or request.url.path.startswith(OPEN):
            return True
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self.token_right(given.strip())
        return self.session_right(request.cookies.get(SESSION, ""))


class Guard:
    """Refuses foreign hosts and strangers, and tells browsers to load nothing from elsewhere."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refusal = self._refusal(Request(scope))
        await (refusal or self.app)(scope, receive, marked)

    def _refusal(self, request: Request) -> Response | None:
        host = Headers(scope=request.scope).get("host", "")
        if not self.access.host_known(host):
            return problem(421, "This name is not one that the dashboard answers to.")
        if self.access.admits(request):
            return None
        if is_api(request.url.path) or request.method not in ("GET", "HEAD"):
            return problem(401, "A right token is needed.", headers={"WWW-Authenticate": 'Bearer realm="AutoSync"'})
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"/login?to={quote(request.url.path + query, safe='')}", 303)
