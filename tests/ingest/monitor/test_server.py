"""The HTTP server: three addresses, short answers, and nobody holds it up."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from amqtt_db.config.operation import MetricsSettings
from amqtt_db.ingest.monitor.intake import Intake
from amqtt_db.ingest.monitor.server import Monitor
from amqtt_db.journal import Journal
from amqtt_db.message import PUBLISH, flags
from tests.ports import free_port
from tests.scrape import ask, scrape


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """A journal whose messages nobody stores."""
    with closing(Journal.open(tmp_path / "mqtt.journal", max_size=2**20, sync="never")) as opened:
        yield opened


def serve(journal: Path, scenario: Callable[[int], Awaitable[None]]) -> None:
    """Run a scenario beside a server that finds the lag too large after a second."""

    async def live() -> None:
        settings = MetricsSettings("127.0.0.1", free_port(), 1.0)
        monitor = Monitor(settings, journal, lambda: Intake(3, 0, 0, 0, False))
        await monitor.start()
        try:
            await scenario(settings.port)
        finally:
            monitor.close()

    asyncio.run(live())


def test_the_answers(journal: Journal) -> None:
    """A process that runs is alive; it is ready unless messages have waited for too long."""

    async def scenario(port: int) -> None:
        assert (await asyncio.to_thread(scrape, port))["amqtt_db_messages_received_total"] == 3
        for target, answer in (("/healthz", "alive\n"), ("/readyz?verbose", "ready\n")):
            assert await asyncio.to_thread(ask, port, target) == (200, answer)
            assert await asyncio.to_thread(ask, port, target, "HEAD") == (200, "")
        journal.append(flags(PUBLISH, 1), 1_700_000_000_000_000, 0, b"t", b"1")
        journal.commit()
        status, said = await asyncio.to_thread(ask, port, "/readyz")
        assert (status, said.startswith("1 message waits, and nothing was stored for ")) == (503, True)
        assert (await asyncio.to_thread(scrape, port))["amqtt_db_messages_pending"] == 1

    serve(journal.path, scenario)


def test_requests_for_anything_else(journal: Journal) -> None:
    """They get an error, and change nothing."""

    async def scenario(port: int) -> None:
        assert (await asyncio.to_thread(ask, port, "/"))[0] == 404
        assert (await asyncio.to_thread(ask, port, "/metrics", "POST"))[0] == 405

    serve(journal.path, scenario)


@pytest.mark.parametrize("request_", [b"nonsense\r\n\r\n", b"GET /metrics", b"x" * 100_000])
def test_what_is_no_request(request_: bytes, journal: Journal) -> None:
    """The connection is closed without an answer; others are served meanwhile."""

    async def scenario(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request_)
        assert await asyncio.to_thread(ask, port, "/healthz") == (200, "alive\n")
        writer.write_eof()
        assert await _read_to_end(reader) == b""
        writer.close()

    serve(journal.path, scenario)


async def _read_to_end(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:  # what was not read makes the system say so
        return b""


def test_a_journal_that_cannot_be_read(tmp_path: Path) -> None:
    """It is not ready, and what the process itself counts is still told."""

    async def scenario(port: int) -> None:
        status, said = await asyncio.to_thread(ask, port, "/readyz")
        assert (status, "it does not exist yet" in said) == (503, True)
        found = await asyncio.to_thread(scrape, port)
        assert found["amqtt_db_messages_received_total"] == 3
        assert "amqtt_db_messages_pending" not in found

    serve(tmp_path / "none", scenario)


def test_a_port_in_use_is_one_line(journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
    """The process goes on: no message is lost for want of metrics."""

    async def start(port: int) -> None:
        monitor = Monitor(MetricsSettings("127.0.0.1", port), journal.path, lambda: Intake(0, 0, 0, 0, False))
        await monitor.start()
        monitor.close()

    with closing(socket.create_server(("127.0.0.1", 0))) as other, caplog.at_level(logging.ERROR, "amqtt_db"):
        asyncio.run(start(other.getsockname()[1]))
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith("metrics: cannot listen on 127.0.0.1:")
    assert line.endswith("; metrics and health are not served")
