"""An edge node of Sparkplug B, encoded by the Python code of Eclipse Tahu, which knows nothing of our decoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
from sparkplub_b_packets.core import array_packer, sparkplug_b
from sparkplub_b_packets.core.sparkplug_b_pb2 import DataType, Payload

TYPES: Final[Mapping[str, int]] = dict(DataType.items())
START: Final = 1_700_000_000_000
"""When the first payload is sent, in milliseconds since 1970."""

Message = tuple[str, bytes]
"""Topic and payload."""

Change = Callable[[Any], object]
"""What changes a payload before it is sent."""


def add_metric(container: Any, name: str | None, alias: int | None, kind: str, value: Any, time: int = START) -> Any:
    """Add a metric to a payload or to a template, and return it."""
    if not kind.endswith("Array"):
        return sparkplug_b.addMetric(container, name, alias, TYPES[kind], value, time)
    metric = sparkplug_b.addMetric(container, name, alias, TYPES["Bytes"], _pack(kind, value), time)
    metric.datatype = TYPES[kind]
    return metric


def _pack(kind: str, items: Any) -> bytes:
    """Pack an array; Tahu's Python packs truths and texts otherwise than the specification's examples."""
    if kind == "BooleanArray":
        bits = "".join(str(int(item)) for item in items)
        octets = [bits[start : start + 8].ljust(8, "0") for start in range(0, len(bits), 8)]
        return len(items).to_bytes(4, "little") + bytes(int(octet, 2) for octet in octets)
    if kind == "StringArray":
        return b"".join(item.encode() + b"\0" for item in items)
    pack = getattr(array_packer, f"convert_to_packed_{kind.removesuffix('Array').lower()}_array")
    packed: bytes = pack(items)
    return packed


@attrs.define
class EdgeNode:
    """A node with devices; ``metrics`` maps each owner ("" is the node) to its metrics' types by name.

    Aliases are numbered from ``first_alias`` on in the order of the metrics.  ``now`` is in milliseconds since 1970.
    """

    metrics: Mapping[str, Mapping[str, str]]
    group: str = "G"
    name: str = "E"
    first_alias: int = 0
    now: int = START
    session: int = 0
    sequence: int = 0

    def birth(self, change: Change = bool, **values: Any) -> Message:
        """Begin a session: NBIRTH, with the values of metrics, or None for a null one."""
        self.sequence = 0
        payload = self._payload("", values, is_birth=True)
        change(payload)
        add_metric(payload, "bdSeq", None, "Int64", self.session, self.now)
        return self._topic("NBIRTH"), payload.SerializeToString()

    def device_birth(self, device: str, change: Change = bool, **values: Any) -> Message:
        """DBIRTH."""
        payload = self._payload(device, values, is_birth=True)
        change(payload)
        return self._topic("DBIRTH", device), payload.SerializeToString()

    def data(self, device: str = "", change: Change = bool, **values: Any) -> Message:
        """NDATA or DDATA: aliases without names and types."""
        payload = self._payload(device, values)
        change(payload)
        return self._topic("DDATA" if device else "NDATA", device), payload.SerializeToString()

    def device_death(self, device: str) -> Message:
        """DDEATH."""
        return self._topic("DDEATH", device), self._payload("", {}).SerializeToString()

    def death(self) -> Message:
        """NDEATH, as the broker publishes it; a new session follows."""
        payload = Payload(timestamp=START)
        add_metric(payload, "bdSeq", None, "Int64", self.session)
        self.session += 1
        return self._topic("NDEATH"), payload.SerializeToString()

    def _topic(self, kind: str, device: str = "") -> str:
        return "/".join(["spBv1.0", self.group, kind, self.name, *([device] if device else [])])

    def _payload(self, owner: str, values: Mapping[str, Any], *, is_birth: bool = False) -> Any:
        payload = Payload(timestamp=self.now, seq=self.sequence)
        self.sequence = (self.sequence + 1) % 256
        aliases = self._aliases(owner)
        for name, value in values.items():
            kind, alias = TYPES[self.metrics[owner][name]], aliases[name]
            if value is None:
                metric = payload.metrics.add(name=name, alias=alias, timestamp=self.now, datatype=kind, is_null=True)
            else:
                metric = add_metric(payload, name, alias, self.metrics[owner][name], value, self.now)
            if not is_birth:
                metric.ClearField("name")
                metric.ClearField("datatype")
        return payload

    def _aliases(self, owner: str) -> Mapping[str, int]:
        before = sum(len(self.metrics[other]) for other in [*self.metrics][: [*self.metrics].index(owner)])
        return {name: self.first_alias + before + index for index, name in enumerate(self.metrics[owner])}
