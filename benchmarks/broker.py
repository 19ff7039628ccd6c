"""PUBACK rate and CPU of a broker with the plugin and its writer, beside the bare broker in the same minutes.

usage: python benchmarks/broker.py [--messages 20000] [--rounds 3] [--clients 1,20,200] [--json FILE]

On Linux the broker is pinned to the first processor, the load and the writer use the others.  Rounds alternate between
the two brokers; printed are medians.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import psutil
import yaml

WINDOW = 200  # messages in flight, over all clients of a connection
TIMEOUT = 60.0


@contextmanager
def broker(directory: Path, *, plugin: bool) -> Iterator[tuple[int, psutil.Process]]:
    """A broker in a process of its own: its port and its process."""
    port = _free_port()
    plugins: dict[str, Any] = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    if plugin:
        section = {
            "database": f"sqlite:///{directory / 'mqtt.db'}",
            "journal": {"path": str(directory / "mqtt.journal")},
        }
        plugins["amqtt_db.Plugin"] = section
    config = {"listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}}, "plugins": plugins}
    path = directory / "broker.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-c", "from amqtt.scripts.broker_script import main; main()", "-c", str(path)]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=directory)
    try:
        _await_port(port, process)
        _pin(process.pid)
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def connect(port: int, name: str) -> socket.socket:
    """A client on a raw socket."""
    client = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    body = _text("MQTT") + bytes([4, 2]) + struct.pack("!H", 0) + _text(name)
    client.sendall(b"\x10" + _length(len(body)) + body)
    if client.recv(4) != b"\x20\x02\x00\x00":
        raise RuntimeError("the broker does not accept the client")
    return client


def packets(client: int, count: int) -> list[bytes]:
    """QoS 1 messages of seven fields."""
    made = []
    for number in range(count):
        payload = json.dumps(
            {"seq": number, "temp": 21.5, "rh": 45.2, "press": 1013.2, "ok": True, "unit": "hall", "time": 1700000000}
        ).encode()
        body = _text(f"site/{client % 20}/climate") + struct.pack("!H", number % 65535 + 1) + payload
        made.append(b"\x32" + _length(len(body)) + body)
    return made


def load(port: int, clients: int, messages: int) -> float:
    """Publish, each client with its window in flight; seconds until the last PUBACK."""
    sockets = {connect(port, f"bench{number}"): number for number in range(clients)}
    waiting = {client: packets(number, messages // clients) for client, number in sockets.items()}
    window = max(1, WINDOW // clients)
    in_flight = dict.fromkeys(sockets, 0)
    bytes_in = dict.fromkeys(sockets, 0)
    left = sum(map(len, waiting.values()))
    started = perf_counter()
    while left:
        for client, queue in waiting.items():
            room = window - in_flight[client]
            if queue and room >= (window + 1) // 2:
                client.sendall(b"".join(queue[:room]))
                in_flight[client] += len(queue[:room])
                del queue[:room]
        readable, _, _ = select.select(list(sockets), [], [], TIMEOUT)
        if not readable:
            raise RuntimeError(f"{left} messages were never acknowledged")
        for client in readable:
            bytes_in[client] += len(client.recv(65536))
            done, bytes_in[client] = divmod(bytes_in[client], 4)
            in_flight[client] -= done
            left -= done
    seconds = perf_counter() - started
    for client in sockets:
        client.sendall(b"\xe0\x00")
        client.close()
    return seconds


def measure(clients: int, messages: int, *, plugin: bool) -> dict[str, float]:
    """One round: messages per second, and microseconds of the broker's CPU per message."""
    with tempfile.TemporaryDirectory() as name, broker(Path(name), plugin=plugin) as (port, process):
        load(port, clients, max(clients, 1000))
        before = process.cpu_times()
        seconds = load(port, clients, messages)
        after = process.cpu_times()
    cpu = after.user + after.system - before.user - before.system
    return {"rate": messages / seconds, "cpu": cpu / messages * 1e6}


def main() -> None:
    """Run all numbers of clients, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", default="1,20,200")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(_others()))
    results = {}
    print(f"{'clients':>7}{'bare/s':>10}{'plugin/s':>10}{'ratio':>8}{'bare µs':>10}{'plugin µs':>11}{'ratio':>8}")
    for clients in map(int, arguments.clients.split(",")):
        rounds = [
            (measure(clients, arguments.messages, plugin=False), measure(clients, arguments.messages, plugin=True))
            for _ in range(arguments.rounds)
        ]
        bare, ours = (
            {key: statistics.median(r[side][key] for r in rounds) for key in ("rate", "cpu")} for side in (0, 1)
        )
        results[clients] = {"bare": bare, "plugin": ours}
        print(
            f"{clients:7}{bare['rate']:10,.0f}{ours['rate']:10,.0f}{ours['rate'] / bare['rate']:8.2f}"
            f"{bare['cpu']:10.1f}{ours['cpu']:11.1f}{ours['cpu'] / bare['cpu']:8.2f}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))


def _others() -> list[int]:
    return list(range(1, os.cpu_count() or 1)) or [0]


def _pin(pid: int) -> None:
    """The broker alone on the first processor; children that are there already, such as the writer, on the others."""
    if hasattr(os, "sched_setaffinity"):
        for child in psutil.Process(pid).children():
            os.sched_setaffinity(child.pid, set(_others()))
        os.sched_setaffinity(pid, {0})


def _await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(1000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            break
        sleep(0.02)
    raise RuntimeError("the broker does not listen")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _text(value: str) -> bytes:
    return struct.pack("!H", len(value)) + value.encode()


def _length(value: int) -> bytes:
    out = b""
    while True:
        value, digit = divmod(value, 128)
        out += bytes([digit | (0x80 if value else 0)])
        if not value:
            return out


if __name__ == "__main__":
    main()
