"""The promise, from socket to table: what is acknowledged is stored exactly once, with the right values."""

from __future__ import annotations

import random
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.integration.broker import BrokerProcess, RawClient

pytestmark = pytest.mark.slow

CLIMATE = [{"topic": "site/{client}/climate", "model": {"wide": {"table": "climate"}}}]


def _payloads(client: int, count: int) -> list[dict[str, Any]]:
    rng = random.Random(client)
    return [
        {"seq": number, "temp": round(rng.gauss(21, 3), 3), "ok": rng.random() < 0.9, "unit": rng.choice("abc")}
        for number in range(count)
    ]


def _rows(payloads: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(float(item["seq"]), item["temp"], int(item["ok"]), item["unit"]) for item in payloads]


def test_clients_that_disconnect_at_once_lose_nothing(tmp_path: Path) -> None:
    """20,000 messages at QoS 1 and 20,000 at QoS 0 from 20 clients that vanish: 40,000 rows, each value right."""
    clients, each = 20, 2000
    with BrokerProcess(tmp_path, routes=CLIMATE) as broker:
        for number in range(clients):
            qos = number % 2
            with RawClient(broker.port, f"c{number}") as client:
                client.publish(f"site/{number}/climate", _payloads(number, each), qos)
                if qos:
                    assert len(client.acknowledged(each)) == each
                client.disconnect()
        broker.until_stored(clients * each)
        for number in range(clients):
            query = f"SELECT seq, temp, ok, unit FROM climate WHERE client = '{number}' ORDER BY id"
            assert broker.sql(query) == _rows(_payloads(number, each))
        assert broker.sql("SELECT count(DISTINCT session) FROM climate") == [(clients,)]
        assert broker.stop() == 0


class Load:
    """QoS 1 messages from a few clients, each with a window, until the broker dies; remembers what was acknowledged."""

    def __init__(self, port: int, clients: int, first: int) -> None:
        self.acknowledged: set[tuple[int, int]] = set()
        self.sent: Counter[tuple[int, int]] = Counter()
        self.enough = threading.Event()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(port, n, first)) for n in range(clients)]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Send no more, and wait until every client has ended."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _run(self, port: int, client: int, first: int) -> None:
        with suppress(OSError, AssertionError), RawClient(port, f"load{client}") as raw:
            for start in range(first, first + 100_000, 200):
                if self._stop.is_set() or not self._send(raw, client, range(start, start + 200)):
                    return

    def _send(self, raw: RawClient, client: int, numbers: range) -> bool:
        """One window; whether all of it was acknowledged."""
        with self._lock:
            self.sent.update((client, number) for number in numbers)
        raw.publish(f"load/{client}", ({"n": number} for number in numbers), 1)
        packets = raw.acknowledged(len(numbers))
        with self._lock:
            self.acknowledged.update((client, numbers[packet - 1]) for packet in packets)
            if len(self.acknowledged) > 2000:
                self.enough.set()
        return len(packets) == len(numbers)


def _judge(broker: BrokerProcess, acknowledged: set[tuple[int, int]], sent: Counter[tuple[int, int]]) -> None:
    """Every acknowledged message is there; nothing is there more often than it was sent."""
    rows = broker.sql("SELECT topic, n FROM loads")
    stored = Counter((int(topic.removeprefix("load/")), int(n)) for topic, n in rows)
    assert not acknowledged - set(stored), "lost"
    assert not stored - sent, "doubled"


LOADS = [{"topic": "load/+", "model": {"wide": {"table": "loads"}}}]


def test_a_killed_broker_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    """`kill -9` of the broker under load, three times: after the restart every acknowledged message is there, once."""
    broker = BrokerProcess(tmp_path, routes=LOADS)
    acknowledged: set[tuple[int, int]] = set()
    sent: Counter[tuple[int, int]] = Counter()
    for round_ in range(3):
        broker.start()
        load = Load(broker.port, 4, round_ * 1_000_000)
        assert load.enough.wait(60)
        broker.kill()
        load.end()
        acknowledged |= load.acknowledged
        sent += load.sent
    with broker:
        broker.until_stored(len(acknowledged))
    _judge(broker, acknowledged, sent)


def test_a_killed_writer_is_started_again_and_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    """`kill -9` of the writer under load, three times."""
    with BrokerProcess(tmp_path, routes=LOADS) as broker:
        load = Load(broker.port, 4, 0)
        for _ in range(3):
            broker.kill_writer()
        assert load.enough.wait(60)
        broker.kill_writer()
        load.end()
        broker.until_stored(len(load.acknowledged))
        assert broker.stop() == 0
    _judge(broker, load.acknowledged, load.sent)
    assert "was killed by signal 9" in broker.log.read_text()


def test_a_stopped_broker_has_stored_everything(tmp_path: Path) -> None:
    """SIGTERM: what was acknowledged is in the table when the process has ended, and no process is left."""
    with BrokerProcess(tmp_path) as broker:
        with RawClient(broker.port, "c") as client:
            client.publish("a/b", ({"n": number} for number in range(3000)), 1)
            assert len(client.acknowledged(3000)) == 3000
        writer = broker.writer()
        assert broker.stop() == 0
    assert broker.sql("SELECT count(*) FROM a_b") == [(3000,)]
    assert not Path(f"/proc/{writer}").exists()


def test_the_writer_never_outlives_its_broker(tmp_path: Path) -> None:
    """After `kill -9` of the broker, the writer stores what it can and ends by itself."""
    broker = BrokerProcess(tmp_path).start()
    with RawClient(broker.port, "c") as client:
        client.publish("a/b", ({"n": number} for number in range(1000)), 1)
        assert len(client.acknowledged(1000)) == 1000
    writer = broker.writer()
    broker.kill()
    broker.process = None
    broker.until(lambda: not Path(f"/proc/{writer}/cmdline").exists(), "the writer has ended")
    assert broker.sql("SELECT count(*) FROM a_b") == [(1000,)]


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_usual_client(qos: int, tmp_path: Path) -> None:
    """paho-mqtt at each QoS, a retained message, a will: each stored once, with its session."""
    with BrokerProcess(tmp_path) as broker:
        client = mqtt.Client(CallbackAPIVersion.VERSION2, "usual")
        client.username_pw_set("somebody")
        client.will_set("will/usual", b'{"gone": true}', qos)
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        for number in range(50):
            client.publish("usual/t", f'{{"n": {number}}}', qos)
        client.publish("usual/kept", b'{"n": 1}', qos, retain=True).wait_for_publish(30)
        broker.until_stored(51)
        socket = client.socket()
        assert socket is not None
        client.loop_stop()
        socket.close()
        broker.until_stored(52)
        assert broker.sql("SELECT n, qos, retain FROM usual_t ORDER BY n") == [(float(n), qos, 0) for n in range(50)]
        assert broker.sql("SELECT count(*), sum(retain) FROM usual_kept") == [(1, 1)]
        assert broker.sql("SELECT gone FROM will_usual") == [(1,)]
        rows = broker.sql(
            "SELECT s.client_id, s.username, s.address FROM usual_t t JOIN mqtt_session s ON s.id = t.session"
        )
        assert set(rows) == {("usual", "somebody", "127.0.0.1")}
        assert broker.stop() == 0
    assert broker.sql("SELECT count(*) FROM mqtt_session WHERE disconnected IS NULL") == [(0,)]


def test_the_plugin_in_amqtts_own_broker(tmp_path: Path) -> None:
    """`amqtt -c broker.yaml`, which knows nothing of this project but its name in the YAML."""
    broker = BrokerProcess(tmp_path, command="from amqtt.scripts.broker_script import main; main()")
    with broker, RawClient(broker.port, "c") as client:
        client.publish("a/b", ({"n": number} for number in range(100)), 1)
        assert len(client.acknowledged(100)) == 100
        broker.until_stored(100)
        assert broker.sql("SELECT sum(n) FROM a_b") == [(4950.0,)]
        broker.kill()
    told = f"amqtt_db stores what is published in sqlite:///{broker.database}, via journal {tmp_path}/mqtt.journal"
    assert told in broker.log.read_text()


def test_a_users_module_beside_the_configuration(tmp_path: Path) -> None:
    """The broker's and the writer's process both find a user's decoder in the current directory."""
    (tmp_path / "my_decoders.py").write_text("def shout(payload):\n    return {'text': payload.decode().upper()}\n")
    with BrokerProcess(tmp_path, routes=[{"topic": "#", "decode": "my_decoders.shout"}]) as broker:
        with RawClient(broker.port, "c") as client:
            client.publish("t", ["hello"], 1)
            assert len(client.acknowledged(1)) == 1
        broker.until_stored(1)
        assert broker.sql("SELECT text FROM t") == [('"HELLO"',)]
