"""The pages over HTTP: addresses, errors, and live updates."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib.metadata import version
from time import monotonic
from typing import Any, Final
from urllib.parse import parse_qsl

from jinja2 import Environment
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from amqtt_db.config import Settings
from amqtt_db.config.operation import WebSettings
from amqtt_db.errors import AmqttDbError, NoDatabaseYet
from amqtt_db.web import pages
from amqtt_db.web.access import COOKIE, COOKIE_SECONDS, LOGIN, Gate, is_token, make_cookie
from amqtt_db.web.pulse import Pulse
from amqtt_db.web.templating import make_templates

Show = Callable[[Settings, Pulse, Mapping[str, str]], dict[str, Any]]

PAGES: Final[Mapping[str, Show]] = {
    "overview": pages.view_overview,
    "topics": pages.view_topics,
    "topic": pages.view_topic,
    "devices": pages.view_devices,
    "dead": pages.view_dead,
    "routes": pages.view_routes,
}
"""Pages by the name of their template."""

LIVE: Final = ("overview", "topics", "topic", "devices")
"""Pages that change while somebody looks at them; ``<name>_live.html`` is the part that does."""

LIVE_PAUSE: Final = 2.0
"""Seconds between two updates; more if making them takes long."""

MOST_STREAMS: Final = 20
"""How many pages are kept up to date at once."""

_LONGEST_FORM: Final = 1_000_000  # bytes
_REST_PER_WORK: Final = 10  # a page that takes a second is made again after ten


class Site:
    """The pages of one configuration."""

    def __init__(self, settings: Settings, web: WebSettings) -> None:
        self._settings = settings
        self._token = web.token
        self._time_limit = settings.writer.time_limit
        self._pulse = Pulse(settings.journal.path)
        self._templates: Environment = make_templates()
        self._streams = 0
        self._ending = asyncio.Event()
        self._trial: asyncio.Future[dict[str, Any]] | None = None

    def make_app(self, web: WebSettings) -> Starlette:
        """Return the application."""
        return Starlette(
            routes=[
                Route("/", self.show, name="overview"),
                Route("/try", self.try_sample, methods=["GET", "POST"]),
                Route(LOGIN, self.log_in, methods=["GET", "POST"]),
                Route("/live/{page}", self.stream),
                Mount("/static", StaticFiles(packages=[("amqtt_db.web", "static")])),
                Route("/{page}", self.show),
            ],
            middleware=[Middleware(Gate, settings=web)],
            exception_handlers={HTTPException: self.explain},
            lifespan=self._live,
        )

    @asynccontextmanager
    async def _live(self, _: Starlette) -> AsyncIterator[None]:
        beating = asyncio.create_task(self._pulse.keep_beating())
        try:
            yield
        finally:
            beating.cancel()

    def show(self, request: Request) -> Response:
        """Answer with a page, or with what keeps it from being shown."""
        name = request.path_params.get("page", "overview")
        if name not in PAGES:
            return self._tell(404, "There is no such page.")
        query = dict(request.query_params)
        try:
            return self._page(name, live=_live_address(name, request), **self._look(name, query))
        except pages.NotFound as error:
            return self._tell(404, str(error))
        except ValueError as error:
            return self._tell(400, str(error))
        except NoDatabaseYet:
            return self._page("empty")
        except AmqttDbError as error:
            return self._tell(503, str(error), is_database=True)

    async def stream(self, request: Request) -> Response:
        """Send the changing part of a page again whenever it has changed, as server-sent events."""
        name = request.path_params["page"]
        if name not in LIVE:
            return PlainTextResponse("this page does not change by itself\n", 404)
        if self._streams >= MOST_STREAMS:
            return PlainTextResponse("too many pages are kept up to date already\n", 503)
        return StreamingResponse(self._events(name, dict(request.query_params)), media_type="text/event-stream")

    async def _events(self, name: str, query: Mapping[str, str]) -> AsyncIterator[str]:
        self._streams += 1
        ending = asyncio.ensure_future(self._ending.wait())
        try:
            last = ""
            while not ending.done():
                began = monotonic()
                making = asyncio.ensure_future(run_in_threadpool(self._part, name, query))
                await asyncio.wait({making, ending}, return_when=asyncio.FIRST_COMPLETED)
                if making.done():
                    part = making.result()
                    yield _event(part) if part != last else ": nothing new\n\n"
                    last = part
                    await asyncio.wait({ending}, timeout=max(LIVE_PAUSE, _REST_PER_WORK * (monotonic() - began)))
        finally:
            ending.cancel()
            self._streams -= 1

    def end_streams(self) -> None:
        """Let all streams end soon, because the server ends."""
        self._ending.set()

    def _part(self, name: str, query: Mapping[str, str]) -> str:
        """Return the changing part of a page; a database that is away is told in its place."""
        try:
            return self._templates.get_template(f"{name}_live.html").render(self._look(name, query), query=query)
        except (AmqttDbError, pages.NotFound, ValueError) as error:
            return self._templates.get_template("problem.html").render(problem=str(error))

    def _look(self, name: str, query: Mapping[str, str]) -> dict[str, Any]:
        return {**PAGES[name](self._settings, self._pulse, query), "query": query}

    async def try_sample(self, request: Request) -> Response:
        """Show what a sample would become; one at a time, because the decoder may be anybody's code."""
        if request.method == "GET":
            return self._page("try", **pages.blank_sample(request.query_params.get("topic", "")))
        form = await _read_form(request)
        if form is None:
            return self._tell(413, "The sample is too long for this page; use amqtt-db check --sample FILE.")
        if self._trial is not None and not self._trial.done():
            return self._tell(503, "Another sample is being tried; its decoder may be stuck.")
        sample = form.get("topic", ""), form.get("payload", "")
        self._trial, limit = _run_aside(partial(pages.try_sample, self._settings, *sample)), self._time_limit
        await asyncio.wait({self._trial}, timeout=limit)
        if not self._trial.done():
            return self._tell(503, f"The sample takes longer than {limit:g} s (time_limit); its decoder may be stuck.")
        return self._page("try", **self._trial.result())

    async def log_in(self, request: Request) -> Response:
        """Ask for the token, and give the browser a cookie for it."""
        if self._token is None:
            return RedirectResponse("/", 303)
        given = "" if request.method == "GET" else ((await _read_form(request)) or {}).get("token", "")
        if not is_token(given, self._token):
            return self._page("login", 200 if request.method == "GET" else 403, is_wrong=bool(given))
        answer = RedirectResponse("/", 303)
        answer.set_cookie(COOKIE, make_cookie(self._token), COOKIE_SECONDS, httponly=True, samesite="strict")
        return answer

    def explain(self, request: Request, error: Exception) -> Response:
        """Answer to a request for something that there is not."""
        assert isinstance(error, HTTPException)  # noqa: S101 - no other is registered
        return self._tell(error.status_code, f"{error.detail}.")

    def _page(self, name: str, code: int = 200, /, **context: Any) -> Response:
        text = self._templates.get_template(f"{name}.html").render(page=name, version=version("amqtt_db"), **context)
        return HTMLResponse(text, code)

    def _tell(self, status: int, problem: str, *, is_database: bool = False) -> Response:
        return self._page("error", status, problem=problem, is_database=is_database)


def _run_aside(work: Callable[[], dict[str, Any]]) -> asyncio.Future[dict[str, Any]]:
    """Work in a thread that holds up nothing, not even the end of this process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[dict[str, Any]] = loop.create_future()

    def finish(settle: Callable[[Any], None], outcome: Any) -> None:
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, outcome)

    def run() -> None:
        try:
            finish(future.set_result, work())
        except Exception as error:
            finish(future.set_exception, error)

    threading.Thread(target=run, daemon=True, name="sample").start()
    return future


def _live_address(name: str, request: Request) -> str | None:
    """Return where the updates of a page come from."""
    return f"/live/{name}?{request.url.query}" if name in LIVE else None


def _event(part: str) -> str:
    """Return an event of the stream: each line of its data needs a prefix."""
    return "".join(f"data: {line}\n" for line in part.splitlines()) + "\n"


async def _read_form(request: Request) -> dict[str, str] | None:
    """Return the fields of a form; None if it is too long."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST_FORM:
            return None
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
