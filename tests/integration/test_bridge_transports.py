"""TLS, WebSocket and several brokers: the bridge reaches real Mosquittos in every way, or says in a line why not."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import attrs
import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from amqtt_db.config.broker import BrokerSettings, TlsSettings
from amqtt_db.ingest.bridge.tls import UnusableFile, tls_context
from tests.integration.bridge import MOSQUITTO, BridgeProcess, Mosquitto, numbers, until
from tests.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.skipif(MOSQUITTO is None, reason="needs Mosquitto")]


class Site:
    """A certificate authority and the files that a TLS listener of Mosquitto needs."""

    def __init__(self, directory: Path, host: str = "127.0.0.1", expired: bool = False) -> None:
        self.directory = directory
        self.authority = trustme.CA()
        ends = datetime.now(timezone.utc) + (timedelta(days=-1) if expired else timedelta(days=1))
        self.ca = self._write("ca.pem", self.authority.cert_pem)
        self.server = self._files("server", self.authority.issue_cert(host, not_after=ends))
        self.client = self._files("client", self.authority.issue_cert("client@example.org"))
        self.port = free_port()

    def _files(self, name: str, certificate: trustme.LeafCert) -> tuple[Path, Path]:
        chain = self._write(f"{name}.pem", *certificate.cert_chain_pems)
        return chain, self._write(f"{name}.key", certificate.private_key_pem)

    def _write(self, name: str, *blobs: trustme.Blob) -> Path:
        path = self.directory / name
        for number, blob in enumerate(blobs):
            blob.write_to_path(str(path), append=number > 0)
        return path

    def listener(self, *lines: str) -> list[str]:
        """Lines of Mosquitto's configuration."""
        certificate, key = self.server
        return [f"listener {self.port} 127.0.0.1", f"certfile {certificate}", f"keyfile {key}", *lines]


def test_tls_with_certificates_of_both_sides(tmp_path: Path) -> None:
    """The bridge trusts the given authority, presents its certificate, and stores what is published."""
    site = Site(tmp_path)
    lines = site.listener(f"cafile {site.ca}", "require_certificate true")
    certificate, key = map(str, site.client)
    tls = {"ca": str(site.ca), "certificate": certificate, "key": key}
    broker = {"url": f"mqtts://127.0.0.1:{site.port}", "tls": tls}
    with Mosquitto(tmp_path, *lines) as mosquitto, BridgeProcess(tmp_path, broker) as bridge:
        mosquitto.publish(numbers(0, 500))
        until(lambda: len(bridge.stored()) == 500, "all are stored")
        assert bridge.logged("ERROR") == 0


def trusting(site: Site) -> dict[str, Any]:
    """Keys of a broker whose authority is trusted."""
    return {"tls": {"ca": str(site.ca)}}


Failing = Callable[[Site], dict[str, Any]]


@pytest.mark.parametrize(
    ("site", "lines", "broker", "says"),
    [
        ({"expired": True}, [], lambda site: {"tls": {"ca": str(site.ca)}}, "a certificate that has expired: renew it"),
        (
            {"host": "other.example.org"},
            [],
            lambda site: {"tls": {"ca": str(site.ca)}},
            "for another host: `url` must contain one of its names",
        ),
        ({}, [], lambda _: {}, "set `tls.ca` to that authority's file"),
        (
            {},
            ["require_certificate true"],
            lambda site: {"tls": {"ca": str(site.ca)}},
            "set `tls.certificate` and `tls.key`",
        ),
    ],
    ids=["expired", "another host", "unknown authority", "no certificate of the client"],
)
def test_what_is_wrong_with_tls_is_told_once(
    tmp_path: Path, site: dict[str, Any], lines: list[str], broker: Failing, says: str
) -> None:
    """In one line that names the broker, the reason and what to check, however often it is tried."""
    made = Site(tmp_path, **site)
    listener = made.listener(*lines, *([f"cafile {made.ca}"] if lines else []))
    settings = {"url": f"mqtts://127.0.0.1:{made.port}", **broker(made)}
    with Mosquitto(tmp_path, *listener) as mosquitto:
        bridge = BridgeProcess(tmp_path, settings)
        bridge.start()
        until(lambda: bridge.logged(says), "the reason is in the log")
        until(lambda: mosquitto.log.count("New connection") > 2, "it has tried again")
        assert bridge.stop() == 0
    assert bridge.logged("ERROR") == 1
    assert bridge.logged("Traceback") == 0


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    """With their path in the YAML and what to do; nothing asks for a password at the terminal."""
    site = Site(tmp_path)
    certificate, key = site.client
    locked = tmp_path / "locked.key"
    made = serialization.load_pem_private_key(key.read_bytes(), None)
    secret = serialization.BestAvailableEncryption(b"secret")
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret
    locked.write_bytes(made.private_bytes(*form))
    settings = BrokerSettings("mqtts", "localhost", 8883, "me")
    for tls, said in (
        (TlsSettings(ca=key), r"broker\.tls\.ca: .*client\.key has no certificate in PEM format"),
        (TlsSettings(certificate=certificate, key=locked), r"broker\.tls: .*locked\.key is protected by a password"),
        (TlsSettings(certificate=certificate, key=site.server[1]), r"broker\.tls: .* certificate and its key in PEM"),
    ):
        with pytest.raises(UnusableFile, match=said):
            tls_context(attrs.evolve(settings, tls=tls))


def test_a_port_without_tls_is_told(tmp_path: Path) -> None:
    """mqtts:// to a listener that speaks plain MQTT; and mqtt:// to one that speaks TLS."""
    site = Site(tmp_path)
    with Mosquitto(tmp_path, *site.listener()) as mosquitto:
        brokers = {"plain": mosquitto.url.replace("mqtt:", "mqtts:"), "tls": f"mqtt://127.0.0.1:{site.port}"}
        bridge = BridgeProcess(tmp_path, None, brokers=brokers)
        bridge.start()
        until(lambda: bridge.logged("this may be a port without it, for mqtt:// or ws://"), "one reason is in the log")
        until(lambda: bridge.logged("if this is a port for TLS, write mqtts://"), "so is the other")
        assert bridge.stop() == 0


def test_application_protocols_are_offered(tmp_path: Path) -> None:
    """`alpn` is sent in the handshake."""
    import asyncio  # noqa: PLC0415

    site = Site(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*site.server)
    context.set_alpn_protocols(["x-amzn-mqtt-ca"])
    broker = {"url": f"mqtts://127.0.0.1:{site.port}", "tls": {"ca": str(site.ca), "alpn": "x-amzn-mqtt-ca"}}

    async def serve() -> str | None:
        chosen: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

        async def look(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if not chosen.done():
                chosen.set_result(writer.get_extra_info("ssl_object").selected_alpn_protocol())
            writer.close()

        server = await asyncio.start_server(look, "127.0.0.1", site.port, ssl=context)
        bridge = BridgeProcess(tmp_path, broker)
        bridge.start()
        try:
            return await asyncio.wait_for(chosen, 30)
        finally:
            await asyncio.to_thread(bridge.stop)
            server.close()

    assert asyncio.run(serve()) == "x-amzn-mqtt-ca"


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_websocket(tmp_path: Path, protocol: str) -> None:
    """All QoS, large payloads in several frames, and a restart of the broker."""
    port = free_port()
    lines = [f"listener {port} 127.0.0.1", "protocol websockets"]
    broker = {"url": f"ws://127.0.0.1:{port}/mqtt", "protocol": protocol}
    with Mosquitto(tmp_path, *lines, "persistence true") as mosquitto, BridgeProcess(tmp_path, broker) as bridge:
        for qos in (0, 1, 2):
            mosquitto.publish(numbers(100 * qos, 100 * qos + 100), qos=qos)
        mosquitto.publish(['{"n": 300, "s": "' + "x" * 30_000 + '"}'])
        until(lambda: len(bridge.stored()) == 301, "all are stored")
        mosquitto.stop()
        mosquitto.start()
        mosquitto.publish(numbers(301, 400))
        until(lambda: len(bridge.stored()) == 400, "those after the restart are stored")
    assert bridge.stored() == list(range(400))


def test_websocket_over_tls(tmp_path: Path) -> None:
    """wss:// with an authority of one's own."""
    site = Site(tmp_path)
    broker = {"url": f"wss://127.0.0.1:{site.port}", "tls": {"ca": str(site.ca)}}
    lines = site.listener("protocol websockets")
    with Mosquitto(tmp_path, *lines) as mosquitto, BridgeProcess(tmp_path, broker) as bridge:
        mosquitto.publish(numbers(0, 100))
        until(lambda: len(bridge.stored()) == 100, "all are stored")


def test_a_port_without_websocket_is_told(tmp_path: Path) -> None:
    """ws:// to a listener that speaks plain MQTT."""
    with Mosquitto(tmp_path) as mosquitto:
        bridge = BridgeProcess(tmp_path, mosquitto.url.replace("mqtt:", "ws:"))
        bridge.start()
        until(lambda: bridge.logged("ERROR"), "the reason is in the log")
        assert bridge.stop() == 0
    assert bridge.logged("Traceback") == 0


def test_several_brokers_into_one_database(tmp_path: Path) -> None:
    """Each has its session; while one is away, the other's messages are stored, and its own come when it is back."""
    homes = [tmp_path / name for name in ("hall", "yard")]
    for home in homes:
        home.mkdir()
    with Mosquitto(homes[0]) as hall, Mosquitto(homes[1], "persistence true") as yard:
        brokers = {"hall": hall.url, "yard": {"url": yard.url, "client_id": "yard"}}
        with BridgeProcess(tmp_path, None, brokers=brokers) as bridge:
            until(lambda: bridge.logged("connected with MQTT") == 2, "both are connected")
            hall.publish(numbers(0, 100))
            yard.publish(numbers(100, 200))
            until(lambda: len(bridge.stored()) == 200, "all are stored")
            yard.stop()
            hall.publish(numbers(200, 300))
            until(lambda: len(bridge.stored()) == 300, "the other goes on")
            yard.start()
            yard.publish(numbers(300, 400))
            until(lambda: len(bridge.stored()) == 400, "it is back")
        assert bridge.query("SELECT count(DISTINCT client_id) FROM mqtt_session") == [(2,)]


def test_user_and_password_with_any_characters(tmp_path: Path) -> None:
    """Percent-encoded in the URL; they are not in the log."""
    import subprocess  # noqa: PLC0415

    password, path = "p@ss:w/rd %", tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-c", "-b", str(path), "us@er", password], check=True, capture_output=True)
    with Mosquitto(tmp_path, f"password_file {path}", "allow_anonymous false") as mosquitto:
        url = mosquitto.url.replace("//", "//us%40er:p%40ss%3Aw%2Frd%20%25@")
        with BridgeProcess(tmp_path, url) as bridge:
            assert bridge.logged("connected with MQTT") == 1
            assert bridge.logged("ss:w") == bridge.logged("p%40ss") == 0
