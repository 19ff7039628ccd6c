"""What a message's form costs: nested objects beside flat ones, odd values beside none, forms that drift.

usage: python benchmarks/payloads.py [--messages 20000] [--rounds 3] [--models wide,document] [--forms "flat;nested"]
                                     [--json FILE]

Prints microseconds of CPU per message, medians over interleaved rounds, and the ratio to the form that a form is
compared with: the same leaves without nesting, or the same messages without what is odd.  ``type`` is decoding and
typing alone, ``store`` all that the writer does, into SQLite in memory.
"""

from __future__ import annotations

import argparse
import logging
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import orjson
from common import BATCH, ENTITY, Message, Spent, Storing, batches, median, save, seven_values, show, timed

from amqtt_db.record import flatten
from amqtt_db.writer.decoding import decode_batch
from amqtt_db.writer.process import relax_collector

TOPIC = "site/{site}/form"
WIDTHS = (-9, -34, 9, 9, 9, 9)
Payload = dict[str, Any]


@attrs.frozen
class Form:
    """Payloads of one form; ``like`` names the form to compare with, ``route`` has further keys of the route."""

    make: Callable[[random.Random, int], Payload | bytes]
    like: str | None = None
    route: Mapping[str, Any] = {}


def zigbee(rng: random.Random, number: int) -> Payload:
    """A lamp of zigbee2mqtt: one object in the message."""
    return {
        "state": rng.choice(["ON", "OFF"]),
        "brightness": rng.randrange(255),
        "color": {"x": rng.random(), "y": rng.random()},
        "color_mode": "xy",
        "linkquality": rng.randrange(255),
        "update": {"state": "idle", "installed_version": 8, "latest_version": 8},
    }


def tasmota(rng: random.Random, number: int) -> Payload:
    """A plug of Tasmota: one object in the message."""
    return {
        "Time": f"2026-01-01T00:{number // 60 % 60:02}:{number % 60:02}",
        "ENERGY": {
            "Total": round(rng.random() * 1000, 3),
            "Yesterday": round(rng.random(), 3),
            "Today": round(rng.random(), 3),
            "Power": rng.randrange(2000),
            "Factor": round(rng.random(), 2),
            "Voltage": rng.randrange(220, 240),
            "Current": round(rng.random() * 8, 3),
        },
    }


def lorawan(rng: random.Random, number: int) -> Payload:
    """An uplink of a LoRaWAN network: objects in objects, and a list."""
    return {
        "end_device_ids": {"device_id": f"d{number % 50}", "application_ids": {"application_id": "farm"}},
        "received_at": "2026-01-01T00:00:00.123Z",
        "uplink_message": {
            "f_port": 2,
            "f_cnt": number,
            "decoded_payload": {"temp": round(rng.gauss(21, 3), 2), "bat": round(rng.random() * 3, 2), "open": False},
            "rx_metadata": [{"rssi": -rng.randrange(120), "snr": rng.random()}],
            "settings": {"data_rate": {"lora": {"bandwidth": 125000, "spreading_factor": 7}}, "frequency": "868300000"},
        },
    }


def flattened(make: Callable[[random.Random, int], Payload]) -> Callable[[random.Random, int], Payload]:
    """Return the same values without nesting."""
    return lambda rng, number: {path.replace(".", "_"): value for path, value in flatten(make(rng, number)).items()}


def sometimes(share: float, change: Callable[[Payload], Payload | bytes]) -> Callable[[random.Random, int], Any]:
    """Return flat messages; a share of them is changed."""
    return lambda rng, number: change(seven_values(rng, number)) if rng.random() < share else seven_values(rng, number)


def thirty(rng: random.Random, number: int) -> Payload:
    """Fifteen numbers, always the same."""
    return {f"p{index}": rng.random() for index in range(15)}


def subset(rng: random.Random, number: int) -> Payload:
    """Each time fifteen others of thirty numbers."""
    return {f"p{index}": rng.random() for index in sorted(rng.sample(range(30), 15))}


def number_or_text(rng: random.Random, number: int) -> Payload:
    """A value that is a number or a text."""
    return {**seven_values(rng, number), "press": rng.choice([1013.25, "n/a"])}


def whole_or_not(rng: random.Random, number: int) -> Payload:
    """A value that is declared an integer and sometimes is none."""
    return {**seven_values(rng, number), "seq": rng.choice([number, number + 0.5])}


def _nan(payload: Payload) -> bytes:
    return orjson.dumps(payload).replace(b'"press":', b'"press":NaN,"was":')


DECLARED = {"entity": {**ENTITY, "time": "int"}}
LAMP = {
    "entity": {
        "state": "str",
        "brightness": "float",
        "color": {"x": "float", "y": "float"},
        "color_mode": "str",
        "linkquality": "float",
        "update": {"state": "str", "installed_version": "float", "latest_version": "float"},
    }
}
FLAT_LAMP = {
    "entity": {
        **dict.fromkeys(("brightness", "linkquality", "color_x", "color_y"), "float"),
        **dict.fromkeys(("update_installed_version", "update_latest_version"), "float"),
        **dict.fromkeys(("state", "color_mode", "update_state"), "str"),
    }
}

FORMS: dict[str, Form] = {
    "flat": Form(seven_values),
    "flat, declared": Form(seven_values, route=DECLARED),
    "zigbee, flat": Form(flattened(zigbee)),
    "zigbee": Form(zigbee, "zigbee, flat"),
    "zigbee, flat, declared": Form(flattened(zigbee), route=FLAT_LAMP),
    "zigbee, declared": Form(zigbee, "zigbee, flat, declared", LAMP),
    "tasmota, flat": Form(flattened(tasmota)),
    "tasmota": Form(tasmota, "tasmota, flat"),
    "lorawan, flat": Form(flattened(lorawan)),
    "lorawan": Form(lorawan, "lorawan, flat"),
    "1 in 1000 with 20 digits": Form(sometimes(0.001, lambda one: {**one, "seq": 2**64 - 1}), "flat"),
    "1 in 1000 with 20 digits, declared": Form(
        sometimes(0.001, lambda one: {**one, "seq": 2**64 - 1}), "flat, declared", DECLARED
    ),
    "1 in 1000 with NaN": Form(sometimes(0.001, _nan), "flat"),
    "1 in 1000 no JSON": Form(sometimes(0.001, lambda one: b'{"a":'), "flat"),
    "1 in 1000 with another kind": Form(sometimes(0.001, lambda one: {**one, "press": "n/a"}), "flat"),
    "1 in 1000 undeclared": Form(sometimes(0.001, lambda one: {**one, "more": 1}), "flat, declared", DECLARED),
    "1 in 1000 mistyped": Form(sometimes(0.001, lambda one: {**one, "press": "n/a"}), "flat, declared", DECLARED),
    "fifteen numbers": Form(thirty),
    "fifteen of thirty numbers": Form(subset, "fifteen numbers"),
    "number or text": Form(number_or_text, "flat"),
    "integer or not, declared": Form(whole_or_not, "flat, declared", DECLARED),
}


def messages(form: Form, count: int) -> list[Message]:
    """Return messages of a form over 20 topics, always the same."""
    rng = random.Random(7)
    made = (form.make(rng, number) for number in range(count))
    payloads = (one if isinstance(one, bytes) else orjson.dumps(one) for one in made)
    return [(f"site/{number % 20}/form".encode(), payload) for number, payload in enumerate(payloads)]


def once(model: str, form: Form, some: Sequence[Message]) -> dict[str, Spent]:
    """Measure all batches but the first, which makes the tables and teaches the shapes."""
    route = {"topic": TOPIC, "model": {"wide": {"table": "form"}} if model == "wide" else model, **form.route}
    first, *rest = batches(some, BATCH)
    with Storing("sqlite://", route) as storing:
        storing.register("a", 1)
        storing.store(first)
        router = storing.writer._assigner.router  # noqa: SLF001 - to measure one step alone
        typing = timed(lambda: [decode_batch(1, batch, router) for batch in rest])
        storing_all = timed(lambda: storing.store_all(rest))
    count = len(some) - len(first.positions)
    return {"type": typing.to_micros(count), "store": storing_all.to_micros(count)}


def measure(model: str, names: Sequence[str], count: int, rounds: int) -> list[dict[str, Any]]:
    """Return medians of each form, and the ratios to the form that it is compared with."""
    sent = {name: messages(FORMS[name], count + BATCH) for name in names}
    found: defaultdict[tuple[str, str], list[Spent]] = defaultdict(list)
    for _ in range(rounds):
        for name in names:
            for part, spent in once(model, FORMS[name], sent[name]).items():
                found[name, part].append(spent)
    cpu = {key: median(spent).cpu for key, spent in found.items()}
    return [_row(model, name, cpu) for name in names]


def _row(model: str, name: str, cpu: Mapping[tuple[str, str], float]) -> dict[str, Any]:
    like = FORMS[name].like
    row: dict[str, Any] = {"model": model, "form": name}
    for part in ("type", "store"):
        row[part] = cpu[name, part]
        row[f"{part} ratio"] = cpu[name, part] / cpu[like, part] if like in {key for key, _ in cpu} else None
    return row


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all forms with all models and print a table."""
    parser = argparse.ArgumentParser(description="What a message's form costs.")
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", default="wide,document")
    parser.add_argument("--forms", default="", help="beginnings of forms' names, separated by semicolons")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    wanted = tuple(options.forms.split(";"))
    names = [name for name in FORMS if name.startswith(wanted)]
    relax_collector()
    logging.disable()  # what is odd on purpose is no news
    rows = []
    for model in options.models.split(","):
        for row in measure(model, names, options.messages, options.rounds):
            rows.append(row)
            show(row, WIDTHS, head=len(rows) == 1)
    save(options.json, rows)


if __name__ == "__main__":
    main()
