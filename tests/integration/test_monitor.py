"""Metrics and health of real processes: what was published is what is counted, and a writer that is stuck is seen."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.cli.test_cli import configuration, invoke
from tests.deploy.test_grafana import RULES, expressions
from tests.docs.test_operating_docs import SCRAPE
from tests.integration.bridge import MOSQUITTO, BridgeProcess, Mosquitto, until
from tests.integration.broker import BrokerProcess, RawClient
from tests.ports import free_port
from tests.scrape import ask, scrape

pytestmark = pytest.mark.slow

PROMETHEUS = shutil.which("prometheus")
ROUTES = [{"topic": "a/#", "entity": {"n": "int"}, "mismatch": "reject"}, {"topic": "off/#", "store": False}]


def of_messages(found: dict[str, float]) -> dict[str, float]:
    """Return the counts of messages, without those that are 0."""
    start = "amqtt_db_messages_"
    return {name.removeprefix(start): value for name, value in found.items() if name.startswith(start) and value}


def test_a_broker_counts_what_becomes_of_each_message(tmp_path: Path) -> None:
    """Received messages are stored, dead, ignored, empty or pending; a writer that was started again is counted."""
    port = free_port()
    expected = {
        "received_total": 7,
        'stored_total{route="a/#"}': 3,
        'dead_total{route="a/#"}': 1,
        'ignored_total{route="off/#"}': 2,
        'ignored_total{route=""}': 1,
    }
    with BrokerProcess(tmp_path, routes=ROUTES, metrics=f"127.0.0.1:{port}") as broker:
        with RawClient(broker.port, "tester") as client:
            client.publish("a/b", [{"n": 1}, {"n": 2}, {"n": 3}, {"n": "x"}], 1)
            client.publish("off/b", [1, 2], 1)
            client.publish("nowhere", [1], 1)
            broker.until(lambda: of_messages(scrape(port)) == expected, "everything is counted")
            found = scrape(port)
            assert found["amqtt_db_clients_connected"] == 1
            assert found['amqtt_db_schema_changes_total{object="table"}'] == 1
            assert found["amqtt_db_batch_seconds_count"] == found["amqtt_db_batch_entries_count"] >= 1
        broker.kill_writer()
        broker.until(lambda: scrape(port)["amqtt_db_writer_restarts_total"] == 1, "the writer is started again")
        assert ask(port, "/readyz") == (200, "ready\n")


@contextmanager
def prometheus(directory: Path, program: str, port: int) -> Iterator[Callable[[str], Any]]:
    """A Prometheus with the configuration and the rules of the docs; yields what answers a query of its API."""
    config, listen = directory / "prometheus.yml", free_port()
    more = f"global: {{scrape_interval: 250ms}}\nrule_files: [{RULES}]\n"
    config.write_text(more + SCRAPE.replace("9641", str(port)), encoding="utf-8")
    options = {"config.file": config, "storage.tsdb.path": directory / "series", "web.listen-address": f":{listen}"}
    command = [program, *(f"--{name}={value}" for name, value in options.items())]

    def answer(path: str) -> Any:
        try:
            status, text = ask(listen, f"/api/v1/{path}")
        except OSError:  # it does not listen yet
            return None
        return json.loads(text)["data"] if status == 200 else None

    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield answer
        finally:
            process.kill()


@pytest.mark.skipif(PROMETHEUS is None, reason="there is no prometheus")
def test_prometheus_scrapes_a_broker(tmp_path: Path) -> None:
    """As the docs configure it: what was published is what it knows, and it can compute every panel and alert."""
    port = free_port()
    with (
        BrokerProcess(tmp_path, metrics=f"127.0.0.1:{port}") as broker,
        RawClient(broker.port, "tester") as client,
        prometheus(tmp_path, str(PROMETHEUS), port) as answer,
    ):
        client.publish("a", [1, 2, 3], 1)
        stored = "query?query=sum(amqtt_db_messages_stored_total)==3"
        broker.until(lambda: bool((answer(stored) or {}).get("result")), "Prometheus knows of the messages")
        assert all(answer(f"query?query={quote(one.replace('$__rate_interval', '5m'))}") for one in expressions())
        assert {one["health"] for group in answer("rules")["groups"] for one in group["rules"]} <= {"ok", "unknown"}


def test_a_writer_that_cannot_store_is_not_ready(tmp_path: Path) -> None:
    """Alive all the same; and ready again, once what waited is stored."""
    port = free_port()
    metrics = {"listen": f"127.0.0.1:{port}", "max_lag": "1 s"}
    with BrokerProcess(tmp_path, metrics=metrics) as broker, RawClient(broker.port, "tester") as client:
        client.publish("a", [1], 1)
        broker.until_stored(1)
        broker.until(lambda: ask(port, "/readyz")[0] == 200, "it is ready")
        with closing(sqlite3.connect(broker.database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            client.publish("a", [2], 1)
            broker.until(lambda: ask(port, "/readyz")[0] == 503, "it is not ready")
            assert "1 message waits, and nothing was stored for" in ask(port, "/readyz")[1]
            assert ask(port, "/healthz") == (200, "alive\n")
            assert scrape(port)["amqtt_db_messages_pending"] == 1
        broker.until(lambda: ask(port, "/readyz")[0] == 200, "it is ready again")


def test_run_needs_the_address_of_its_metrics(tmp_path: Path) -> None:
    """One that is in use is told before anything starts, with its place in the YAML."""
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        result = invoke("run", configuration(tmp_path, metrics={"listen": f"127.0.0.1:{port}"}))
    assert result.exit_code == 1
    assert result.stderr == (
        f"127.0.0.1:{port} is already in use: stop the other broker or change plugins.amqtt_db.Plugin.metrics.listen\n"
    )


@pytest.mark.skipif(MOSQUITTO is None, reason="there is no mosquitto")
def test_a_bridge_counts_its_connections(tmp_path: Path) -> None:
    """Each broker by its URL; and messages as the plugin does."""
    port = free_port()
    with Mosquitto(tmp_path) as broker, BridgeProcess(tmp_path, broker.url, metrics=f"127.0.0.1:{port}") as bridge:
        label = f'{{broker="{broker.url}"}}'
        until(lambda: scrape(port)[f"amqtt_db_broker_connected{label}"] == 1, "it is connected")
        broker.publish(["1", "2"])
        until(lambda: scrape(port).get('amqtt_db_messages_stored_total{route="#"}') == 2, "the messages are stored")
        assert scrape(port)["amqtt_db_messages_received_total"] == 2
        broker.stop()
        until(lambda: scrape(port)[f"amqtt_db_broker_connected{label}"] == 0, "the end is noticed")
        broker.start()
        until(lambda: scrape(port)[f"amqtt_db_broker_connects_total{label}"] == 2, "it is connected again")
        assert ask(port, "/readyz") == (200, "ready\n")
        assert bridge.logged("metrics and health on") == 1
