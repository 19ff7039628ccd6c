"""The broker or bridge of ``amqtt-db run``: check what can be checked, start it, and run it until a signal."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Final

from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType
from amqtt.errors import BrokerError, PluginError, PluginLoadError

from amqtt_db.cli.systemd import being_watched, notify
from amqtt_db.config import Settings, masked, plugin_config
from amqtt_db.config.broker import BrokerSettings
from amqtt_db.database.engines.urls import file_problem, problem
from amqtt_db.errors import AmqttDbError
from amqtt_db.ingest.bridge.bridge import Bridge
from amqtt_db.ingest.bridge.filters import cover
from amqtt_db.ingest.bridge.session import Keeping
from amqtt_db.ingest.supervisor import Supervisor, encode_job, supervise_page
from amqtt_db.journal import Journal, require_unowned

logger = logging.getLogger(__name__)

_WRITER_NICENESS: Final = 5  # of the writer: the broker and the journal come first
_LISTENER_PORTS: Final = {ListenerType.TCP: 1883, ListenerType.WS: 8883}
_SCHEMES: Final = {ListenerType.TCP: "mqtt", ListenerType.WS: "ws"}


class NotReady(AmqttDbError):  # noqa: N818 - it reads as what is the case
    """The broker cannot start; each line of the message is one reason, and what to do about it."""


def addresses(broker: Mapping[str, Any]) -> dict[str, tuple[str, str, int]]:
    """Return (scheme, host, port) for each listener.  Raises NotReady for an address without a valid port."""
    return {name: _address(name, listener) for name, listener in _listeners(broker)}


def preflight(broker: Mapping[str, Any], settings: Settings) -> None:
    """Raise NotReady, with all reasons, if the broker could not listen or its files could not be written."""
    listening = ((f"listeners.{name}.bind", host, port) for name, (_, host, port) in addresses(broker).items())
    require_resources(settings, *(listen_problem(*place) for place in listening))


def require_resources(settings: Settings, *problems: str | None) -> None:
    """Raise NotReady with ``problems`` that are not None, and those of what is served, the database and the journal.

    Raises JournalInUse instead if another process owns the journal, which probably has the ports, too.
    """
    require_unowned(settings.journal.path)
    for served in (settings.metrics, settings.web):
        if served is not None:
            problems = (*problems, listen_problem(served.path, served.host, served.port))
    problems = (*problems, problem(settings.database), file_problem("journal", settings.journal.path))
    found = [reason for reason in problems if reason]
    if found:
        raise NotReady("\n".join(found))


async def bridge(document: Mapping[str, Any], settings: Settings, brokers: Sequence[BrokerSettings]) -> None:
    """Subscribe to brokers and store what they deliver until SIGINT or SIGTERM, then disconnect cleanly.

    Raises JournalError if the journal cannot be opened.
    """
    stop = asyncio.Event()
    set_by_signals(stop)
    kept = settings.journal
    journal = Journal.open(kept.path, max_size=kept.max_size, sync=kept.sync)
    filters = cover(route.filter.mqtt for route in settings.routes if route.stores)
    writer = Supervisor(encode_job(*plugin_config(document), niceness=_WRITER_NICENESS))
    logger.info(
        "storing messages of %s in %s, via journal %s",
        " and ".join(broker.url for broker in brokers), masked(settings.database), kept.path,
    )  # fmt: skip
    page = None if settings.web is None else supervise_page(*plugin_config(document))
    if page is not None:
        page.start()
    keeping = Keeping(any(route.uses_properties for route in settings.routes), kept.max_payload)
    async with being_watched():
        await Bridge(brokers, filters, journal, writer, settings.metrics, keeping).run(stop)
    if page is not None:
        await page.stop()


async def serve(broker: Mapping[str, Any], started: Callable[[], None], stop: asyncio.Event | None = None) -> None:
    """Run a broker until ``stop`` is set or SIGINT or SIGTERM arrives, then shut it down cleanly.

    ``started`` is called once it listens.  Raises AmqttDbError if it cannot start.
    """
    stop = stop or asyncio.Event()
    set_by_signals(stop)
    running = await start(broker)
    async with being_watched():
        try:
            started()
            await stop.wait()
        finally:
            await running.shutdown()


def set_by_signals(stop: asyncio.Event) -> None:
    """Let SIGINT and SIGTERM set an event as long as the loop runs; the second of them ends the process at once."""
    loop = asyncio.get_running_loop()

    def handle(number: int) -> None:
        if stop.is_set():
            logger.warning("ended at once; what was acknowledged and is not stored yet waits in the journal")
            os._exit(128 + number)
        logger.info("stopping; a second signal does not wait for the writer")
        notify("STOPPING=1")
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, handle, number)


async def start(broker: Mapping[str, Any]) -> Broker:
    """Return a broker that listens.  Raises AmqttDbError if it cannot start."""
    try:
        with _silenced("amqtt_db.ingest.broker.plugin"):
            made = Broker(deepcopy(dict(broker)))
    except (BrokerError, PluginError, PluginLoadError) as error:
        raise _with_cause(error) from error
    try:
        await made.start()
    except BrokerError as error:
        await made.plugins_manager.close()
        raise _with_cause(error) from error
    return made


@contextmanager
def _silenced(name: str) -> Iterator[None]:
    """Silence the plugin's own log while it starts; errors are raised instead."""
    logger = logging.getLogger(name)
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = False


def _with_cause(error: Exception) -> AmqttDbError:
    """Return amqtt's error with its cause, which amqtt's own text omits."""
    cause = error.__cause__
    if isinstance(cause, AmqttDbError):
        return cause
    return NotReady(f"the broker cannot start: {error}{f': {cause}' if cause and str(cause) not in str(error) else ''}")


def _listeners(broker: Mapping[str, Any]) -> Iterator[tuple[str, ListenerConfig]]:
    listeners = BrokerConfig.from_dict(deepcopy(dict(broker))).listeners
    return ((name, listener) for name, listener in listeners.items() if listener.type != ListenerType.EXTERNAL)


def _address(name: str, listener: ListenerConfig) -> tuple[str, str, int]:
    host, port = _split_bind(str(listener.bind or ""), str(_LISTENER_PORTS[listener.type]))
    if not port.isdecimal() or int(port) > 65535:
        raise NotReady(f"listeners.{name}.bind: expected an address such as 127.0.0.1:1883, found {listener.bind!r}")
    return _SCHEMES[listener.type], host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 - what amqtt makes of it


def _split_bind(bind: str, default: str) -> tuple[str, str]:
    """Return host and port; either may be missing, as amqtt allows."""
    host, colon, port = bind.rpartition(":")
    if bind.endswith("]") or not (colon or bind.isdecimal()):
        return bind, default
    return host, port or default


def listen_problem(path: str, host: str, port: int) -> str | None:
    """Return why nothing can listen at the address that stands at ``path`` in the YAML, None if something can."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
            trial.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return f"{host}:{port} is already in use: stop the other broker or change {path}"
        return f"cannot listen on {host}:{port}: {error.strerror}; change {path}"
    except UnicodeError:
        return f"cannot listen on {host}:{port}: host not found; change {path}"
    return None
