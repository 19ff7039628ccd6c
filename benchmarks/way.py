"""The whole way, from a publisher to a row that others see: CPU of each process, and time, at several rates.

usage: python benchmarks/way.py [--rates 10,100,1000] [--seconds 10] [--messages 20000] [--idle 10] [--rounds 1]
                                [--databases sqlite,postgresql] [--ways plugin,bridge,script,batches,node-red]
                                [--node-red DIR] [--directory DIR] [--json FILE]

``plugin`` is amqtt with the plugin, ``bridge`` is Mosquitto with ``amqtt-db run``.  Beside them, at Mosquitto too, what
one writes oneself: a script with paho that commits each message (``script``) or what has arrived every 25 ms
(``batches``), and a flow of Node-RED with its node for SQLite, if ``npm install node-red node-red-node-sqlite`` was run
in the directory that ``--node-red`` names.  All run at the same time and take turns.

Microseconds of CPU per message: of the broker, of the client that subscribes, of the writer, and of the database's
server without the sessions of this program; milliseconds from publishing until another process finds the row.  At full
load, those that commit each message get a tenth of ``--messages``.  For ``idle``, the columns are percent of a core.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter, sleep
from typing import Any, Final

import attrs
import plain
import psutil
import sqlalchemy as sa
from bridge import Run, await_rows, empty, flood, mosquitto
from common import show
from latency import ROUTES, latencies, prepare, publish, watched
from mqtt import DATABASES, PATIENCE, broker, cpu_seconds, free_port

PAUSE: Final = "0.025"
SLOW: Final = ("script", "node-red")
ROLES: Final = ("broker", "client", "writer", "database")
WATCHER: Final = "way.py"
WIDTHS: Final = (-12, -12, -11, 10, 10, 10, 10, 10, 9, 9, 9)
FLOW: Final[tuple[dict[str, Any], ...]] = (
    {"id": "flow", "type": "tab"},
    {"id": "in", "z": "flow", "type": "mqtt in", "topic": "site/+/climate", "qos": "1", "datatype": "json",
     "broker": "broker", "wires": [["params"]]},
    {"id": "params", "z": "flow", "type": "function", "wires": [["insert"]], "outputs": 1,
     "func": "msg.params = {$topic: msg.topic}; for (const name in msg.payload) msg.params['$' + name] = "
             "msg.payload[name]; return msg;"},
    {"id": "insert", "z": "flow", "type": "sqlite", "mydb": "database", "sqlquery": "prepared",
     "sql": plain.INSERT.format(", ".join(f"${name}" for name in plain.FIELDS)), "wires": [[]]},
)  # fmt: skip


@attrs.frozen
class Way:
    """A running system: the broker's port, its processes by what they do, and the database."""

    name: str
    port: int
    processes: Mapping[str, psutil.Process]
    database: sa.Engine

    def seconds(self) -> dict[str, float]:
        """Return the CPU seconds so far of each process, and of the server."""
        found = {role: cpu_seconds(process) for role, process in self.processes.items()}
        return {**found, "database": server_seconds(self.database)}


def server_seconds(database: sa.Engine) -> float:
    """Return the CPU seconds of all processes of a PostgreSQL server on this machine, but for this program's sessions.

    SQLite has no server.
    """
    if database.dialect.name == "sqlite":
        return 0.0
    with database.connect() as connection:
        query = f"SELECT pid FROM pg_stat_activity WHERE application_name = '{WATCHER}'"
        own = set(connection.exec_driver_sql(query).scalars())
    server = psutil.Process(next(iter(own))).parent()
    assert server is not None
    return sum(cpu_seconds(process) for process in (server, *server.children()) if process.pid not in own)


@contextmanager
def plugin(place: Path, url: str, _: Any) -> Iterator[tuple[int, dict[str, psutil.Process]]]:
    """Run amqtt with the plugin."""
    with broker(place, {"database": url, "routes": ROUTES}) as running:
        yield running.port, {"broker": running.process, "writer": running.writer}


@contextmanager
def bridge(place: Path, url: str, _: Any) -> Iterator[tuple[int, dict[str, psutil.Process]]]:
    """Run Mosquitto and the bridge."""
    with mosquitto(place) as running, Run(running.port, url, place) as client:
        deadline = perf_counter() + PATIENCE
        while not client.children() and perf_counter() < deadline:
            sleep(0.1)
        yield running.port, {"broker": running.process, "client": client, "writer": client.children()[0]}


@contextmanager
def script(place: Path, url: str, _: Any, pause: str = "0") -> Iterator[tuple[int, dict[str, psutil.Process]]]:
    """Run Mosquitto and the script."""
    plain.create(url)
    with mosquitto(place) as running:
        command = [sys.executable, str(Path(plain.__file__)), url, str(running.port), pause]
        with child(command, place) as process:
            yield running.port, {"broker": running.process, "client": process}


@contextmanager
def node_red(place: Path, url: str, directory: Path) -> Iterator[tuple[int, dict[str, psutil.Process]]]:
    """Run Mosquitto and Node-RED."""
    plain.create(url)
    with mosquitto(place) as running:
        servers = (
            {"id": "broker", "type": "mqtt-broker", "broker": "127.0.0.1", "port": running.port, "clientid": "node-red",
             "cleansession": False, "autoConnect": True, "keepalive": "60", "protocolVersion": "4"},
            {"id": "database", "type": "sqlitedb", "db": sa.make_url(url).database, "mode": "RW"},
        )  # fmt: skip
        (place / "flows.json").write_text(json.dumps([*FLOW, *servers]))
        home = (directory / "node_modules").absolute()
        (place / "node_modules").symlink_to(home)
        command = ["node", str(home / "node-red" / "red.js"), "-u", str(place), "-p", str(free_port()), "flows.json"]
        with child(command, place) as process:
            yield running.port, {"broker": running.process, "client": process}


WAYS: Final[dict[str, Any]] = {
    "plugin": plugin,
    "bridge": bridge,
    "script": script,
    "batches": lambda *where: script(*where, pause=PAUSE),
    "node-red": node_red,
}


@contextmanager
def child(command: list[str], place: Path) -> Iterator[psutil.Process]:
    """Run a command."""
    with (place / "child.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=place)
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(PATIENCE)


@contextmanager
def started(kind: str, arguments: argparse.Namespace) -> Iterator[list[Way]]:
    """Run all ways into databases of a kind."""
    with ExitStack() as stack:
        ways = []
        for name in arguments.ways.split(","):
            if name == "node-red" and (arguments.node_red is None or kind != "sqlite"):
                continue
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=arguments.directory)))
            url = f"sqlite:///{place / 'mqtt.db'}" if kind == "sqlite" else stack.enter_context(DATABASES[kind].fresh())
            port, processes = stack.enter_context(WAYS[name](place, url, arguments.node_red))
            own = {} if kind == "sqlite" else {"application_name": WATCHER}
            database = sa.create_engine(url, connect_args=own)
            stack.callback(database.dispose)
            prepare(port, database)
            ways.append(Way(name, port, processes, database))
        yield ways


def measure(way: Way, load: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Measure a way under a load: ``idle``, ``full``, or messages per second."""
    empty(way.database)
    sleep(0.5)
    used, began = way.seconds(), perf_counter()
    if load == "idle":
        sleep(arguments.idle)
        found, share = {}, 100 / (perf_counter() - began)
    elif load == "full":
        count = arguments.messages // (10 if way.name in SLOW else 1)
        flood(way.port, "site/1/climate", count)
        await_rows(way.database, count)
        found, share = {"rows/s": count / (perf_counter() - began)}, 1e6 / count
    else:
        count = int(float(load) * arguments.seconds)
        with watched(way.database, count) as seen:
            sent, _ = publish(way.port, 1, float(load), count)
        timed = {number: at for number, at in sent.items() if number in seen}  # Node-RED's rows may overtake others
        found, share = latencies(timed, seen), 1e6 / count
    now = way.seconds()
    spent = {role: (now[role] - used[role]) * share for role in now}
    return {**spent, "sum": sum(spent.values()), **found}


def compare(kind: str, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield medians for each load and way."""
    loads = ["idle", *arguments.rates.split(","), "full"]
    with started(kind, arguments) as ways:
        for load in loads:
            rounds: dict[str, list[dict[str, float]]] = {way.name: [] for way in ways}
            for _ in range(arguments.rounds):
                for way in ways:
                    rounds[way.name].append(measure(way, load, arguments))
            for name, some in rounds.items():
                row = {key: statistics.median(one[key] for one in some) for key in some[0]}
                figures = {key: row.get(key) for key in (*ROLES, "sum", "p50", "p99", "rows/s")}
                yield {"database ": kind, "load": load, "way": name, **figures}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", default="10,100,1000")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--idle", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--databases", default="sqlite,postgresql")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--node-red", type=Path)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: list[dict[str, Any]] = []
    for kind in arguments.databases.split(","):
        for row in compare(kind, arguments):
            show(row, WIDTHS, head=not found)
            found.append(row)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
