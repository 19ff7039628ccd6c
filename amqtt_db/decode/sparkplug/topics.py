"""The topics of Sparkplug B: what kind of message it is, whose, and under which names its decoder remembers things."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import attrs

from amqtt_db.errors import DecodeError

_NAMESPACE: Final = "spBv1.0"
_NODES: Final = frozenset({"NBIRTH", "NDEATH", "NDATA", "NCMD"})
_DEVICES: Final = frozenset({"DBIRTH", "DDEATH", "DDATA", "DCMD"})
_REBIRTH: Final = "rebirth "
STATE: Final = "STATE"


@attrs.frozen
class SparkplugTopic:
    """What a topic says: the type of its messages, and where they come from.

    ``origin`` are the properties of its records, by the words of the specification.  ``node``, ``sequence``,
    ``devices``, ``device`` and ``rebirth`` are names for what is remembered: the edge node, its sequence numbers, its
    online devices, the device, and when the node's birth was last wanted.
    """

    type: str
    origin: Mapping[str, str]
    node: str = ""
    sequence: str = ""
    devices: str = ""
    device: str = ""
    rebirth: str = ""


@lru_cache(65536)
def read_topic(topic: str) -> SparkplugTopic:
    """Return what a topic says; levels before ``spBv1.0`` are part of where the edge node is.

    Raises DecodeError for a topic that Sparkplug B does not have.
    """
    levels = topic.split("/")
    if len(levels) == 2 and levels[0] == STATE:
        return SparkplugTopic(STATE, {"message_type": STATE, "host_id": levels[1]})
    start = levels.index(_NAMESPACE) if _NAMESPACE in levels else len(levels)
    match levels[start + 1 :]:
        case ["STATE", host]:
            return SparkplugTopic(STATE, {"message_type": STATE, "host_id": host})
        case [group, type_, node] if type_ in _NODES:
            return _make_place(levels[:start], group, type_, node)
        case [group, type_, node, device] if type_ in _DEVICES:
            return _make_place(levels[:start], group, type_, node, device)
    raise DecodeError("its topic is not one of Sparkplug B, such as spBv1.0/GROUP/DDATA/NODE/DEVICE")


def _make_place(before: list[str], group: str, type_: str, node: str, device: str | None = None) -> SparkplugTopic:
    path = "/".join([*before, group, node])
    origin = {"message_type": type_, "group_id": group, "edge_node_id": node}
    place = SparkplugTopic(type_, origin, f"node {path}", f"sequence {path}", f"devices {path}")
    place = attrs.evolve(place, rebirth=f"{_REBIRTH}{path}")
    if device is None:
        return place
    return attrs.evolve(place, origin={**origin, "device_id": device}, device=f"device {path}/{device}")


REMEMBERED: Final[Mapping[str, tuple[str, ...]]] = {
    "NBIRTH": ("node", "sequence"),
    "NDEATH": ("node", "devices"),
    "NDATA": ("node", "sequence", "rebirth"),
    "NCMD": ("node",),
    "DBIRTH": ("node", "sequence", "devices", "device", "rebirth"),
    "DDEATH": ("sequence", "devices", "rebirth"),
    "DDATA": ("node", "sequence", "device", "rebirth"),
    "DCMD": ("node", "device"),
    STATE: (),
}
"""Which of its names a type of message needs."""


def names_remembered(topic: str) -> tuple[str, ...]:
    """Return the names under which something is remembered for messages of a topic, none if it is not Sparkplug's."""
    try:
        place = read_topic(topic)
    except DecodeError:
        return ()
    return tuple(getattr(place, name) for name in REMEMBERED[place.type])


def find_rebirths(changes: Mapping[str, str]) -> dict[str, int]:
    """Return when births were wanted, in microseconds since 1970, by the topic of the command that asks for them.

    ``changes`` are what decoders remember from now on, by name in the database.
    """
    start = f"sparkplug:{_REBIRTH}"
    wanted = {name.removeprefix(start): text for name, text in changes.items() if name.startswith(start)}
    return {_command_topic(path): int(text) for path, text in wanted.items()}


def _command_topic(path: str) -> str:
    *before, group, node = path.split("/")
    return "/".join([*before, _NAMESPACE, group, "NCMD", node])
