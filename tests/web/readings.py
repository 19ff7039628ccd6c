"""A house full of devices, for the browser's tests and the screenshots in the docs."""

from __future__ import annotations

import math
import random
from typing import Any

from tests.workbench import Sent, Workbench

ROOMS = ("home/kitchen/climate", "home/bedroom/climate", "home/attic/climate")


def fill(bench: Workbench, count: int = 700) -> None:
    """Store some hours of readings, and a message that is not JSON."""
    dice = random.Random(5)
    bench.send(*(message for number in range(count) for message in _moment(number, count, dice)))
    bench.send(Sent("meters/main", b"{broken"))


def _moment(number: int, count: int, dice: random.Random) -> list[tuple[str, Any]]:
    turn = 2 * math.pi * number / count
    rooms = [
        (topic, {"temp": _climate(18.5 + 2 * at, turn, dice), "humidity": round(52 - 4 * at + 6 * math.sin(turn + at)),
                 "mode": "eco" if 0.2 < number / count < 0.55 else "comfort"})
        for at, topic in enumerate(ROOMS)
    ]  # fmt: skip
    meter = {
        "watts": round(280 + 160 * math.sin(3 * turn) + dice.gauss(0, 25), 1),
        "tariff": "day" if turn > 2 else "night",
    }
    door = {"open": dice.random() < 0.03, "battery": 97 - number // 60}
    return [*rooms, ("meters/main", meter), ("garage/door", door)]


def _climate(middle: float, turn: float, dice: random.Random) -> float:
    return round(middle + 2.2 * math.sin(turn - 1) + 0.3 * math.sin(9 * turn) + dice.gauss(0, 0.05), 2)
