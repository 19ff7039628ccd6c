"""When amqtt has changed, one line says so at the start: what is missing, what is lost, and what to do."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from amqtt.broker import Broker
from amqtt.errors import PluginInitError
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.mqtt.protocol.handler import ProtocolHandler
from amqtt.mqtt.puback import PubackPacket
from amqtt.session import IncomingApplicationMessage

from amqtt_db.ingest.broker import compat
from amqtt_db.ingest.broker.plugin import Plugin
from tests.ingest.broker.setup import IDLE_CHILD, Setup


def without(monkeypatch: pytest.MonkeyPatch, attribute: str) -> None:
    """Have handlers lose an attribute, as if another version of amqtt no longer had it."""
    begin = BrokerProtocolHandler.__init__

    def begin_without(self: BrokerProtocolHandler, *arguments: Any, **named: Any) -> None:
        begin(self, *arguments, **named)
        delattr(self, attribute)

    monkeypatch.setattr(BrokerProtocolHandler, "__init__", begin_without)


def start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> list[str]:
    """Make a broker with the plugin; return the errors that the plugin has logged."""

    async def make() -> None:
        broker = Broker(Setup(tmp_path, {}, {}).config)
        plugin = broker.plugins_manager.get_plugin("Plugin")
        assert isinstance(plugin, Plugin)
        await plugin.close()

    with caplog.at_level(logging.ERROR, "amqtt_db"):
        asyncio.run(make())
    return [record.getMessage() for record in caplog.records if record.name.startswith("amqtt_db")]


@pytest.fixture(autouse=True)
def idle_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """No writer is needed."""
    monkeypatch.setattr(Plugin, "command", IDLE_CHILD)


def test_nothing_is_said_about_an_amqtt_that_is_known(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Everything is where it was, and amqtt acknowledges as it did."""
    assert start(tmp_path, caplog) == []

    async def check() -> None:
        await compat.check_order(asyncio.get_running_loop())

    with caplog.at_level(logging.WARNING):
        asyncio.run(check())
    assert caplog.records == []


def test_what_a_changed_amqtt_costs_is_said_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker starts without what is not vital."""
    without(monkeypatch, "_reader_stopped")
    (line,) = start(tmp_path, caplog)
    assert "BrokerProtocolHandler._reader_stopped is missing, so ends of connections are noticed late" in line
    assert "install another version of amqtt" in line


def test_a_changed_amqtt_that_breaks_the_promise_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plugin does not start where it could acknowledge what is not stored."""
    monkeypatch.delattr(ProtocolHandler, "handle_publish")
    with pytest.raises(PluginInitError):
        start(tmp_path, caplog)
    (line,) = (record.getMessage() for record in caplog.records if record.name.startswith("amqtt_db"))
    assert "handle_publish is missing, so messages of QoS 2 cannot be stored before PUBREC" in line


@pytest.mark.parametrize("qos", [1, 2])
def test_an_amqtt_that_acknowledges_too_early_is_told(
    qos: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is missing, but the order has changed: the start finds out by trying."""
    flow = f"_handle_qos{qos}_message_flow"
    original = getattr(ProtocolHandler, flow)

    async def early(self: BrokerProtocolHandler, message: IncomingApplicationMessage) -> None:
        await self._send_packet(PubackPacket.build(1))
        await original(self, message)

    if qos == 1:
        monkeypatch.setattr(ProtocolHandler, flow, early)
    else:  # amqtt no longer calls what the plugin intercepts
        monkeypatch.setattr(compat, "intercept_qos_2", lambda *_: None)

    async def check() -> None:
        await compat.check_order(asyncio.get_running_loop())

    asyncio.run(check())
    (line,) = (record.getMessage() for record in caplog.records if record.name.startswith("amqtt_db"))
    assert f"it acknowledges QoS {qos} before the plugin has the message" in line


def test_amqtt_does_nothing_about_a_client_that_it_reads_nothing_of() -> None:
    """It may read nothing for longer than the keep-alive time: messages that take the shortcut do not pass it."""
    handler = BrokerProtocolHandler(Mock(), loop=Mock())
    before = dict(vars(handler))
    handler.handle_read_timeout()
    assert vars(handler) == before
