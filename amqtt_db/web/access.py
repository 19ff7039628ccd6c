"""Who may see the page: this machine, or whoever knows the token; and what a browser may do with it."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from amqtt_db.config.operation import WebSettings, is_loopback

LOGIN: Final = "/login"
COOKIE: Final = "amqtt_db"
COOKIE_SECONDS: Final = 30 * 86_400

_OPEN: Final = (LOGIN, "/static/")
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def make_cookie(token: str) -> str:
    """Return what the browser keeps instead of the token; the token cannot be found from it."""
    return hmac.new(token.encode(), b"amqtt_db web", hashlib.sha256).hexdigest()


def is_token(given: str, token: str) -> bool:
    """Return True for the right token; the time that this takes tells nothing about it."""
    return hmac.compare_digest(given.encode(), token.encode())


class Gate:
    """Lets in who may see the page, and adds headers that forbid everything it does not need.

    Without a token, requests must name this machine, so that a page of another site cannot reach this one under a name
    that it makes lead here (DNS rebinding).  A form is accepted only from this page.
    """

    def __init__(self, app: ASGIApp, settings: WebSettings) -> None:
        self._app = app
        self._token = settings.token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await (self._refuse(Request(scope)) or self._app)(scope, receive, send_with_headers)

    def _refuse(self, request: Request) -> Response | None:
        """Return the answer to a request that is not let in, None for one that is."""
        if request.method == "POST" and not _is_from_here(request.headers):
            return PlainTextResponse("this form was sent from another site\n", 403)
        if self._token is None:
            host = _host_in(f"//{request.headers.get('host', '')}", "hostname")
            message = f"this page is only for this machine: open it as http://127.0.0.1, not as {host!r}\n"
            return None if is_loopback(host) else PlainTextResponse(message, 403)
        if self._is_known(request, self._token) or request.url.path.startswith(_OPEN):
            return None
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse(LOGIN, 303)
        return PlainTextResponse("send the token: Authorization: Bearer …\n", 401, {"WWW-Authenticate": "Bearer"})

    @staticmethod
    def _is_known(request: Request, token: str) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        has_token = scheme.lower() == "bearer" and is_token(given, token)
        return has_token or is_token(request.cookies.get(COOKIE, ""), make_cookie(token))


def _is_from_here(headers: Headers) -> bool:
    """Return True unless a browser says that a form is from another site."""
    origin = headers.get("origin")
    return origin is None or _host_in(origin, "netloc") == headers.get("host")


def _host_in(url: str, part: str) -> str:
    """Return the host that a header names, without its port or with it; nothing if the header is malformed."""
    try:
        return getattr(urlsplit(url), part) or ""
    except ValueError:
        return ""
