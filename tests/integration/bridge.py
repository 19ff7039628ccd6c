"""Mosquitto and a bridge in separate processes, as a user starts them, and a publisher."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho
import yaml
from paho.mqtt.enums import CallbackAPIVersion

from tests.ports import free_port

if TYPE_CHECKING:
    from typing_extensions import Self

    from tests.network import Host

PATIENCE = 30.0
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def until(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.02)


def numbers(start: int, stop: int) -> list[str]:
    """Payloads with a number each."""
    return [f'{{"n": {number}}}' for number in range(start, stop)]


class LocalBroker:
    """A broker on a port that it keeps; ``directory`` holds its configuration, its log and what it stores."""

    name = ""
    username: str | None = None
    patience = PATIENCE

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.port = free_port()
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self._log = directory / "broker.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._command = self._write_configuration()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, cwd=self.directory, env=self._environment()
            )
        until(self._listens, f"{self.name} listens", self.patience)

    def stop(self) -> None:
        """SIGTERM, and wait for its end."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(self.patience)

    def kill(self) -> None:
        """``kill -9``."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(self.patience)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Stop the process inside the ``with`` block; the system goes on to take connections for it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    @property
    def log(self) -> str:
        """What it has logged."""
        return self._log.read_text()

    def publish(self, payloads: Iterable[str], topic: str = "t", qos: int = 1, **options: Any) -> None:
        """Publish as one client; return when the broker has acknowledged everything."""
        publish(self.port, payloads, topic, qos, self.username, **options)

    def _write_configuration(self) -> list[str]:
        """Write what the broker reads, and return the command that starts it."""
        raise NotImplementedError

    def _environment(self) -> dict[str, str]:
        return dict(os.environ)

    def _listens(self) -> bool:
        with closing(socket.socket()) as trial:
            return trial.connect_ex(("127.0.0.1", self.port)) == 0


class Mosquitto(LocalBroker):
    """A Mosquitto without limits on its queues; ``lines`` are added to its configuration.  It may run on a ``host``."""

    name = "Mosquitto"

    def __init__(self, directory: Path, *lines: str, host: Host | None = None) -> None:
        self._lines = lines
        self._host = host
        super().__init__(directory)
        if host is not None:
            self.url = f"mqtt://{host.address}:{self.port}"

    def _write_configuration(self) -> list[str]:
        own = [
            "user root",
            f"listener {self.port}{' 127.0.0.1' if self._host is None else ''}",
            "max_queued_messages 0",
            f"persistence_location {self.directory}/",
        ]
        is_open = not any(line.startswith("password_file") for line in self._lines)
        path = self.directory / "mosquitto.conf"
        path.write_text("\n".join([*own, *(["allow_anonymous true"] if is_open else []), *self._lines]) + "\n")
        elsewhere = [] if self._host is None else ["ip", "netns", "exec", self._host.name]
        return [*elsewhere, str(MOSQUITTO), "-c", str(path)]

    def _listens(self) -> bool:
        host = "127.0.0.1" if self._host is None else self._host.address
        with closing(socket.socket()) as trial:
            return trial.connect_ex((host, self.port)) == 0


def publish(
    port: int, payloads: Iterable[str], topic: str = "t", qos: int = 1, username: str | None = None, **options: Any
) -> None:
    """Publish as one client; return when the broker at a port has acknowledged everything."""
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.username_pw_set(username)
    client.max_inflight_messages_set(20)  # beyond what Mosquitto takes at QoS 2, it may never answer
    connected = Event()
    client.on_connect = lambda *_: connected.set()
    client.connect("127.0.0.1", port)
    client.loop_start()
    assert connected.wait(PATIENCE)
    sent = [client.publish(topic, payload, qos, **options) for payload in payloads]
    for one in sent:
        one.wait_for_publish(PATIENCE)
        assert one.is_published(), "the broker does not acknowledge"
    client.disconnect()
    client.loop_stop()


class BridgeProcess:
    """``amqtt-db run`` with brokers; each topic has its own table."""

    def __init__(self, directory: Path, broker: Any, **document: Any) -> None:
        self.directory = directory
        self.log = directory / "bridge.log"
        self.database = directory / "mqtt.db"
        self._broker = broker
        self.configure(**document)
        self._process: subprocess.Popen[bytes] | None = None
        self._seen = 0
        self.environment: Mapping[str, str] = {}
        """What the next start adds to the environment."""

    def configure(self, **document: Any) -> None:
        """Write the configuration for the next start."""
        broker = {} if self._broker is None else {"broker": self._broker}
        document = {**broker, "database": f"sqlite:///{self.database}", **document}
        document.setdefault("journal", {"path": str(self.directory / "mqtt.journal")})
        (self.directory / "bridge.yaml").write_text(yaml.safe_dump(document))

    def __enter__(self) -> BridgeProcess:
        self.start()
        self.await_connection()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.await_connection()
            assert self.stop() == 0

    def await_connection(self) -> None:
        """Wait until the bridge, perhaps only just started again, is connected, or has told why not."""
        until(self._is_up, "the bridge is connected")

    def _is_up(self) -> bool:
        of_writers = self.logged("ERROR amqtt_db writer") + self.logged("ERROR amqtt_db.ingest.supervisor")
        has_failed = self.logged("ERROR") > of_writers  # that of a killed bridge may still be at work
        return has_failed or self.logged("connected with MQTT") > self._seen

    def start(self) -> None:
        """Start it, and wait for nothing."""
        command = [sys.executable, "-m", "amqtt_db", "run", str(self.directory / "bridge.yaml")]
        self._seen = self.logged("connected with MQTT")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.directory, env=os.environ | self.environment
            )

    def stop(self) -> int:
        """SIGTERM, and wait for a clean end."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(PATIENCE)

    def kill(self) -> None:
        """``kill -9`` the bridge; its writer ends by itself."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(PATIENCE)

    @contextmanager
    def without_writer(self) -> Iterator[None]:
        """The writer is stopped, and killed at the end."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        until(children.read_text, "the bridge has a writer")
        writer = int(children.read_text())
        os.kill(writer, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(writer, signal.SIGKILL)

    @property
    def is_running(self) -> bool:
        """True unless it has ended."""
        return self._process is not None and self._process.poll() is None

    def logged(self, text: str) -> int:
        """Return how often a text is in the log."""
        return self.log.read_text().count(text) if self.log.exists() else 0

    def query(self, sql: str) -> list[Any]:
        """Rows of the database; none if it has no such table yet."""
        try:
            with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=PATIENCE)) as database:
                return database.execute(sql).fetchall()
        except sqlite3.OperationalError:
            return []

    def count(self) -> int:
        """How many messages of the topic t are stored, some perhaps twice."""
        return sum(count for (count,) in self.query("SELECT count(*) FROM t"))

    def stored(self, table: str = "t", column: str = "n") -> list[int]:
        """The numbers in the messages of a topic, in order."""
        return sorted(int(row[0]) for row in self.query(f"SELECT {column} FROM {table}"))
