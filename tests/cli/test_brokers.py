"""What `check` says about a broker's answer."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from amqtt_db.cli.brokers import is_usable, warnings_about
from amqtt_db.config.broker import BrokerSettings
from amqtt_db.ingest.bridge import packets
from amqtt_db.ingest.bridge.packets import V5, V311
from amqtt_db.ingest.bridge.peer import Ending
from amqtt_db.ingest.bridge.probe import Grant

BROKER = BrokerSettings("mqtt", "localhost", 1883, "me", qos=1)


@pytest.mark.parametrize(
    ("properties", "codes", "said"),
    [
        ({}, {"a": 1, "b": 2}, []),
        ({packets.SESSION_EXPIRY: 7200}, {"a": 1}, ["the session for 7200 s, not 604800 s"]),
        ({packets.RETAIN_AVAILABLE: 0}, {"a": 1}, ["no retained messages"]),
        ({}, {"a": 0}, ["grants QoS 0 for a, not 1: messages may be lost"]),
        ({}, {"a": 1, "b": 0x87}, ["refuses b"]),
    ],
)
def test_each_thing_that_may_be_lost_is_a_warning(properties: Any, codes: dict[str, int], said: list[str]) -> None:
    """And nothing else is."""
    found = list(warnings_about(BROKER, Grant(V5, properties, codes)))
    assert len(found) == len(said)
    assert all(part in line for part, line in zip(said, found, strict=True))


def test_mqtt_3_does_not_say_how_long_a_session_is_kept() -> None:
    """So the warning says that it is unknown."""
    (found,) = warnings_about(BROKER, Grant(V311, {}, {"a": 1}))
    assert "does not say" in found


def test_a_refused_filter_or_connection_makes_a_broker_unusable() -> None:
    """A lower QoS does not."""
    assert is_usable(BROKER, Grant(V5, {}, {"a": 0}))
    assert not is_usable(BROKER, Grant(V5, {}, {"a": 1, "b": 0x87}))
    assert not is_usable(BROKER, Ending("cannot be reached"))


def test_a_group_needs_shared_subscriptions() -> None:
    """A broker that says it has none is not usable, and a warning says so."""
    shared, none = attrs.evolve(BROKER, group="store"), Grant(V5, {packets.SHARED_AVAILABLE: 0}, {"a": 1})
    assert not is_usable(shared, none)
    assert is_usable(BROKER, none)
    assert is_usable(shared, Grant(V5, {}, {"a": 1}))
    assert "leave out `group`" in "".join(warnings_about(shared, none))


@pytest.mark.parametrize(
    ("software", "qos", "warns"),
    [
        ("mosquitto version 2.0.11", 2, True), ("mosquitto version 2.0.13", 2, False),
        ("mosquitto version 1.6.9", 2, True), ("mosquitto version 2.0.11", 1, False), ("", 2, False),
    ],
)  # fmt: skip
def test_a_mosquitto_that_ignores_the_window_is_a_warning(software: str, qos: int, warns: bool) -> None:
    """At QoS 2, where messages may then be stored twice."""
    found = "".join(warnings_about(BROKER, Grant(V5, {}, {"a": qos}, software=software)))
    assert ("ignores `window`" in found) is warns
