"""A long history as it comes from a house: several topics, nested and drifting payloads, nulls, late data."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from tests.workbench import Sent

START = 1_700_000_000


def messages(count: int, seed: int = 7) -> Iterator[Sent]:
    """``count`` messages, the same ones for the same seed."""
    rng = random.Random(seed)
    makers = (_climate, _meter, _plug, _door)
    for number in range(count):
        topic, payload = rng.choice(makers)(rng, number)
        yield Sent(topic, payload, qos=rng.choice((0, 1, 2)), retain=rng.random() < 0.05)


def _time(rng: random.Random, number: int) -> int:
    """Usually in order, sometimes hours late."""
    return START + number - (rng.randrange(3600, 40_000) if rng.random() < 0.02 else 0)


def _climate(rng: random.Random, number: int) -> tuple[str, dict[str, Any]]:
    temperature: Any = round(rng.gauss(21, 3), 2) if rng.random() < 0.9 else rng.choice([21, "n/a", None, True])
    payload = {"at": _time(rng, number), "temp": temperature, "rh": rng.randrange(20, 80)}
    return f"home/{rng.choice(['kitchen', 'attic', 'bath'])}/climate", payload


def _meter(rng: random.Random, number: int) -> tuple[str, dict[str, Any]]:
    payload: dict[str, Any] = {"at": _time(rng, number), "energy": {"total": rng.random() * 1e6, "today": rng.random()}}
    if rng.random() < 0.3:
        payload["energy"]["phases"] = [rng.randrange(16) for _ in range(3)]
    if number > 5000:
        payload["tariff"] = rng.choice(["day", "night"])
    return "meters/main", payload


def _plug(rng: random.Random, number: int) -> tuple[str, dict[str, Any]]:
    payload = {"at": _time(rng, number), "on": rng.random() < 0.5, f"counter{rng.randrange(5)}": rng.randrange(2**60)}
    return f"plugs/{rng.randrange(20)}", payload


def _door(rng: random.Random, number: int) -> tuple[str, dict[str, Any]]:
    return "door", {"at": _time(rng, number), "open": rng.random() < 0.5, "by": rng.choice(["Ada", None, "?\x00", ""])}
