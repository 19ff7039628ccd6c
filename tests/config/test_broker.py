"""``broker:`` and ``brokers:``: what is read, and every mistake with its path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from amqtt_db.config.broker import BrokerSettings, read_brokers
from amqtt_db.config.yaml_checks import Node


def read(document: dict[str, Any]) -> tuple[tuple[BrokerSettings, ...], list[str]]:
    """The brokers of a document, and its mistakes."""
    root = Node(document, "")
    return read_brokers(root, Path("mqtt.journal")), [str(problem) for problem in root.problems]


def test_a_url_is_enough() -> None:
    """Port, protocol, QoS and a client id have defaults; the same journal has the same client id."""
    (one,), mistakes = read({"broker": "mqtt://localhost"})
    assert mistakes == []
    assert (one.host, one.port, one.protocol, one.qos, one.url) == (
        "localhost",
        1883,
        "auto",
        2,
        "mqtt://localhost:1883",
    )
    assert read({"broker": "mqtt://localhost"})[0][0].client_id == one.client_id
    assert read_brokers(Node({"broker": "mqtt://localhost"}, ""), Path("other.journal"))[0].client_id != one.client_id
    assert one.client_id.isalnum()
    assert len(one.client_id) <= 23


def test_a_mapping_has_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every key arrives, also a password with any characters from a variable; it is never shown."""
    monkeypatch.setenv("MQTT_PASSWORD", "p@:/ß")
    (tmp_path / "ca.pem").touch()
    document = {
        "url": "mqtts://[::1]:8884", "client_id": "hall", "username": "bridge", "password": "${MQTT_PASSWORD}",
        "tls": {"ca": str(tmp_path / "ca.pem"), "alpn": "mqtt"}, "protocol": 5, "qos": 1, "window": 4000,
        "session": "1 h", "keep_alive": "20 s", "retained": "ignore", "duplicates": "keep",
    }  # fmt: skip
    (one,), mistakes = read({"broker": document})
    assert mistakes == []
    assert (one.host, one.port, one.password, one.protocol, one.session) == ("::1", 8884, "p@:/ß", "5", 3600)
    assert (one.tls.ca, one.url) == (tmp_path / "ca.pem", "mqtts://[::1]:8884")
    assert "ß" not in repr(one)


def test_user_and_password_may_be_in_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """Percent-encoded; from a variable they may be anything."""
    monkeypatch.setenv("SECRET", "a/b@c")
    (one,), _ = read({"broker": "mqtt://me%40home:${SECRET}@host"})
    assert (one.username, one.password, one.host) == ("me@home", "a/b@c", "host")


def test_a_group_needs_mqtt_5() -> None:
    """So an older version is not tried."""
    (one,), mistakes = read({"broker": {"url": "mqtt://a", "group": "store"}})
    assert (mistakes, one.group, one.protocol) == ([], "store", "5")


def test_several_brokers_have_names() -> None:
    """The order of the YAML is kept."""
    brokers, mistakes = read({"brokers": {"hall": "mqtt://a", "yard": {"url": "mqtt://b"}}})
    assert mistakes == []
    assert [(one.path, one.host) for one in brokers] == [("brokers.hall", "a"), ("brokers.yard", "b")]


@pytest.mark.parametrize(
    ("document", "mistake"),
    [
        ({"broker": "localhost"}, "broker: expected a URL such as mqtt://localhost"),
        (
            {"broker": 7},
            "broker: expected a URL such as mqtt://localhost, or a mapping with `url`, found a whole number",
        ),
        ({"broker": "tcp://a"}, "broker: write mqtt:// instead of tcp://"),
        ({"broker": "http://a"}, "broker: write ws:// instead of http://"),
        ({"broker": "amqp://a"}, "broker: unknown scheme amqp://; use mqtt, mqtts, ws or wss"),
        ({"broker": "mqtt://::1"}, "broker: write an IPv6 address in brackets"),
        ({"broker": "mqtt://[::1"}, "broker: write an IPv6 address in brackets"),
        ({"broker": "wss://a/mqtt?x=1"}, "broker: has something after host, port and path"),
        ({"broker": {"host": "a"}}, "broker.host: is part of the URL"),
        ({"broker": {"url": "mqtt://a", "topics": ["#"]}}, "broker.topics: topics are not chosen here"),
        ({"broker": {"url": "mqtt://a:b@c", "username": "d"}}, "broker.username: is in the URL too"),
        ({"broker": {"url": "mqtts://a", "tls": {"insecure": True}}}, "broker.tls.insecure: certificates are always"),
        ({"broker": {"url": "mqtts://a", "tls": {"ca": "/"}}}, "broker.tls.ca: / is a directory"),
        ({"broker": "mqtt://a:99999"}, "broker: has a port"),
        ({"broker": "mqtt://a/x"}, "broker: has something after host and port"),
        ({"broker": "mqtt://"}, "broker: has no host"),
        ({"broker": {"qos": 1}}, "broker.url: missing"),
        ({"broker": {"url": "mqtt://a", "clientid": "x"}}, "broker.clientid: unknown key; did you mean 'client_id'?"),
        ({"broker": {"url": "mqtt://a", "protocol": 4}}, "broker.protocol: expected one of auto, 5, 3.1.1"),
        ({"broker": {"url": "mqtt://a", "qos": 3}}, "broker.qos: expected a number from 0 to 2"),
        ({"broker": {"url": "mqtt://a", "window": 0}}, "broker.window: expected a number from 1 to 65535"),
        ({"broker": {"url": "mqtt://a", "keep_alive": "1 day"}}, "broker.keep_alive: expected at most 65535 s"),
        ({"broker": {"url": "mqtt://a", "password": "x"}}, "broker.password: needs a `username`"),
        ({"broker": {"url": "mqtt://a", "tls": {"ca": "/etc/hosts"}}}, "broker.tls: has no effect with mqtt://"),
        ({"broker": {"url": "mqtts://a", "tls": {"ca": "/no"}}}, "broker.tls.ca: the file /no does not exist"),
        ({"broker": {"url": "mqtts://a", "tls": {"key": "/etc/hosts"}}}, "broker.tls.key: needs a `certificate`"),
        ({"broker": {"url": "mqtt://a", "duplicates": "dorp"}}, "broker.duplicates: expected one of drop, keep"),
        ({"broker": {"url": "mqtt://a", "group": "a/b"}}, "broker.group: expected a name without / + #"),
        ({"broker": {"url": "mqtt://a", "group": "a", "protocol": "3.1.1"}}, "broker.group: needs MQTT 5"),
        ({"broker": {"url": "mqtt://a", "retained": "yes"}}, "broker.retained: expected one of store, ignore"),
        ({"broker": "mqtt://a", "brokers": {"b": "mqtt://b"}}, "brokers: cannot be used together with `broker`"),
        ({"brokers": ["mqtt://b"]}, "brokers: expected a name for each broker"),
        ({"brokers": {"a": "mqtt://a", "b": "mqtt://a"}}, "brokers.b: has the same broker and client id as brokers.a"),
    ],
)
def test_a_mistake_is_told_with_its_path(document: dict[str, Any], mistake: str) -> None:
    """Each mistake has its path and says what would be right."""
    assert [line for line in read(document)[1] if line.startswith(mistake)], read(document)[1]
