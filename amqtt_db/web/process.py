"""The page's process: a child of the broker or bridge, or ``amqtt-db web`` itself.

As a child it reads its job from standard input, like the writer's process, and ends when that ends.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from socket import socket
from time import sleep
from typing import Final

import uvicorn

from amqtt_db.config import Settings
from amqtt_db.config.operation import WebSettings
from amqtt_db.ingest.child import begin_child
from amqtt_db.ingest.supervisor import MISCONFIGURED
from amqtt_db.web.app import Site

logger = logging.getLogger(__name__)

_STREAM_SECONDS: Final = 1  # for open pages to notice the end


class _PageServer(uvicorn.Server):
    """Ends its streams when it ends; otherwise it would wait for them, and then log that it cuts them off."""

    def __init__(self, site: Site, web: WebSettings) -> None:
        super().__init__(
            uvicorn.Config(
                site.make_app(web),
                web.host,
                web.port,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_STREAM_SECONDS,
            )
        )
        self._site = site

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """End."""
        self._site.end_streams()
        await super().shutdown(sockets)


def make_server(settings: Settings, web: WebSettings) -> uvicorn.Server:
    """Return a server for the page; its method ``run`` serves until SIGINT or SIGTERM, or ``should_exit`` is set."""
    return _PageServer(Site(settings, web), web)


def serve_until_signal(server: uvicorn.Server) -> None:
    """Serve until SIGINT or SIGTERM, or until ``should_exit`` is set; then return, whichever it was."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the server raises the signal again at its end
        signal.signal(number, lambda *_: None)
    server.run()


def run_page() -> int:
    """Run the child; return its exit status."""
    settings = begin_child("amqtt_db page", logs_others=False)
    if settings is None:
        return MISCONFIGURED
    web = settings.web or WebSettings()
    server = make_server(settings, web)
    threading.Thread(target=_watch_standard_input, args=(server,), daemon=True).start()
    logger.info("the page is on %s", web.url)
    serve_until_signal(server)
    return 0 if server.started else 1


def _watch_standard_input(server: uvicorn.Server) -> None:
    """End when standard input does; soon, even if something still works, because a page leaves nothing behind."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    server.should_exit = True
    sleep(2 * _STREAM_SECONDS)
    os._exit(0)
