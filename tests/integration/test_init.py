"""`amqtt-db init`: a first YAML from a template, or from what a real broker's clients publish."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import paho.mqtt.client as paho
import pytest
import yaml
from paho.mqtt.enums import CallbackAPIVersion

from amqtt_db.draft import TEMPLATE
from tests.integration.bridge import MOSQUITTO, BridgeProcess, Mosquitto, until
from tests.ports import free_port

FIXTURE: Final = Path(__file__).parents[1] / "fixtures" / "payloads.jsonl"
REAL: Final = [json.loads(line) for line in FIXTURE.read_text().splitlines()]
needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="needs Mosquitto")


def init(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a directory."""
    command = [sys.executable, "-m", "amqtt_db", "init", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=directory, timeout=60)
    assert "Traceback" not in done.stderr
    return done


@contextmanager
def publisher(broker: Mosquitto) -> Iterator[paho.Client]:
    """A client that publishes."""
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    yield client
    client.disconnect()
    client.loop_stop()


@pytest.mark.slow
def test_the_template_is_written_once(tmp_path: Path) -> None:
    """What is there is not overwritten unless asked."""
    assert init(tmp_path).returncode == 0
    path = tmp_path / "amqtt-db.yaml"
    assert path.read_text() == TEMPLATE
    path.write_text("mine")
    again = init(tmp_path)
    assert (again.returncode, path.read_text()) == (1, "mine")
    assert "--force" in again.stderr
    assert init(tmp_path, "--force").returncode == 0
    assert path.read_text() == TEMPLATE
    assert init(tmp_path, "--output", "-").stdout == TEMPLATE


@pytest.mark.slow
def test_no_broker_no_file(tmp_path: Path) -> None:
    """A broker that cannot be reached is named, without its password."""
    done = init(tmp_path, f"mqtt://me:secret@127.0.0.1:{free_port()}", "--seconds", "1")
    assert done.returncode == 1
    assert "127.0.0.1" in done.stderr
    assert "secret" not in done.stderr + done.stdout
    assert list(tmp_path.iterdir()) == []


@needs_mosquitto
@pytest.mark.slow
def test_a_broker_is_listened_to(tmp_path: Path) -> None:
    """The YAML stores everything that the broker sends, with no dead letter; it has no password."""
    with Mosquitto(tmp_path / "broker") as broker, publisher(broker) as client:
        for message in REAL:
            client.publish(message["topic"], message["payload"], qos=1, retain=True).wait_for_publish(30)
        url = broker.url.replace("://", "://me:secret@")
        done = init(tmp_path, url, "--seconds", "0.5", "--output", "bridge.yaml")
        assert (done.returncode, "secret" in done.stdout + done.stderr) == (0, False)
        text = (tmp_path / "bridge.yaml").read_text()
        assert "me:${MQTT_PASSWORD}@" in text
        assert "zigbee2mqtt/{device}" in text
        assert "CREATE TABLE" not in done.stdout
        assert "zigbee2mqtt" in done.stdout
        retained = {message["topic"] for message in REAL if message["payload"]}
        assert f"{len(retained)} of {len(retained)} messages that were heard would be stored" in done.stdout

        document: dict[str, Any] = {**yaml.safe_load(text), "broker": broker.url}
        check = [sys.executable, "-m", "amqtt_db", "check", "bridge.yaml", "--offline"]
        known = {**os.environ, "MQTT_PASSWORD": "secret"}
        assert subprocess.run(check, cwd=tmp_path, env=known, check=False, capture_output=True).returncode == 0
        place = tmp_path / "place"
        place.mkdir()
        with BridgeProcess(place, broker.url, routes=document["routes"]) as bridge:
            counted = "SELECT sum(stored), sum(dead) FROM mqtt_counter"
            until(lambda: bridge.query(counted) == [(len(retained), 0)], "all retained messages are stored")


@needs_mosquitto
@pytest.mark.slow
def test_ctrl_c_ends_listening(tmp_path: Path) -> None:
    """What was heard until then is used; a broker on which nothing is published gets a route for everything."""
    with Mosquitto(tmp_path / "broker") as broker:
        command = [sys.executable, "-m", "amqtt_db", "init", broker.url, "--seconds", "9999"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, cwd=tmp_path, text=True) as process:
            assert process.stderr
            assert "listening" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
    assert yaml.safe_load((tmp_path / "amqtt-db.yaml").read_text())["routes"] == [{"topic": "#"}]
