"""`amqtt-db check` with real brokers: what they grant, what that may lose, and what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from queue import Queue

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from amqtt_db.ingest.bridge.probe import probe_id
from tests.integration.bridge import MOSQUITTO, BridgeProcess, Mosquitto, until
from tests.integration.broker import BrokerProcess
from tests.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.skipif(MOSQUITTO is None, reason="needs Mosquitto")]


def check(*arguments: object) -> tuple[int, str]:
    """Run the command; return its exit code and what it prints."""
    command = [sys.executable, "-m", "amqtt_db", "check", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def test_what_the_broker_grants_is_shown(tmp_path: Path) -> None:
    """A URL is enough."""
    with Mosquitto(tmp_path) as broker:
        code, said = check(broker.url)
    assert code == 0
    for line in ("connected with MQTT 5", "maximum QoS: 2", "shared subscriptions: yes", "filters: # QoS 2"):
        assert line in said
    assert said.count("warning:") == said.count("Mosquitto before 2.0.13 ignores `window`")
    assert "What the broker may lose" in said


def test_the_broker_says_what_it_is(tmp_path: Path) -> None:
    """In JSON, as Mosquitto publishes it."""
    with Mosquitto(tmp_path) as broker:
        code, said = check("--json", broker.url)
    assert code == 0
    assert '"software":"mosquitto version ' in said


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_the_session_of_the_question_ends_with_it(tmp_path: Path, protocol: str) -> None:
    """So the broker keeps no messages for it."""
    path = tmp_path / "bridge.yaml"
    with Mosquitto(tmp_path) as broker:
        path.write_text(f"broker: {{url: '{broker.url}', client_id: me, protocol: {protocol}}}")
        assert check(path)[0] == 0
        assert not is_session_kept(broker, probe_id("me"))


def is_session_kept(broker: Mosquitto, client_id: str) -> bool:
    """Return True if the broker has a session of a client that is away."""
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id, clean_session=False)
    present: Queue[bool] = Queue()
    client.on_connect = lambda _client, _data, connack, _code, _properties: present.put(connack.session_present)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    try:
        return present.get(timeout=30)
    finally:
        client.disconnect()
        client.loop_stop()


def test_a_running_bridge_is_not_disturbed(tmp_path: Path) -> None:
    """The probe uses a different client id."""
    with Mosquitto(tmp_path) as broker, BridgeProcess(tmp_path, broker.url) as bridge:
        until(lambda: bridge.logged("subscribed to #"), "the bridge is subscribed")
        assert check(tmp_path / "bridge.yaml")[0] == 0
        broker.publish(['{"n": 1}'])
        until(lambda: bridge.stored() == [1], "the message is stored")
        assert bridge.logged("connected with MQTT") == 1
        assert bridge.logged("ERROR") == 0


def test_a_broker_that_cannot_be_reached_is_told(tmp_path: Path) -> None:
    """In one line, with exit code 1; `--offline` does not even try."""
    url = f"mqtt://127.0.0.1:{free_port()}"
    code, said = check(url)
    assert (code, said.count(f"{url}: the broker cannot be reached")) == (1, 1)
    code, said = check(url, "--offline")
    assert (code, said.count("the broker")) == (0, 0)


def test_a_wrong_password_is_told(tmp_path: Path) -> None:
    """Without showing it."""
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-c", "-b", str(passwords), "me", "right"], check=True, capture_output=True)
    with Mosquitto(tmp_path, f"password_file {passwords}") as broker:
        code, said = check(broker.url.replace("//", "//me:wrong-1@"))
        assert (code, "check user name and password" in said, "wrong-1" in said) == (1, True, False)
        assert check(broker.url.replace("//", "//me:right@"))[0] == 0


def test_what_the_broker_does_not_offer_is_shown(tmp_path: Path) -> None:
    """And warned of if it may lose messages; the broker can be used."""
    with Mosquitto(tmp_path, "max_qos 0", "retain_available false") as broker:
        code, said = check(broker.url)
    assert code == 0
    assert "the broker keeps no retained messages" in said
    assert "maximum QoS: 0" in said


def test_a_broker_of_mqtt_3_is_asked_too(tmp_path: Path) -> None:
    """amqtt closes the connection on an MQTT 5 CONNECT; with `protocol: 5` an error says what is wrong."""
    with BrokerProcess(tmp_path) as broker:
        code, said = check(f"mqtt://127.0.0.1:{broker.port}")
        assert code == 0
        assert "connected with MQTT 3.1.1" in said
        assert "does not say" in said
        (tmp_path / "five.yaml").write_text(f"broker: {{url: 'mqtt://127.0.0.1:{broker.port}', protocol: 5}}")
        code, said = check(tmp_path / "five.yaml")
    assert code == 1
    assert f"127.0.0.1:{broker.port}: the broker " in said


def status(directory: Path) -> tuple[list[tuple[str, bool, int]], str]:
    """What `status` says of brokers: URL, whether it is connected, connections; and when that began."""
    command = [sys.executable, "-m", "amqtt_db", "status", str(directory / "bridge.yaml"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    brokers = json.loads(done.stdout)["brokers"]
    found = [(one["url"], one["is_connected"], one["connections"]) for one in brokers]
    return found, "".join(one["since"] for one in brokers)


def test_status_shows_each_broker(tmp_path: Path) -> None:
    """Connected or not, and how often; none is connected when the bridge has ended, however it did."""
    with Mosquitto(tmp_path, "persistence true") as broker, BridgeProcess(tmp_path, broker.url) as bridge:
        broker.publish(['{"n": 1}'])
        until(bridge.stored, "there is a database")
        until(lambda: status(tmp_path)[0] == [(broker.url, True, 1)], "it is connected")
        first = status(tmp_path)[1]
        broker.stop()
        until(lambda: status(tmp_path)[0] == [(broker.url, False, 1)], "it is not connected")
        broker.start()
        until(lambda: status(tmp_path)[0] == [(broker.url, True, 2)], "it is connected again")
        assert status(tmp_path)[1] > first
        bridge.kill()
        assert status(tmp_path)[0] == [(broker.url, False, 2)]
        bridge.configure(broker={"url": broker.url, "client_id": "other"})
        bridge.start()
        until(lambda: status(tmp_path)[0] == [(broker.url, True, 1)], "only the broker of the new configuration")


def test_dropped_messages_are_a_warning(tmp_path: Path) -> None:
    """Mosquitto counts what it drops for a client that is away; only `$SYS` shows it."""
    with Mosquitto(tmp_path, "max_queued_messages 10", "sys_interval 1") as broker:
        with BridgeProcess(tmp_path, broker.url) as bridge:
            until(lambda: bridge.logged("subscribed to #"), "the broker has a session for it")
        broker.publish([f'{{"n": {n}}}' for n in range(100)])
        until(lambda: "has dropped 90 messages" in check(broker.url)[1], "the warning is there")
