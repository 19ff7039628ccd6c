"""The page as it is served: a real server in a thread, a real client."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx

from amqtt_db.config import Settings, load_section
from amqtt_db.config.operation import WebSettings
from amqtt_db.web.process import make_server
from tests.ports import free_port

ROUTES: list[dict[str, Any]] = [
    {"topic": "home/{room}/climate", "model": {"wide": {"table": "climate"}}, "latest": True},
    {"topic": "#"},
]


def settings_for(directory: Path, url: str | None = None, routes: list[dict[str, Any]] | None = None) -> Settings:
    """Settings whose files are in a directory."""
    section = {
        "database": url or f"sqlite:///{directory / 'mqtt.db'}",
        "journal": {"path": str(directory / "mqtt.journal")},
        "routes": routes or ROUTES,
    }
    return load_section(section)


@contextmanager
def served(settings: Settings, token: str | None = None) -> Iterator[httpx.Client]:
    """A client of the page, which is served meanwhile."""
    web = WebSettings(port=free_port(), token=token)
    server = make_server(settings, web)
    thread = threading.Thread(target=server.run)
    thread.start()
    until = monotonic() + 30
    while not server.started:
        assert thread.is_alive()
        assert monotonic() < until
        sleep(0.01)
    try:
        with httpx.Client(base_url=web.url, timeout=30, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def events(client: httpx.Client, address: str) -> Generator[str, None, None]:
    """The data of the events of a stream, as they come."""
    with client.stream("GET", address) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines: list[str] = []
        for line in answer.iter_lines():
            if line.startswith("data: "):
                lines.append(line.removeprefix("data: "))
            elif lines:
                yield "\n".join(lines)
                lines = []
