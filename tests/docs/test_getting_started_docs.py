"""Getting started is right about clients, payloads, YAML, the words of `status` and the service."""

from __future__ import annotations

import asyncio
import configparser
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import yaml
from amqtt.broker import Broker
from amqtt.utils import read_yaml_config
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion
from rich.console import Console

from amqtt_db import config
from amqtt_db.cli.serve import addresses
from amqtt_db.cli.show_status import render_status
from amqtt_db.database.catalog import COUNTS
from amqtt_db.database.dead_letters import LetterChoice
from amqtt_db.ingest.bridge.link_state import LinkState
from amqtt_db.ingest.supervisor import MISCONFIGURED, Supervisor
from amqtt_db.reader.status import JournalStatus, Status, TopicCounts
from amqtt_db.record import EPOCH
from amqtt_db.writer.replay import replay
from tests.cli.test_cli import TIMEOUT, configuration, invoke, publish, until
from tests.docs.test_docs import ROOT, blocks
from tests.integration.broker import BrokerProcess
from tests.ports import free_port
from tests.workbench import Sent, Workbench, routes

PAGE = ROOT / "docs" / "getting-started.md"
TEXT = PAGE.read_text(encoding="utf-8")
EVERYWHERE = "0.0.0.0"  # noqa: S104 - amqtt's default
CONNECT = {
    "3.1": b"\x10\x0f\0\6MQIsdp\3\2\0\0\0\1x",
    "3.1.1": b"\x10\x0d\0\4MQTT\4\2\0\0\0\1x",
    "5": b"\x10\x0e\0\4MQTT\5\2\0\0\0\0\1x",
}
"""MQTT version → a client's first packet."""


def _blocks(language: str) -> list[str]:
    return [block.text for block in blocks(PAGE) if block.language == language]


def _section(lines: str) -> str:
    """Return a broker's YAML with these lines as routes."""
    return f"listeners: {{default: {{bind: '127.0.0.1:1'}}}}\nplugins:\n  amqtt_db.Plugin:\n    routes:\n{lines}"


@pytest.mark.slow
def test_clients_speak_mqtt_3_and_a_restart_forgets_what_was_retained(tmp_path: Path) -> None:
    """MQTT 5 is refused; later subscribers get retained messages until the broker stops."""
    with BrokerProcess(tmp_path) as broker:
        assert {version for version in CONNECT if _is_accepted(broker.port, version)} == {"3.1", "3.1.1"}
        _retain(broker.port)
        assert ("kept/then", True) in _heard(broker.port, "kept/then")
        assert broker.stop() == 0
        broker.start()
        assert _heard(broker.port, "kept/now") == [("kept/now", False)]
        kept = "SELECT value, retain FROM kept_then"
        broker.until(lambda: broker.sql(kept) == [(1.0, 1)], "the retained message is stored")


def _is_accepted(port: int, version: str) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as client:
        client.sendall(CONNECT[version])
        return client.recv(4)[3:] == b"\0"


def _retain(port: int) -> None:
    client = Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", port)
    client.loop_start()
    client.publish("kept/then", b"1", qos=1, retain=True).wait_for_publish(TIMEOUT)
    client.disconnect()
    client.loop_stop()


def _heard(port: int, awaited: str) -> list[tuple[str, bool]]:
    """Return (topic, retained) of what a new subscriber hears until ``awaited``; the last is its own message."""
    heard: list[tuple[str, bool]] = []
    client = Client(CallbackAPIVersion.VERSION2)
    subscribed = threading.Event()
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = lambda *arguments: heard.append((arguments[-1].topic, arguments[-1].retain))
    client.connect("127.0.0.1", port)
    client.loop_start()
    until(client.is_connected)
    client.subscribe("kept/#", 1)
    assert subscribed.wait(TIMEOUT)
    client.publish("kept/now", b"1", 1)
    until(lambda: awaited in dict(heard))
    client.disconnect()
    client.loop_stop()
    return heard


@pytest.mark.filterwarnings("ignore:`BrokerSysPlugin`:DeprecationWarning")
@pytest.mark.parametrize("text", ["plugins:\n\tamqtt_db.Plugin: {}\n", "", "plugins: {a: {b}, c: {d}/e}\n"])
def test_amqtt_takes_no_yaml_for_a_broker_without_the_plugin(text: str, tmp_path: Path) -> None:
    """Such a broker accepts everybody on all addresses; `check` reports the mistake."""
    path = tmp_path / "broker.yaml"
    path.write_text(text)
    assert invoke("check", path).exit_code == MISCONFIGURED
    made = asyncio.run(_of_amqtt(path))
    assert {name: listener.bind for name, listener in made.listeners.items()} == {"default": f"{EVERYWHERE}:1883"}
    assert made.plugins["amqtt.plugins.authentication.AnonymousAuthPlugin"] == {"allow_anonymous": True}
    assert "amqtt_db.Plugin" not in made.plugins


@pytest.mark.slow
def test_the_line_that_tells_that_the_plugin_runs(tmp_path: Path) -> None:
    """`amqtt -c` logs the words on the page."""
    (words,) = re.findall(r"the line `([^`]*)` in its log", TEXT)
    with BrokerProcess(tmp_path, command="from amqtt.scripts.broker_script import main; main()") as broker:
        broker.until(lambda: words in broker.log.read_text(), "the plugin tells where it stores")
        broker.kill()


async def _of_amqtt(path: Path) -> Any:
    """Return the configuration that `amqtt -c` would start with."""
    return Broker(read_yaml_config(path)).config


def test_without_listeners() -> None:
    """It listens on every address, as `run` prints."""
    assert addresses({"plugins": {"amqtt_db.Plugin": {}}}) == {"default": ("mqtt", EVERYWHERE, 1883)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("route", "is_right"),
    [
        ("      - {topic: signs/{sign}/line, decode: text}", False),
        ('      - {topic: "signs/{sign}/line", decode: text}', True),
        ("      - topic: signs/{sign}/line\n        decode: text", True),
        ("      - topic: #", False),
        ('      - topic: "#"', True),
        ('\t- topic: "#"', False),
    ],
)
def test_what_yaml_minds(route: str, is_right: bool, tmp_path: Path) -> None:
    """`#`, and `{…}` inside braces, need quotes; tabs are mistakes."""
    path = tmp_path / "broker.yaml"
    path.write_text(_section(route))
    assert (invoke("check", path).exit_code == 0) is is_right


def test_what_a_payload_becomes(tmp_path: Path) -> None:
    """The default decoder treats the page's payloads as described."""
    bench = Workbench(tmp_path)
    payloads = (b'{"state": "ON"}', b"21.5", b"true", b'"on"', b"ON", b"online", b"1,5", b"\xff", b"", b'{"state": ')
    bench.send(*(Sent("t", payload) for payload in payloads))
    assert bench.data() == [{"state": "ON"}, *({"value": value} for value in VALUES)]
    assert [letter.payload for letter in bench.dead()] == [payloads[-1]]
    assert bench.counts()["#"] == {"stored": 8, "records": 8, "empty": 1, "dead": 1}
    bench.send(Sent("u", b"ON"), Sent("u", b"21.5"))
    assert bench.sql("SELECT value, value__number FROM u ORDER BY id") == [("ON", None), (None, 21.5)]


VALUES = [21.5, True, "on", "ON", "online", "1,5", b"\xff"]


def test_json_only(tmp_path: Path) -> None:
    """With `decode: json` all else is a dead letter, which replay stores once the route takes it."""
    bench = Workbench(tmp_path, {"topic": "#", "decode": "json"})
    bench.send(Sent("signs/door", b"ON"), Sent("signs/door", b""), Sent("signs/door", b"21.5"))
    assert bench.data() == [{"value": 21.5}]
    replayed = replay(bench.url, routes({"topic": "#"}), LetterChoice(topic="signs/#"))
    assert [one.reason for one in replayed] == [None, None]
    assert (bench.data(), bench.dead()) == ([{"value": "ON"}, {"value": 21.5}], [])


def test_plain_text(tmp_path: Path) -> None:
    """The property `value` is always text; an empty payload is empty text."""
    bench = Workbench(tmp_path, {"topic": "#", "decode": "text"})
    bench.send(*(Sent("t", payload) for payload in (b"ON", b"21.5", b"1,5", b"")))
    assert bench.sql("SELECT value FROM t ORDER BY id") == [("ON",), ("21.5",), ("1,5",), ("",)]


def test_every_word_of_status_is_explained() -> None:
    """The table explains each heading and each count that `status` prints."""
    link = LinkState("mqtt://localhost:1883", True, EPOCH)
    whole = Status(
        journals=(JournalStatus(1, 2, 3),), counters=(TopicCounts("#", *range(1, 1 + len(COUNTS))),), brokers=(link,)
    )
    console = Console(width=200)
    with console.capture() as captured:
        console.print(render_status(whole))
    printed = captured.get()
    headings = [line for line in printed.splitlines() if "┃" in line]
    words = {cell.strip() for line in headings for cell in line.split("┃") if cell.strip()} - {"topic filter"}
    words |= set(re.findall(r"(\w[\w ]*): (?:\d|unknown)", printed))
    explained = set(re.findall(r"^\| `([\w ]+)` \| [A-Z]", TEXT.partition("| In `status` |")[2], re.MULTILINE))
    assert words | {"broker", "lag", "writer"} <= explained
    assert {"refused", "denied", "possible duplicates"} <= words


@pytest.fixture
def service(tmp_path: Path) -> configparser.SectionProxy:
    """Return the page's `[Service]`, moved from `/srv/mqtt` to a directory with all its files."""
    unit = configparser.ConfigParser(strict=False)  # a filter of system calls has several lines
    unit.optionxform = str  # type: ignore[assignment]
    (tmp_path / "amqtt-db.service").write_text(_unit(tmp_path))
    unit.read(tmp_path / "amqtt-db.service")
    command = tmp_path / ".venv" / "bin" / "amqtt-db"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m amqtt_db "$@"\n')
    command.chmod(0o700)
    (tmp_path / "environment").write_text("MQTT_NAME=house\n")
    configuration(tmp_path, free_port(), database="sqlite:///${MQTT_NAME}.db", journal={"path": "house.journal"})
    return unit["Service"]


def _unit(directory: Path) -> str:
    text = (ROOT / "deploy" / "amqtt-db.service").read_text()
    return text.replace("/srv/mqtt", str(directory))


@pytest.mark.slow
def test_the_service_starts_stores_and_stops(service: configparser.SectionProxy, tmp_path: Path) -> None:
    """Relative paths are in `WorkingDirectory`, and the page's `status` command finds them."""
    whole = dict(line.split("=", 1) for line in Path(service["EnvironmentFile"]).read_text().splitlines())
    directory = service["WorkingDirectory"]
    command = service["ExecStart"].split()
    with subprocess.Popen(command, cwd=directory, env=whole, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.search(r"mqtt://127\.0\.0\.1:(\d+)", process.stdout.readline())
        assert found
        publish(int(found[1]), ("a/b", b"1"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(float(service["TimeoutStopSec"])) == 0
    assert {"house.db", "house.journal"} <= {path.name for path in tmp_path.iterdir()}
    (line,) = (text for text in _blocks("sh") if "/srv/mqtt" in text)
    command = ["bash", "-c", line.replace("/srv/mqtt", directory)]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=True)
    assert re.search(r"│ #\s+│ 1 ", done.stdout)


@pytest.mark.slow
def test_the_service_leaves_mistakes_alone_and_the_writer_its_time(service: configparser.SectionProxy) -> None:
    """A missing variable exits with the code that prevents a restart; the writer stops within the limit."""
    command = service["ExecStart"].split()
    done = subprocess.run(command, cwd=service["WorkingDirectory"], env={}, capture_output=True, text=True, check=False)
    assert (done.returncode, "MQTT_NAME" in done.stderr) == (int(service["RestartPreventExitStatus"]), True)
    limits = signature(Supervisor).parameters
    assert f"{limits['drain'].default:g} seconds" in TEXT
    assert limits["drain"].default + limits["kill"].default < float(service["TimeoutStopSec"])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
@pytest.mark.usefixtures("service")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    """It reports no problem."""
    command = ["systemd-analyze", "verify", str(tmp_path / "amqtt-db.service")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "amqtt-db.service" not in done.stderr


def test_the_configuration_of_the_page_reads_plain_text_of_signs() -> None:
    """The route that the page mentions is in the saved file."""
    routes = config.load_document(yaml.safe_load(_blocks("yaml")[0])).routes
    assert [route.filter.text for route in routes] == ["home/{room}/climate", "signs/{sign}/line", "#"]
