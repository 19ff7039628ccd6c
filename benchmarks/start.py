"""The cost of starting: imports, memory, and a writer on a database with many tables.

usage: python benchmarks/start.py [--tables 2000] [--rounds 5] [--messages 20000] [--databases sqlite,postgresql]
                                  [--json FILE]

- Milliseconds of CPU of a fresh Python that imports the package, compared with one that imports amqtt's plugin base.
- Memory of the broker process compared with the bare broker's, after its start and after messages from 20 clients.
- Time from the start of the writer process until it has stored a message, on an empty database and on one in which each
  of 2,000 topics has its own table.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter, sleep, time_ns

import orjson
import psutil
from mqtt import DATABASES, PATIENCE, Clients, broker, step_aside, until_quiet

from amqtt_db.journal import Journal, read_progress
from amqtt_db.message import PUBLISH, flags

BASE = "import amqtt.plugins.base"
IMPORTS = {
    "amqtt's base of plugins": BASE,
    "and amqtt_db": f"{BASE}, amqtt_db",
    "amqtt's broker": "import amqtt.broker",
    "and amqtt_db.Plugin": "import amqtt.broker, amqtt_db.ingest.broker.plugin",
}
MEGABYTE = 2**20


def import_cpu(code: str, rounds: int) -> float:
    """Return milliseconds of CPU, the median over several processes, minus those of Python itself."""

    def once(code: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000

    once(code)
    return statistics.median(once(code) - once("pass") for _ in range(rounds))


def memory(messages: int, *, plugin: bool) -> tuple[float, float]:
    """Return resident megabytes of a broker process after its start and after messages."""
    with tempfile.TemporaryDirectory() as place, broker(Path(place), {} if plugin else None) as running:
        until_quiet(running.process, 0.2)
        fresh = running.process.memory_info().rss
        with Clients(running.port, 20) as clients:
            clients.publish(messages)
            until_quiet(running.process)
        return fresh / MEGABYTE, running.process.memory_info().rss / MEGABYTE


def fill(journal: Journal, topics: int) -> int:
    """Append a message on each topic; return the position after them."""
    for number in range(topics):
        topic = f"building/{number // 100}/sensor/{number}".encode()
        payload = orjson.dumps({"seq": number, "temp": 21.5, "rh": 45.2, "ok": True, "unit": "hall"})
        journal.append(flags(PUBLISH, 1), time_ns() // 1000, 0, topic, payload)
    return journal.commit()


def first_store(url: str, path: Path, journal: Journal, behind: int) -> tuple[float, float]:
    """Run the writer process until it has stored everything before a position; return elapsed and CPU seconds."""
    routes = [{"topic": "#", "model": "wide", "max_tables": 100_000}]
    config = {"database": url, "journal": {"path": str(path)}, "routes": routes}
    order = {"where": "benchmark", "config": config, "level": logging.ERROR, "niceness": 0}
    started = perf_counter()
    with subprocess.Popen([sys.executable, "-m", "amqtt_db.writer.process"], stdin=subprocess.PIPE) as writer:
        assert writer.stdin is not None
        writer.stdin.write(orjson.dumps(order) + b"\n")
        writer.stdin.flush()
        while (progress := read_progress(path)) is None or (progress.token, progress.position) < (
            journal.token,
            behind,
        ):
            if writer.poll() is not None or perf_counter() > started + PATIENCE * 10:
                raise RuntimeError("the writer does not store")
            sleep(0.005)
        seconds = perf_counter() - started
        times = psutil.Process(writer.pid).cpu_times()
        writer.stdin.close()
    return seconds, times.user + times.system


def writer_start(url: str, tables: int, rounds: int) -> dict[str, float]:
    """Return median seconds until a message is stored, on an empty database and on one with many tables."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "mqtt.journal"
        journal = Journal.open(path, max_size=2**30, sync="never")
        empty = first_store(url, path, journal, fill(journal, 1))
        first_store(url, path, journal, fill(journal, tables))
        full = [first_store(url, path, journal, fill(journal, 1)) for _ in range(rounds)]
        journal.close()
    wall, cpu = (statistics.median(some) for some in zip(*full, strict=True))
    return {"empty": empty[0], "full": wall, "CPU": cpu}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--databases", default="sqlite,postgresql")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results: dict[str, dict[str, float]] = {"import, ms of CPU": {}, "memory, MB": {}}
    for name, code in IMPORTS.items():
        results["import, ms of CPU"][name] = taken = import_cpu(code, arguments.rounds)
        print(f"import {name:26}{taken:8.1f} ms", flush=True)
    step_aside()
    for name, plugin in (("bare broker", False), ("with the plugin", True)):
        fresh, used = memory(arguments.messages, plugin=plugin)
        results["memory, MB"] |= {f"{name}, fresh": fresh, f"{name}, used": used}
        print(f"memory {name:26}{fresh:8.1f} MB fresh{used:8.1f} MB after messages", flush=True)
    for kind in arguments.databases.split(","):
        with DATABASES[kind].fresh() as url:
            results[kind] = row = writer_start(url, arguments.tables, arguments.rounds)
        print(
            f"writer, {kind:25}{row['empty']:8.2f} s empty{row['full']:8.2f} s with {arguments.tables} tables"
            f" ({row['CPU']:.2f} s of CPU)",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
