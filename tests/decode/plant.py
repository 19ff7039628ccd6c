"""An edge node with three devices that works through its day: what it publishes, and what must be stored of it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, Final

import attrs

from amqtt_db.record import Record
from tests.decode.edge_node import START, EdgeNode, Message

OWN: Final = frozenset({
    "message_type", "group_id", "edge_node_id", "device_id", "time", "online", "missed", "bdSeq", "metric", "value",
})  # fmt: skip
"""The properties of a record that are no metrics of the plant."""

METRICS: Final[Mapping[str, Mapping[str, str]]] = {
    "": {"Up": "Boolean", "Load": "Float"},
    "press": {"Motor/Speed": "Int32", "Temp": "Float", "State": "String", "Total": "UInt64"},
    "oven": {"Temp": "Double", "Offset": "Int8", "Since": "DateTime", "Faults": "Int16Array"},
    "belt": {"Speed": "Int16", "Runs": "Boolean", "Batch": "Int64", "Raw": "Bytes"},
}
VALUES: Final[Mapping[str, Callable[[random.Random], Any]]] = {
    "Boolean": lambda rng: rng.random() < 0.5,
    "Float": lambda rng: rng.randrange(-4000, 4000) / 16,
    "Double": lambda rng: rng.gauss(0, 1000),
    "Int8": lambda rng: rng.randrange(-128, 128),
    "Int16": lambda rng: rng.randrange(-(2**15), 2**15),
    "Int32": lambda rng: rng.choice([-12, 2**31 - 1, -(2**31), rng.randrange(-1000, 1000)]),
    "Int64": lambda rng: rng.choice([-(2**63), 2**63 - 1, rng.randrange(-1000, 1000)]),
    "UInt64": lambda rng: rng.randrange(2**64),
    "String": lambda rng: rng.choice(["idle", "running", "", "fault – Störung"]),
    "DateTime": lambda rng: START + rng.randrange(-(10**9), 10**9),
    "Int16Array": lambda rng: [rng.randrange(-(2**15), 2**15) for _ in range(rng.randrange(4))],
    "Bytes": lambda rng: rng.randbytes(rng.randrange(5)),
}

Told = tuple[str, int, str, str]
"""The device ("" for the node), the time in milliseconds since 1970, the metric's name, and its value as text."""


@attrs.frozen
class Step:
    """A message, and what it tells; ``missed`` are the messages lost before it, None if it must be a dead letter."""

    message: Message
    told: tuple[Told, ...] = ()
    missed: int | None = 0


class Plant:
    """The plant; ``seed`` decides what happens."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self.node = EdgeNode(METRICS)
        self._lost = 0

    def steps(self, seconds: int) -> Iterator[Step]:
        """Yield what is published in so many seconds: a message each, and more when something happens."""
        yield from self._births()
        for _ in range(seconds):
            self.node.now += 1000
            chance = self._rng.random()
            if chance < 0.005:
                yield Step(self.node.death())
                self._lost = 0
                yield from self._births()
            elif chance < 0.01:
                yield from self._births()
            elif chance < 0.02:
                yield Step((f"spBv1.0/G/DDATA/E/{self._device()}", b"\xff\xff"), missed=None)
            elif chance < 0.03:
                self.node.data(self._device())
                self._lost += 1
            elif chance < 0.04:
                device = self._device()
                yield self._step(self.node.device_death(device))
                yield self._birth(device)
            else:
                yield self._data()

    def _births(self) -> Iterator[Step]:
        """The node is born, and then its devices; aliases may be others than before."""
        self.node.first_alias = self._rng.choice([0, 0, 7, 2**40])
        values = self._draw("", METRICS[""])
        self._lost = 0
        yield self._step(self.node.birth(bool, **values), "", values)
        yield from map(self._birth, [one for one in METRICS if one])

    def _birth(self, device: str) -> Step:
        values = self._draw(device, METRICS[device])
        return self._step(self.node.device_birth(device, bool, **values), device, values)

    def _data(self) -> Step:
        owner = self._rng.choice([*METRICS])
        names = self._rng.sample([*METRICS[owner]], self._rng.randrange(1, 3))
        values = self._draw(owner, names)
        return self._step(self.node.data(owner, bool, **values), owner, values)

    def _draw(self, owner: str, names: Iterable[str]) -> dict[str, Any]:
        kinds = METRICS[owner]
        return {name: None if self._rng.random() < 0.1 else VALUES[kinds[name]](self._rng) for name in names}

    def _device(self) -> str:
        return self._rng.choice([one for one in METRICS if one])

    def _step(self, message: Message, owner: str = "", values: Mapping[str, Any] | None = None) -> Step:
        missed, self._lost = self._lost, 0
        given = {name: _as_stored(METRICS[owner][name], value) for name, value in (values or {}).items()}
        told = ((owner, self.node.now, name, as_text(value)) for name, value in given.items() if value is not None)
        return Step(message, tuple(told), missed)


def _as_stored(kind: str, value: Any) -> Any:
    if kind != "DateTime" or value is None:
        return value
    return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=value)


def as_text(value: Any) -> str:
    """Return a value as text; a number that is whole has the text of an integer."""
    if isinstance(value, list):
        return str([as_text(item) for item in value])
    return str(int(value)) if isinstance(value, float) and value.is_integer() else repr(value)


def told_by(records: Iterable[Record]) -> Counter[Told]:
    """Return what stored records tell, whether one is a payload or a metric."""
    found: Counter[Told] = Counter()
    for record in records:
        values = {path: value for path, (_, value) in record.properties().items()}
        device, time = values.get("device_id", ""), record.time_us // 1000
        metrics = {name: value for name, value in values.items() if name not in OWN}
        if "metric" in values and "value" in values and values["metric"] != "bdSeq":
            metrics[values["metric"]] = values["value"]
        found.update((device, time, name, as_text(value)) for name, value in metrics.items())
    return found


def expected_of(steps: Iterable[Step]) -> Counter[Told]:
    """Return what must be stored of some steps."""
    return Counter(told for step in steps for told in step.told)
