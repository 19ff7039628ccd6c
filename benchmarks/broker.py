"""PUBACK rate and CPU of a broker with the plugin and its writer, compared with the bare broker in the same run.

usage: python benchmarks/broker.py [--messages 10000] [--rounds 7] [--clients 1,20,200,1000] [--directory DIR]
                                   [--json FILE]

All brokers run at the same time and take turns, with 200 QoS 1 messages in flight.  The table shows medians over the
rounds; ratios are medians of the ratios within each round.  On Linux with two processors each broker is pinned to the
first, the clients and the writer to the other.  ``writer paused``: the writer is stopped, so the clients have the other
processor to themselves.  ``--directory`` selects the disk of the journals.

The bare broker acknowledges first and passes messages on to subscribers afterwards, so much of its work is still to be
done at the last PUBACK; the broker with the plugin does that work while it waits for the disk.  So CPU per message is
counted until the broker is idle, and the rate both until the last PUBACK and until idle.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import attrs
from common import show
from mqtt import Clients, Running, broker, cpu_seconds, step_aside, until_quiet

BARE = "bare broker"
FIGURES = ("PUBACK/s", "ratio", "at rest/s", "its ratio", "CPU µs", "CPU ratio")
WIDTHS = (-23, 7, 11, 8, 11, 11, 9, 11)


@attrs.frozen
class Pace:
    """One round: messages per second until the last PUBACK and until idle, microseconds of CPU per message."""

    acknowledged: float
    done: float
    cpu: float


def measure(running: Running, clients: Clients, count: int, aside: Callable[[], Any]) -> Pace:
    """Run one round with one broker."""
    with aside():
        used, started = cpu_seconds(running.process), perf_counter()
        acknowledged = clients.publish(count)
        rest, used_then = until_quiet(running.process)
    cpu = (used_then - used) / count * 1e6
    return Pace(count / (acknowledged - started), count / (max(rest, acknowledged) - started), cpu)


@contextmanager
def contestants(directory: Path | None, clients: int) -> Iterator[dict[str, Callable[[int], Pace]]]:
    """Yield the function that measures each broker, by name."""
    with ExitStack() as stack:

        def start(plugin: dict[str, Any] | None) -> tuple[Running, Clients]:
            place = stack.enter_context(tempfile.TemporaryDirectory(dir=directory))
            running = stack.enter_context(broker(Path(place), plugin))
            return running, stack.enter_context(Clients(running.port, clients))

        bare, ours = start(None), start({})
        yield {
            BARE: partial(measure, *bare, aside=nullcontext),
            "plugin, writer paused": partial(measure, *ours, aside=ours[0].writer_paused),
            "plugin and writer": partial(measure, *ours, aside=nullcontext),
        }


def compare(directory: Path | None, clients: int, messages: int, rounds: int) -> dict[str, list[Pace]]:
    """Measure all brokers in turn, after a warm-up round."""
    with contestants(directory, clients) as measures:
        for measured in measures.values():
            measured(max(clients, 1000))
        sleep(0.5)
        paces: dict[str, list[Pace]] = {name: [] for name in measures}
        for _ in range(rounds):
            for name, measured in measures.items():
                paces[name].append(measured(messages))
    return paces


def summary(paces: list[Pace], bare: list[Pace]) -> dict[str, float]:
    """Return medians, and medians of the ratios to the bare broker in the same round."""
    row = {}
    for field in attrs.fields_dict(Pace):
        ours, theirs = ([getattr(pace, field) for pace in some] for some in (paces, bare))
        row[field] = statistics.median(ours)
        row[f"{field} ratio"] = statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
    return row


def main() -> None:
    """Measure each number of clients and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clients", default="1,20,200,1000")
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    step_aside()
    results: dict[int, dict[str, dict[str, float]]] = {}
    for clients in map(int, arguments.clients.split(",")):
        paces = compare(arguments.directory, clients, arguments.messages, arguments.rounds)
        results[clients] = {name: summary(some, paces[BARE]) for name, some in paces.items()}
        for name, row in results[clients].items():
            cells = {"broker": name, "clients": clients, **dict(zip(FIGURES, row.values(), strict=True))}
            show(cells, WIDTHS, head=len(results) == 1 and name == BARE)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
