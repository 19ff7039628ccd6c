"""A small HTTP server for `/metrics`, `/healthz` and `/readyz`, on the event loop that accepts messages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from time import time
from typing import Final

import attrs

from amqtt_db.config.operation import MetricsSettings
from amqtt_db.errors import JournalError
from amqtt_db.ingest.monitor.exposition import CONTENT_TYPE, render_metrics
from amqtt_db.ingest.monitor.health import find_faults
from amqtt_db.ingest.monitor.intake import Intake
from amqtt_db.ingest.monitor.measures import measure_all
from amqtt_db.journal import read_backlog, read_report

logger = logging.getLogger(__name__)

_REQUEST_SECONDS: Final = 5.0
_MOST_REQUESTS: Final = 16  # at once


@attrs.frozen
class Reply:
    """The answer to a request."""

    text: str
    status: HTTPStatus = HTTPStatus.OK
    content_type: str = "text/plain; charset=utf-8"

    def encode(self, *, with_body: bool) -> bytes:
        """Return the bytes of the answer."""
        body = self.text.encode("utf-8", "backslashreplace")
        head = (
            f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\nContent-Type: {self.content_type}\r\n"
            f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
        )
        return head.encode() + (body if with_body else b"")


class Monitor:
    """Serves metrics and health of the process that owns a journal; ``take_intake`` returns what that process knows."""

    def __init__(self, settings: MetricsSettings | None, journal: Path, take_intake: Callable[[], Intake]) -> None:
        """Without settings nothing is served."""
        self._settings = settings
        self._max_lag = 0.0 if settings is None else settings.max_lag
        self._journal = journal
        self._take_intake = take_intake
        self._requests = 0
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Start listening; if that fails, only log an error, so that no message is lost because of it."""
        settings = self._settings
        if settings is None:
            return
        try:
            self._server = await asyncio.start_server(self._serve, settings.host, settings.port)
        except OSError as error:
            reason = error.strerror or error
            logger.error("%s: cannot listen on %s:%d: %s; metrics and health are not served", settings.path,
                         settings.host, settings.port, reason)  # fmt: skip
            return
        logger.info("metrics and health on http://%s:%d/metrics, /healthz and /readyz", settings.host, settings.port)

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, and close the connection."""
        self._requests += 1
        with suppress(
            OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.TimeoutError
        ):
            if self._requests <= _MOST_REQUESTS:
                method, target = await asyncio.wait_for(_read_request(reader), _REQUEST_SECONDS)
                writer.write((await self._reply(method, target)).encode(with_body=method != "HEAD"))
                await asyncio.wait_for(writer.drain(), _REQUEST_SECONDS)
        self._requests -= 1
        writer.close()

    async def _reply(self, method: str, target: str) -> Reply:
        if method not in ("GET", "HEAD"):
            return Reply("only GET and HEAD\n", HTTPStatus.METHOD_NOT_ALLOWED)
        path = target.partition("?")[0]
        if path == "/healthz":
            return Reply("alive\n")
        answer = {"/metrics": self._measure, "/readyz": self._examine}.get(path)
        if answer is None:
            return Reply("there are /metrics, /healthz and /readyz\n", HTTPStatus.NOT_FOUND)
        return await asyncio.to_thread(answer, self._take_intake())

    def _measure(self, intake: Intake) -> Reply:
        try:
            backlog = read_backlog(self._journal)
        except JournalError:
            backlog = None
        metrics = measure_all(intake, backlog, read_report(self._journal), time())
        return Reply(render_metrics(metrics), content_type=CONTENT_TYPE)

    def _examine(self, intake: Intake) -> Reply:
        try:
            backlog, report = read_backlog(self._journal), read_report(self._journal)
        except JournalError as error:
            return Reply(f"{error}\n", HTTPStatus.SERVICE_UNAVAILABLE)
        faults = list(find_faults(backlog, report, self._max_lag, time(), is_blocked=intake.is_blocked))
        if faults:
            return Reply("".join(f"{fault}\n" for fault in faults), HTTPStatus.SERVICE_UNAVAILABLE)
        return Reply("ready\n")


async def _read_request(reader: asyncio.StreamReader) -> tuple[str, str]:
    """Return method and target of a request.  Raises ValueError if it is not a request."""
    head = await reader.readuntil(b"\r\n\r\n")
    method, target, _ = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
    return method, target
