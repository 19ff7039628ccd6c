"""A broker in a separate process, as a user starts it, and raw clients that do what libraries refuse to do."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from tests.ports import free_port

CONNECT, PUBLISH, DISCONNECT = 0x10, 0x30, b"\xe0\x00"
PATIENCE = 60.0


class BrokerProcess:
    """``amqtt-db run`` with a plugin section of one's own, on a free port of 127.0.0.1.

    ``command`` is the Python code of another way to start it, which gets ``-c`` and the configuration.
    """

    def __init__(self, directory: Path, command: str | None = None, **section: Any) -> None:
        self.command = command
        self.directory = directory
        self.port = free_port()
        self.database = directory / "mqtt.db"
        config = {
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{self.port}"}},
            "plugins": {
                "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True},
                "amqtt_db.Plugin": {"database": f"sqlite:///{self.database}", **section},
            },
        }
        config["plugins"]["amqtt_db.Plugin"].setdefault("journal", {"path": str(directory / "mqtt.journal")})
        self.config = directory / "broker.yaml"
        self.config.write_text(yaml.safe_dump(config))
        self.log = directory / "broker.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> BrokerProcess:
        """Start it and wait until it listens."""
        with self.log.open("ab") as log:
            start = ["-m", "amqtt_db", "run"] if self.command is None else ["-c", self.command, "-c"]
            command = [sys.executable, *start, str(self.config)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.directory)
        self.until(self._listens, "the broker listens")
        return self

    def __enter__(self) -> BrokerProcess:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()

    def stop(self) -> int:
        """SIGTERM, and wait for a clean end."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """``kill -9`` the broker."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE)

    def writer(self) -> int:
        """The process id of the writer."""
        found: list[int] = []

        def look() -> bool:
            found[:] = [pid for pid in _children(self.process) if _runs_worker(pid)]
            return bool(found)

        self.until(look, "there is a writer")
        return found[0]

    def kill_writer(self) -> None:
        """``kill -9`` the writer; the plugin starts another."""
        os.kill(self.writer(), signal.SIGKILL)

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        """Run SQL as a user who opens the database would; return no rows if there is none yet."""
        if not self.database.exists():
            return []
        connection = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=30)
        try:
            return connection.execute(query).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return []
            raise
        finally:
            connection.close()

    def count(self) -> int:
        """Messages stored, dead or ignored so far."""
        rows = self.sql("SELECT sum(mqtt_counter.stored) + sum(dead) + sum(ignored) FROM mqtt_counter")
        return rows[0][0] or 0 if rows else 0

    def until_stored(self, count: int) -> None:
        """Wait until so many messages are in the database."""
        self.until(lambda: self.count() >= count, f"{count} messages are stored")

    def until(self, holds: Any, what: str, patience: float = PATIENCE) -> None:
        """Wait for a condition that no event announces to another process; fail with the log after some seconds."""
        deadline = time.monotonic() + patience
        while not holds():
            if time.monotonic() > deadline or (self.process is not None and self.process.poll() is not None):
                raise AssertionError(f"not so: {what}\n{self.log.read_text()}")
            time.sleep(0.02)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class RawClient:
    """An MQTT 3.1.1 client on a bare socket: sends what the test says, remembers what was acknowledged."""

    def __init__(self, port: int, name: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        body = _text("MQTT") + bytes([4, 2]) + struct.pack("!H", 0) + _text(name)
        self.socket.sendall(bytes([CONNECT]) + _length(len(body)) + body)
        assert _exactly(self.socket, 4) == b"\x20\x02\x00\x00"
        self._rest = b""

    def publish(self, topic: str, payloads: Iterable[object], qos: int) -> None:
        """Send messages in one go, with packet ids from 1, and wait for nothing."""
        packets = []
        for number, payload in enumerate(payloads):
            identifier = struct.pack("!H", number % 65535 + 1) if qos else b""
            body = _text(topic) + identifier + json.dumps(payload).encode()
            packets.append(bytes([PUBLISH | qos << 1]) + _length(len(body)) + body)
        self.socket.sendall(b"".join(packets))

    def acknowledged(self, most: int) -> list[int]:
        """The packet ids of PUBACKs, until ``most`` have come or the connection has ended."""
        found: list[int] = []
        while len(found) < most:
            try:
                data = self.socket.recv(65536)
            except OSError:
                data = b""
            if not data:
                break
            self._rest += data
            whole = len(self._rest) // 4 * 4
            acks, self._rest = self._rest[:whole], self._rest[whole:]
            found += [struct.unpack("!H", acks[at + 2 : at + 4])[0] for at in range(0, whole, 4) if acks[at] == 0x40]
        return found

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def disconnect(self) -> None:
        """Send DISCONNECT and close at once."""
        self.socket.sendall(DISCONNECT)
        self.socket.close()


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("!H", len(raw)) + raw


def _length(value: int) -> bytes:
    out = b""
    while True:
        value, digit = divmod(value, 128)
        out += bytes([digit | (0x80 if value else 0)])
        if not value:
            return out


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        assert piece, "the broker has closed the connection"
        data += piece
    return data


def _children(process: subprocess.Popen[bytes] | None) -> list[int]:
    assert process is not None
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


def _runs_worker(pid: int) -> bool:
    try:
        return b"amqtt_db.writer.process" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
