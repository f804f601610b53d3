"""What every request has to pass before a page sees it, and what every answer carries.

- The name by which the page was asked for: a page from elsewhere that has its name lead to this
  machine (DNS rebinding) is refused.
- The token, where the page is served to other machines.
- For all that changes something: the secret that only pages from here know, so that no other page
  can make a browser do it (CSRF).
- A content policy under which a browser runs and loads only what this package ships.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

COOKIE = "audioset_app"
CSRF_HEADER = "x-audioset-csrf"
LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "media-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Guard:
    """The rules. `token`: None where only this machine can ask; `csrf` is new in each process."""

    token: str | None = None
    is_read_only: bool = False
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    def around(self, app: Application) -> Application:
        """The application, behind these rules."""

        async def guarded(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return

            async def send_with_headers(message: Message) -> None:
                if message["type"] == "http.response.start":
                    headers = MutableHeaders(scope=message)
                    for name, value in HEADERS.items():
                        headers.setdefault(name, value)
                    headers.setdefault("cache-control", "no-store")
                await send(message)

            refused = self._refusal(scope)
            await (refused or app)(scope, receive, send_with_headers)

        return guarded

    def _refusal(self, scope: MutableMapping[str, Any]) -> Response | None:
        """The answer to a request that does not pass, or None."""
        headers = Headers(scope=scope)
        if self.token is None:
            if _host_name(headers.get("host", "")) not in LOOPBACK_NAMES:
                return PlainTextResponse("This page is only for this machine: 127.0.0.1.\n", 421)
        elif (answer := self._without_token(scope, headers)) is not None:
            return answer
        if scope["method"] in _SAFE_METHODS:
            return None
        if self.is_read_only:
            return PlainTextResponse("The page is read-only: nothing was changed.\n", 403)
        origin = headers.get("origin")
        is_from_here = origin is None or urlsplit(origin).netloc == headers.get("host")
        if not is_from_here or not _equal(headers.get(CSRF_HEADER), self.csrf):
            return PlainTextResponse("Load the page again: nothing was changed.\n", 403)
        return None

    def _without_token(self, scope: MutableMapping[str, Any], headers: Headers) -> Response | None:
        """None if the token is in the cookie; a token in the address moves into the cookie."""
        if _equal(cookie_parser(headers.get("cookie", "")).get(COOKIE), self.token):
            return None
        asked = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if scope["method"] == "GET" and _equal(asked.pop("token", [""])[-1], self.token):
            left = urlencode(asked, doseq=True)
            path = "/" + scope["path"].lstrip("/")  # never //host, another site
            answer = RedirectResponse(f"{path}?{left}" if left else path, 303)
            answer.set_cookie(COOKIE, self.token or "", httponly=True, samesite="strict")
            return answer
        message = "A token is needed: open the address that `audioset app` printed.\n"
        return PlainTextResponse(message, 401)


def _equal(given: str | None, secret: str | None) -> bool:
    return bool(given and secret) and hmac.compare_digest(str(given).encode(), str(secret).encode())


def _host_name(host: str) -> str:
    """The name in a Host header, without the port and without the brackets of IPv6."""
    return (urlsplit(f"//{host}").hostname or "") if host.isprintable() else ""
