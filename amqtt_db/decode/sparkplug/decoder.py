"""The decoder of Sparkplug B, which remembers births; import this module only when it is needed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final

import orjson
from google.protobuf.message import DecodeError as ParseError

from amqtt_db.decode.checks import as_records, shorten
from amqtt_db.decode.inflate import GZIP, ZLIB, inflate
from amqtt_db.decode.json_text import json_format
from amqtt_db.decode.remembering import Arrival, Memory
from amqtt_db.decode.sparkplug.births import NO_BIRTH, Birth, Births, describe_metrics, describe_templates, dump_birth
from amqtt_db.decode.sparkplug.layout import make_payload_class
from amqtt_db.decode.sparkplug.metrics import Scope, read_metric_values
from amqtt_db.decode.sparkplug.records import Head, records_of_metrics, records_of_payload
from amqtt_db.decode.sparkplug.topics import STATE, SparkplugTopic, names_remembered, read_topic
from amqtt_db.decode.sparkplug.values import MAX_WRITTEN, read_milliseconds
from amqtt_db.errors import DecodeError
from amqtt_db.record import EPOCH

logger = logging.getLogger(__name__)

_RECORDS_BY: Final = {"payload": records_of_payload, "metric": records_of_metrics}
_ONLINE: Final = {"NBIRTH": True, "DBIRTH": True, "DDEATH": False}
_COUNTED: Final = frozenset({"NDATA", "DBIRTH", "DDATA", "DDEATH"})
_COMPRESSED: Final = "SPBV1.0_COMPRESSED"
_SEQUENCE_LENGTH: Final = 256  # of sequence numbers, after which they begin again
_LATE: Final = 128  # a number that is further ahead is from before
_TELL_AGAIN: Final = 60_000_000  # microseconds
_ASK_AGAIN: Final = 60_000_000  # microseconds, if a birth has not come
_SESSION: Final = "bdSeq"
_read_state_json: Final = json_format()
_parse: Final = make_payload_class().FromString


def make_sparkplug(rows: str) -> SparkplugDecoder:
    """Return a decoder that makes a record of each ``payload`` or ``metric``.  Raises ValueError for other ``rows``."""
    if rows not in _RECORDS_BY:
        raise ValueError(f"rows: expected 'payload' or 'metric', got {rows!r}")
    return SparkplugDecoder(rows)


class SparkplugDecoder:
    """Decodes Sparkplug B; ``rows`` says what becomes a record."""

    def __init__(self, rows: str) -> None:
        self._make_records = _RECORDS_BY[rows]
        self._births = Births()

    def remembers(self, topic: str) -> Sequence[str]:
        """Return the names for the edge node and the device of a topic, and for the node's sequence and devices."""
        return names_remembered(topic)

    def __call__(self, arrival: Arrival, memory: Memory) -> Any:
        """Return the records of a message.

        For a message whose metrics cannot be read, a DecodeError is returned, not raised: its sequence number counts
        nevertheless, and a birth replaces the one before it.  Raises DecodeError for what is not Sparkplug B at all.
        """
        place = read_topic(arrival.topic)
        if place.type == STATE:
            return _read_state(_origin_of(place, arrival), arrival.payload)
        payload = _read_payload(arrival.payload)
        if len(arrival.topic) * len(payload.metrics) > MAX_WRITTEN:
            raise DecodeError("it has too many metrics for the length of its topic")
        missed = _follow_sequence(place, arrival, payload, memory)
        if missed:
            _want_birth(place, arrival, memory)
        try:
            return as_records(self._read(place, arrival, payload, memory, {"missed": missed} if missed else {}))
        except DecodeError as error:
            return error
        except Exception as error:
            return DecodeError(f"not Sparkplug B: {shorten(error)}")

    def _read(
        self, place: SparkplugTopic, arrival: Arrival, payload: Any, memory: Memory, status: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        node = self._births.load(place.node, memory.get(place.node))
        if place.type in {"NBIRTH", "DBIRTH"}:
            _remember_birth(place, arrival, payload, memory, node)
            node = self._births.load(place.node, memory.get(place.node))
        birth = self._births.load(place.device, memory.get(place.device)) if place.device else node
        went = _follow_devices(place, payload, memory, node)
        if place.type in _ONLINE or went is not None:
            status = {"online": _ONLINE.get(place.type, False), **status}
        head = Head(_origin_of(place, arrival), {**status, **_rest_of(payload)}, _payload_time(payload))
        if place.type == "NDEATH":  # its times are those of the connection's start
            head = Head(head.origin, head.status, at=EPOCH + timedelta(microseconds=arrival.time_us))
        scope = _scope(place, birth, node, arrival.time_us)
        if scope.metrics is NO_BIRTH.metrics and place.type in {"NDATA", "DDATA"}:
            _want_birth(place, arrival, memory)
        records = self._make_records(head, read_metric_values(payload.metrics, scope))
        return [*records, *({**head.begin(None), "device_id": device, "online": False} for device in went or ())]


def _origin_of(place: SparkplugTopic, arrival: Arrival) -> Mapping[str, str]:
    """Return what the topic says, without what its named levels say."""
    levels = arrival.levels
    return {name: value for name, value in place.origin.items() if name not in levels} if levels else place.origin


def _read_state(origin: Mapping[str, str], payload: bytes) -> dict[str, Any]:
    """Return the state of a host application: JSON, or a word, as before version 3.0."""
    if payload in {b"ONLINE", b"OFFLINE"}:
        return {**origin, "online": payload == b"ONLINE"}
    state = _read_state_json(payload)
    if not isinstance(state, dict) or type(state.get("online")) is not bool:
        raise DecodeError("not a state of Sparkplug B: it is not an object that says whether the host is online")
    milliseconds = state.pop("timestamp", None)
    if isinstance(milliseconds, int) and 0 <= milliseconds < 2**63:
        state["time"] = read_milliseconds(milliseconds)
    return {**state, **origin}


def _read_payload(content: bytes) -> Any:
    payload = _parse_payload(content)
    if payload.uuid != _COMPRESSED:
        return payload
    algorithms = [metric.string_value for metric in payload.metrics if metric.name == "algorithm"]
    name, format_ = ("GZIP", GZIP) if algorithms == ["GZIP"] else ("DEFLATE", ZLIB)
    inner = _parse_payload(inflate(payload.body, name, format_))
    if payload.HasField("seq") and not inner.HasField("seq"):
        inner.seq = payload.seq
    return inner


def _parse_payload(content: bytes) -> Any:
    if not content:
        raise DecodeError("empty payload")
    try:
        payload = _parse(content)
    except ParseError:
        raise DecodeError("not Sparkplug B: it cannot be parsed") from None
    if not payload.ListFields():
        raise DecodeError("not Sparkplug B: it has none of its fields")
    return payload


def _payload_time(payload: Any) -> int | None:
    return payload.timestamp if payload.HasField("timestamp") else None


def _rest_of(payload: Any) -> dict[str, Any]:
    """Return what else a payload may have besides metrics."""
    return {name: getattr(payload, name) for name in ("uuid", "body") if payload.HasField(name)}


def _follow_sequence(place: SparkplugTopic, arrival: Arrival, payload: Any, memory: Memory) -> int:
    """Remember the sequence number of a message; return how many before it are missing.

    That is unknown for a message that arrived before the last one, because it is stored again.
    """
    if place.type not in _COUNTED and place.type != "NBIRTH":
        return 0
    last = memory.get(place.sequence)
    number = payload.seq % _SEQUENCE_LENGTH if payload.HasField("seq") else None
    missed = 0
    if last and number is not None and place.type != "NBIRTH":
        known, time_us = map(int, last.split())
        if arrival.time_us >= time_us:
            missed = (number - known - 1) % _SEQUENCE_LENGTH
            if missed >= _LATE:
                return 0
    if number is not None:
        memory[place.sequence] = f"{number} {arrival.time_us}"
    if missed:
        _tell_gap(place.node, arrival.time_us // _TELL_AGAIN)
    return missed


def _want_birth(place: SparkplugTopic, arrival: Arrival, memory: Memory) -> None:
    """Remember that the edge node's birth is wanted: a bridge may ask for it."""
    last = memory.get(place.rebirth)
    if last is None or arrival.time_us - int(last) >= _ASK_AGAIN:
        memory[place.rebirth] = str(arrival.time_us)


@lru_cache(1024)  # so that the log has each edge node once a minute
def _tell_gap(node: str, minute: int) -> None:
    logger.warning("Sparkplug: messages of the edge %s are missing; `missed` says how many before each message", node)


def _remember_birth(place: SparkplugTopic, arrival: Arrival, payload: Any, memory: Memory, node: Birth) -> None:
    """Remember what a birth says; if it cannot be read, nothing is known any more."""
    name = place.device or place.node
    node_us = node.time_us if place.device and node is not NO_BIRTH else None
    old, metrics, templates, session = memory.get(name), [], {}, None
    try:
        session = _session_of(payload)
        templates = describe_templates(payload.metrics)
        metrics = describe_metrics(payload.metrics)
    finally:
        memory[name] = dump_birth(old, arrival.time_us, metrics, node_us=node_us, session=session, templates=templates)


def _session_of(payload: Any) -> int | None:
    """Return the number that an edge node's birth and its death have in common."""
    for metric in payload.metrics:
        field = metric.WhichOneof("value")
        if metric.name == _SESSION and field in {"int_value", "long_value"}:
            return int(getattr(metric, field))
    return None


def _follow_devices(place: SparkplugTopic, payload: Any, memory: Memory, node: Birth) -> list[str] | None:
    """Remember which devices of a node are online; return those that its death takes with it.

    Return None for any other message, and for a death that belongs to an earlier session.
    """
    if place.type not in {"DBIRTH", "DDEATH", "NDEATH"}:
        return None
    old = orjson.loads(memory.get(place.devices) or "[]")
    if place.type == "NDEATH":
        if None not in (session := (_session_of(payload), node.session)) and session[0] != session[1]:
            return None
        if old:
            memory[place.devices] = "[]"
        return list(old)
    device = place.origin["device_id"]
    new = sorted({*old, device}) if place.type == "DBIRTH" else [one for one in old if one != device]
    if new != old:
        memory[place.devices] = orjson.dumps(new).decode()
    return None


def _scope(place: SparkplugTopic, birth: Birth, node: Birth, time_us: int) -> Scope:
    """Return what is known of the metrics of a message that arrived at a time."""
    births = "DBIRTH" if place.device else "NBIRTH"
    is_valid = not place.device or birth.node_us == (None if node is NO_BIRTH else node.time_us)
    metrics = birth.metrics_at(time_us) if is_valid else NO_BIRTH.metrics
    return Scope(metrics, {**node.templates, **birth.templates} if birth.templates else node.templates, births)
