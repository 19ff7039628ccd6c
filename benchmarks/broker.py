"""PUBACK rate and CPU of a broker with the plugin and its writer, beside the bare broker in the same minutes.

usage: python benchmarks/broker.py [--messages 10000] [--rounds 7] [--clients 1,20,200] [--directory DIR] [--json FILE]

All brokers run side by side and are asked in turn, with 200 messages of QoS 1 in flight; printed are medians over the
rounds, the ratios over the ratios within each round.  On Linux with two processors each broker is pinned to the first,
the clients and the writer to the others.  ``writer paused``: the writer stands still meanwhile, so that the clients
have the other processor for themselves.  ``--directory``: on which disk the journals are.

The bare broker acknowledges first and passes messages on to its subscribers afterwards, so that much of its work is
still to be done when the last PUBACK has come; the plugin's broker does that while the disk is busy.  So the CPU per
message is taken when the broker has come to rest, and the rate both until the last PUBACK and until then.
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
    """What one round took: messages a second until the last PUBACK and until rest, microseconds of CPU a message."""

    acknowledged: float
    done: float
    cpu: float


def measure(running: Running, clients: Clients, count: int, aside: Callable[[], Any]) -> Pace:
    """One round with one broker."""
    with aside():
        used, started = cpu_seconds(running.process), perf_counter()
        acknowledged = clients.publish(count)
        rest, used_then = until_quiet(running.process)
    cpu = (used_then - used) / count * 1e6
    return Pace(count / (acknowledged - started), count / (max(rest, acknowledged) - started), cpu)


@contextmanager
def contestants(directory: Path | None, clients: int) -> Iterator[dict[str, Callable[[int], Pace]]]:
    """What measures each broker, by name."""
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
    """All brokers in turn, after a first round that does not count."""
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
    """Medians, and those of the ratios to the bare broker in the same round."""
    row = {}
    for field in attrs.fields_dict(Pace):
        ours, theirs = ([getattr(pace, field) for pace in some] for some in (paces, bare))
        row[field] = statistics.median(ours)
        row[f"{field} ratio"] = statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
    return row


def main() -> None:
    """Run all numbers of clients, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clients", default="1,20,200")
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
