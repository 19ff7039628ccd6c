"""Sparkplug B, encoded by Tahu's own code: names, types and times of every metric, births, deaths and gaps."""

from __future__ import annotations

import logging
import weakref
import zlib
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from functools import partial
from types import GeneratorType
from typing import Any, Final
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sparkplub_b_packets.core.sparkplug_b_pb2 import Payload

from amqtt_db.decode import Arrival, RememberingDecoder, resolve
from amqtt_db.decode.sparkplug import births
from amqtt_db.decode.sparkplug.layout import make_payload_class
from amqtt_db.decode.sparkplug.topics import find_rebirths
from amqtt_db.errors import DecodeError
from tests.decode.edge_node import START, TYPES, EdgeNode, Message, add_metric
from tests.decode.vectors import check_any, mistakes
from tests.values import same

NODE: Final = {"": {"Up": "Boolean"}, "D": {"Temp": "Float", "Count": "Int32"}}


class Host:
    """Decodes messages one after the other, and remembers; each arrives a second after the one before."""

    def __init__(self, rows: str = "payload") -> None:
        decoder = resolve({"sparkplug": {"rows": rows}}, where="decode")
        assert isinstance(decoder, RememberingDecoder)
        self._decoder = decoder
        self.memory: dict[str, str] = {}
        self.time_us = START * 1000

    def read(self, message: Message, levels: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Return the records of a message.  Raise the reason if it is refused, whose sequence number counts."""
        topic, payload = message
        self.time_us += 1_000_000
        arrival = Arrival(topic, payload, dict.fromkeys(levels, "x"), self.time_us)
        found = self._decoder.decode(arrival, self._decoder.names(topic), self.memory)
        self.memory.update(found.changes)
        if isinstance(found.data, DecodeError):
            raise found.data
        return list(found.data) if isinstance(found.data, GeneratorType) else [found.data]

    def again(self, message: Message, time_us: int) -> dict[str, Any]:
        """Return the record of a message that is stored later than it arrived; nothing is remembered."""
        arrival = Arrival(*message, {}, time_us)
        found = self._decoder.decode(arrival, self._decoder.names(message[0]), self.memory)
        if isinstance(found.data, DecodeError):
            raise found.data
        assert isinstance(found.data, dict)
        return found.data

    def refusal(self, message: Message) -> str:
        """Return why a message is refused."""
        with pytest.raises(DecodeError) as error:
            self.read(message)
        return str(error.value)

    def metrics(self, message: Message) -> dict[str, Any]:
        """Return the only record of a message, without what is not a metric."""
        (record,) = self.read(message)
        return {name: value for name, value in record.items() if name not in OWN}


OWN: Final = {"message_type", "group_id", "edge_node_id", "device_id", "time", "online", "missed", "bdSeq"}


def at(milliseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=milliseconds)


def born(**metrics: str) -> tuple[Host, EdgeNode]:
    """Return a host and a node with metrics of these types, whose birth the host has read."""
    host, node = Host(), EdgeNode({"": metrics})
    host.read(node.birth(bool, **dict.fromkeys(metrics)))
    return host, node


def plant() -> tuple[Host, EdgeNode]:
    """Return a host and a node with the device D, whose births the host has read."""
    host, node = Host(), EdgeNode(NODE)
    host.read(node.birth(Up=True))
    host.read(node.device_birth("D", Temp=1.5, Count=1))
    return host, node


def test_the_layout_is_tahus() -> None:
    """Field by field, except for extensions."""
    pairs, seen = [(make_payload_class().DESCRIPTOR, Payload.DESCRIPTOR)], set()
    while pairs:
        ours, theirs = pairs.pop()
        named = {field.number: field for field in theirs.fields if field.name != "extension_value"}
        assert [field.number for field in ours.fields] == sorted(named)
        for field in ours.fields:
            other = named[field.number]
            assert (field.name, field.type, field.is_repeated) == (other.name, other.type, other.is_repeated)
            assert bool(field.containing_oneof) == bool(other.containing_oneof)
            if field.message_type and field.message_type.name not in seen:
                seen.add(field.message_type.name)
                pairs.append((field.message_type, other.message_type))
    assert len(seen) == 10


def test_a_records_origin_and_time() -> None:
    """They come from the topic and from the payload."""
    host, node = Host(), EdgeNode(NODE)
    origin = {"group_id": "G", "edge_node_id": "E"}
    assert host.read(node.birth(Up=True)) == [
        {"message_type": "NBIRTH", **origin, "time": at(START), "online": True, "Up": True, "bdSeq": 0}
    ]
    node.now += 5
    device = {**origin, "device_id": "D", "time": at(START + 5)}
    assert host.read(node.device_birth("D", Temp=0.5, Count=None)) == [
        {"message_type": "DBIRTH", **device, "online": True, "Temp": 0.5, "Count": None}
    ]
    assert host.read(node.data("D", Count=-12)) == [{"message_type": "DDATA", **device, "Count": -12}]
    assert host.read(node.device_death("D")) == [{"message_type": "DDEATH", **device, "online": False}]


def test_named_levels_take_the_place_of_properties() -> None:
    """What the route's filter names is not there twice."""
    host, node = plant()
    (record,) = host.read(node.data("D", Count=1), ["group_id", "device_id"])
    assert [*record] == ["message_type", "edge_node_id", "time", "Count"]


INTEGERS: Final = {f"{sign}Int{bits}": (sign, bits) for sign in ("", "U") for bits in (8, 16, 32, 64)}


def _integers(kind: str) -> st.SearchStrategy[int]:
    sign, bits = INTEGERS[kind]
    return st.integers(0, 2**bits - 1) if sign else st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


_MILLISECONDS: Final = st.integers(0, 253402300799999)
VALUES: Final[dict[str, st.SearchStrategy[Any]]] = {
    **{kind: _integers(kind) for kind in INTEGERS},
    "Float": st.floats(width=32, allow_nan=False),
    "Double": st.floats(allow_nan=False),
    "Boolean": st.booleans(),
    "String": st.text(st.characters(codec="utf-8")),
    "Text": st.text(st.characters(codec="utf-8")),
    "UUID": st.uuids().map(str),
    "DateTime": _MILLISECONDS,
    "Bytes": st.binary(),
    "File": st.binary(),
    **{f"{kind}Array": st.lists(_integers(kind)) for kind in INTEGERS},
    "FloatArray": st.lists(st.floats(width=32, allow_nan=False)),
    "DoubleArray": st.lists(st.floats(allow_nan=False)),
    "BooleanArray": st.lists(st.booleans()),
    "StringArray": st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"))),
    "DateTimeArray": st.lists(_MILLISECONDS),
}


def as_stored(kind: str, value: Any) -> Any:
    """Return a value as the decoder should return it."""
    if kind == "DateTimeArray":
        return [*map(at, value)]
    return UUID(value) if kind == "UUID" else at(value) if kind == "DateTime" else value


@pytest.mark.parametrize("kind", VALUES)
@given(data=st.data())
def test_every_type_from_its_birth(kind: str, data: st.DataObject) -> None:
    """A value by alias, without a type, is what was sent; so is the one in the birth."""
    values = data.draw(st.lists(VALUES[kind], min_size=2, max_size=4))
    host, node = Host(), EdgeNode({"": {"m": kind}})
    found = [host.metrics(node.birth(m=values[0])), *(host.metrics(node.data(m=value)) for value in values[1:])]
    assert same(found, [{"m": as_stored(kind, value)} for value in values])


@pytest.mark.parametrize(
    ("kind", "raw", "value"),
    [
        ("Int32", 4294967284, -12),
        ("Int8", 0xF4, -12),
        ("Int8", 0xFFFFFFF4, -12),
        ("Int16", 0xFFF4, -12),
        ("Int8", 127, 127),
    ],
)
def test_negative_integers_of_every_encoder(kind: str, raw: int, value: int) -> None:
    """Some extend the sign to the whole field, some do not."""
    host, node = born(m=kind)
    assert host.metrics(node.data(m=0, change=lambda payload: _set(payload, int_value=raw))) == {"m": value}


def _set(payload: Any, **fields: Any) -> None:
    for name, value in fields.items():
        setattr(payload.metrics[0], name, value)


def test_a_short_integer_in_the_long_field() -> None:
    """As Java's encoder has UInt32."""
    host, node = born(m="UInt32", n="Int16")
    assert host.metrics(node.data(m=0, change=lambda one: _set(one, long_value=2**32 - 1))) == {"m": 2**32 - 1}
    assert host.metrics(node.data(n=0, change=lambda one: _set(one, long_value=2**64 - 12))) == {"n": -12}


@pytest.mark.parametrize(
    ("kind", "field", "raw", "reason"),
    [
        ("Int8", "int_value", 300, "the metric m: an integer does not fit 8 bits"),
        ("UInt16", "int_value", 65536, "the metric m: an integer does not fit 16 bits without a sign"),
        ("Int64", "int_value", 1, "the metric m has no value of its type, but a int_value"),
        ("Float", "string_value", "1", "the metric m has no value of its type, but a string_value"),
        ("DateTime", "long_value", 2**62, "the metric m: a time is beyond the year 9999"),
        ("Int16Array", "bytes_value", b"abc", "the metric m: an array of 3 bytes is not one of items of 2 bytes"),
        ("BooleanArray", "bytes_value", b"\xff\0\0\0\0", "the metric m: an array of truths does not have the length"),
        ("StringArray", "bytes_value", b"abc", "the metric m: an array of texts does not end with a null byte"),
        ("StringArray", "bytes_value", b"\xff\0", "the metric m: an array of texts is not UTF-8"),
    ],
)
def test_a_value_that_its_type_does_not_have(kind: str, field: str, raw: Any, reason: str) -> None:
    """The dead letter's reason names the metric."""
    host, node = Host(), EdgeNode({"": {"m": kind}})
    host.read(node.birth(m=None))

    def change(payload: Any) -> None:
        payload.metrics[0].ClearField("is_null")
        _set(payload, **{field: raw})

    assert host.refusal(node.data(m=None, change=change)).startswith(reason)


def test_arrays_as_the_specification_writes_them() -> None:
    """Its examples of chapter 6.4.16."""
    examples = {
        "Int8Array": (b"\xef\x7b", [-17, 123]),
        "Int16Array": (bytes.fromhex("d08a307a"), [-30000, 31280]),
        "Int32Array": (bytes.fromhex("ffffffff 40 b4 c4 12".replace(" ", "")), [-1, 314881088]),
        "UInt8Array": (b"\x17\xfa", [23, 250]),
        "BooleanArray": (bytes.fromhex("0c00000034d0"), [bool(int(bit)) for bit in "001101001101"]),
        "StringArray": (b"ABC\0hello\0", ["ABC", "hello"]),
        "DateTimeArray": (bytes.fromhex("c7d0907524010000"), [at(1256102875335)]),
    }
    host, node = born(**dict.fromkeys(examples, "Bytes"))
    for kind, (packed, expected) in examples.items():
        message = node.data("", partial(_set, datatype=TYPES[kind]), **{kind: packed})
        assert host.metrics(message) == {kind: expected}


def test_a_null_metric() -> None:
    """It is there without a value."""
    host, node = born(m="Int8")
    assert host.metrics(node.data(m=None)) == {"m": None}


def test_each_time_has_its_record() -> None:
    """Metrics of one time share a record; one that occurs again has another; historical ones are apart."""
    host, node = born(a="Int8", b="Int8")

    def change(payload: Any) -> None:
        for offset, historical in ((-10, True), (-10, False), (0, False)):
            metric = add_metric(payload, None, 0, "Int8", 7, START + offset)
            metric.is_historical = historical

    records = host.read(node.data(a=1, b=2, change=change))
    found = [{**record, "time": record["time"] - at(START)} for record in records]
    now, before = timedelta(0), timedelta(milliseconds=-10)
    assert [{name: one[name] for name in one if name in {"time", "historical", "a", "b"}} for one in found] == [
        {"time": now, "a": 1, "b": 2},
        {"time": before, "historical": True, "a": 7},
        {"time": before, "a": 7},
        {"time": now, "a": 7},
    ]


def test_a_metric_without_a_time_has_the_payloads() -> None:
    """If that has none either, the record has the time of its arrival."""
    host, node = born(m="Int8")
    (record,) = host.read(node.data(m=1, change=lambda one: one.metrics[0].ClearField("timestamp")))
    assert record["time"] == at(START)

    def clear(payload: Any) -> None:
        payload.ClearField("timestamp")
        payload.metrics[0].ClearField("timestamp")

    (record,) = host.read(node.data(m=1, change=clear))
    assert "time" not in record


def test_an_alias_means_what_the_last_birth_says() -> None:
    """Also if that gives it another name and type; a device's are its own."""
    host, node = plant()
    assert host.metrics(node.data("D", Count=-12)) == {"Count": -12}
    node.metrics = {"": {"Up": "Boolean"}, "D": {"Count": "UInt8", "Speed": "Double"}}
    host.read(node.birth(Up=True))
    host.read(node.device_birth("D", Count=200, Speed=1.5))
    assert host.metrics(node.data("D", Speed=2.5, Count=201)) == {"Speed": 2.5, "Count": 201}


def test_data_before_any_birth_is_refused() -> None:
    """The reason says what is missing and what to do; names with types need no birth."""
    host, node = Host(), EdgeNode(NODE)
    reason = "says what alias {} means; try `amqtt-db dead replay` after the next one"
    assert host.refusal(node.data(Up=True)) == f"no NBIRTH {reason.format(0)}"
    assert host.refusal(node.data("D", Count=1)) == f"no DBIRTH {reason.format(2)}"
    named = node.data("D", Count=-12, change=lambda one: _set(one, name="Count", datatype=TYPES["Int32"]))
    assert host.metrics(named) == {"Count": -12}
    assert host.metrics(node.data("D", Temp=1.5, change=lambda one: _set(one, name="Temp"))) == {"Temp": 1.5}
    untyped = node.data("D", Count=-12, change=lambda one: _set(one, name="Count"))
    assert host.refusal(untyped) == "the type of the metric Count is unknown"


def test_a_nodes_birth_ends_what_its_devices_births_said() -> None:
    """Until the device's next one."""
    host, node = plant()
    host.read(node.birth(Up=False))
    assert host.refusal(node.data("D", Count=1)).startswith("no DBIRTH says what alias 2 means")
    host.read(node.device_birth("D", Count=1))
    assert host.metrics(node.data("D", Count=2)) == {"Count": 2}


def test_a_device_may_be_born_before_its_node_is_heard_of() -> None:
    """The host came later than the node's birth."""
    host, node = Host(), EdgeNode(NODE)
    host.read(node.device_birth("D", Count=1))
    assert host.metrics(node.data("D", Count=-2)) == {"Count": -2}


def test_a_birth_that_cannot_be_read_tells_nothing() -> None:
    """What the birth before it said no longer counts, for it may be wrong."""
    host, node = plant()
    broken = node.device_birth("D", Temp=1.5, change=lambda one: one.metrics[0].ClearField("name"))
    assert host.refusal(broken) == "a metric of a birth has no name"
    assert host.refusal(node.data("D", Count=1)).startswith("no DBIRTH")


def test_a_birth_with_a_wrong_value_tells_its_types() -> None:
    """Only the birth itself is refused."""
    host, node = plant()
    wrong = node.device_birth("D", Count=1, change=lambda one: _set(one, string_value="x"))
    assert host.refusal(wrong) == "the metric Count has no value of its type, but a string_value"
    assert host.metrics(node.data("D", Count=-3)) == {"Count": -3}


def test_a_message_from_before_the_birth_is_read_by_it() -> None:
    """Unless some birth since then has given the alias another meaning."""
    host, node = Host(), EdgeNode(NODE)
    early, before = node.data("D", Count=-5), host.time_us
    host.read(node.birth(Up=True))
    host.read(node.device_birth("D", Temp=1.5, Count=1))
    assert host.again(early, before)["Count"] == -5
    host.read(node.birth(Up=True))
    host.read(node.device_birth("D", Temp=1.5, Count=1))
    assert host.again(early, before)["Count"] == -5
    for metrics in ({"Temp": "Float", "Speed": "Int32"}, NODE["D"]):
        node.metrics = {**NODE, "D": metrics}
        host.read(node.device_birth("D", bool, **dict.fromkeys(metrics)))
    with pytest.raises(DecodeError, match="no DBIRTH says what alias 2 means"):
        host.again(early, before)
    assert host.again(node.data("D", Temp=2.5), before)["Temp"] == 2.5


def test_ever_new_aliases_are_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """If too many have changed, no older message is read by the birth."""
    monkeypatch.setattr(births, "MOST_CHANGED", 5)
    host, node = Host(), EdgeNode(NODE)
    before = host.time_us
    for first in range(0, 40, 4):
        node.first_alias = first
        host.read(node.device_birth("D", Temp=1.5, Count=1))
    assert len(host.memory["sparkplug:device G/E/D"]) < 150
    with pytest.raises(DecodeError, match="no DBIRTH says"):
        host.again(node.data("D", Temp=2.5), before)
    assert host.metrics(node.data("D", Temp=2.5)) == {"Temp": 2.5}


def test_a_birth_is_forgotten_with_the_next_one() -> None:
    """Only the last one of each node and device is kept ready for use."""
    ready = births.Births()
    first = weakref.ref(ready.load("node G/E", births.dump_birth(None, 1, [])))
    assert first() is not None
    assert ready.load("node G/E", births.dump_birth(None, 2, [])).time_us == 2
    assert first() is None


def test_property_sets_and_metadata_stand_beside_the_metrics() -> None:
    """By the metric's name; sets may contain sets."""
    host, node = born(m="Float")

    def change(payload: Any) -> None:
        metric = payload.metrics[0]
        properties = metric.properties
        properties.keys.extend(["unit", "low", "gone", "inner", "list"])
        properties.values.add(type=TYPES["String"], string_value="rpm")
        properties.values.add(type=TYPES["Int32"], int_value=4294967284)
        properties.values.add(type=TYPES["Int32"], is_null=True)
        inner = properties.values.add(type=20).propertyset_value
        several = properties.values.add(type=21).propertysets_value.propertyset
        for one in (inner, several.add()):
            one.keys.append("q")
            one.values.add(type=TYPES["Boolean"], boolean_value=True)
        metric.metadata.content_type = "text/plain"
        metric.metadata.size = 3

    expected = {"unit": "rpm", "low": -12, "gone": None, "inner": {"q": True}, "list": [{"q": True}]}
    metadata = {"content_type": "text/plain", "size": 3}
    message = node.data(m=1.5, change=change)
    assert host.metrics(message) == {"m": 1.5, "properties": {"m": expected}, "metadata": {"m": metadata}}
    by_metric = Host("metric")
    by_metric.memory = host.memory
    (record,) = by_metric.read(message)
    assert (record["metric"], record["value"]) == ("m", 1.5)
    assert (record["properties"], record["metadata"]) == (expected, metadata)


def test_a_property_set_that_does_not_match_is_refused() -> None:
    """Each key needs its value, and each value its type."""
    host, node = born(m="Float")
    alone = node.data(m=1.5, change=lambda one: one.metrics[0].properties.keys.append("unit"))
    assert host.refusal(alone) == "the metric m has 1 names for 0 properties"

    def change(payload: Any) -> None:
        payload.metrics[0].properties.keys.append("low")
        payload.metrics[0].properties.values.add(int_value=1)

    assert host.refusal(node.data(m=1.5, change=change)) == "the type of the property m.low is unknown"


def _with_data_set(payload: Any, rows: Sequence[Sequence[Any]], columns: Sequence[str] = ("id", "note")) -> None:
    data_set = payload.metrics[0].dataset_value
    data_set.num_of_columns = len(columns)
    data_set.columns.extend(columns)
    data_set.types.extend([TYPES["Int8"], TYPES["String"]])
    for row in rows:
        added = data_set.rows.add()
        for value in row:
            element = added.elements.add()
            if isinstance(value, int):
                element.int_value = value % 2**32
            elif value is not None:
                element.string_value = value


def test_a_data_set_is_a_list_of_rows() -> None:
    """With the columns' names and types."""
    host, node = born(t="DataSet")
    message = node.data(t=None, change=lambda one: _with_data_set(_shown(one), [(-1, "a"), (2, None)]))
    assert host.metrics(message) == {"t": [{"id": -1, "note": "a"}, {"id": 2, "note": None}]}
    empty = node.data(t=None, change=lambda one: _with_data_set(_shown(one), []))
    assert host.metrics(empty) == {"t": []}


def _shown(payload: Any) -> Any:
    payload.metrics[0].ClearField("is_null")
    return payload


@pytest.mark.parametrize(
    ("rows", "columns", "reason"),
    [
        ([(1,)], ("id", "note"), "the metric t: a row has 1 elements, but there are 2 columns"),
        ([], ("id", "id"), "the metric t: its columns do not each have a name and a type of their own"),
        ([], ("id",), "the metric t: its columns do not each have a name and a type of their own"),
        ([("a", "b")], ("id", "note"), "the metric t: the column id has no value of its type, but a string_value"),
        ([(1, "b")] * 70, ("id", "n" * 2**20), "the metric t: it has more than 67108864 characters when written out"),
    ],
)
def test_a_data_set_that_is_broken_or_a_bomb(rows: Any, columns: Any, reason: str) -> None:
    """It is refused before it fills the memory."""
    host, node = born(t="DataSet")
    message = node.data(t=None, change=lambda one: _with_data_set(_shown(one), rows, columns))
    assert host.refusal(message) == reason


def _with_template(payload: Any, **members: tuple[str, Any]) -> Any:
    """Give the first metric an instance of the template Motor; members without a type are only named."""
    template = payload.metrics[0].template_value
    template.template_ref = "Motor"
    for name, (kind, value) in members.items():
        metric = add_metric(template, name, None, kind.strip("?"), value)
        if kind.endswith("?"):
            metric.ClearField("datatype")
    return template


def _with_definition(payload: Any) -> None:
    metric = payload.metrics.add(name="Motor", datatype=TYPES["Template"])
    metric.template_value.is_definition = True
    for name, kind in (("Speed", "Int32"), ("On", "Boolean")):
        metric.template_value.metrics.add(name=name, datatype=TYPES[kind])


def test_a_templates_instance_is_an_object() -> None:
    """Its members' types come from the birth of the instance, or from the template; definitions have no values."""
    host, node = Host(), EdgeNode({"": {"M1": "Template"}})
    assert host.metrics(node.birth(_with_definition, M1=None)) == {"M1": None}
    message = node.data(M1=None, change=lambda one: _with_template(_shown(one), Speed=("Int32?", -12)))
    assert host.metrics(message) == {"M1": {"Speed": -12}}

    def with_parameter(payload: Any) -> None:
        template = _with_template(_shown(payload), On=("Boolean?", True), Speed=("Int32", -1))
        template.parameters.add(name="Index", type=TYPES["Int8"], int_value=0xFF)

    expected = {"On": True, "Speed": -1, "parameters": {"Index": -1}}
    assert host.metrics(node.data(M1=None, change=with_parameter)) == {"M1": expected}


def test_an_instances_birth_tells_the_types_of_its_members() -> None:
    """Without a definition."""
    host, node = Host(), EdgeNode({"": {}, "D": {"M1": "Template"}})
    born_with = node.device_birth("D", lambda one: _with_template(_shown(one), Speed=("Int16", -3)), M1=None)
    assert host.metrics(born_with) == {"M1": {"Speed": -3}}
    message = node.data("D", lambda one: _with_template(_shown(one), Speed=("Int16?", -12)), M1=None)
    assert host.metrics(message) == {"M1": {"Speed": -12}}
    unknown = node.data("D", lambda one: _with_template(_shown(one), Other=("Int16?", 1)), M1=None)
    assert host.refusal(unknown) == "the type of the metric Other is unknown"
    twice = node.data(
        "D",
        lambda one: (_with_template(_shown(one), Speed=("Int16", 1)), _with_template(one, Speed=("Int16", 2))),
        M1=None,
    )
    assert host.refusal(twice) == "the template M1 has two members Speed"


def test_gaps_in_the_sequence_are_counted() -> None:
    """Where it goes on; the numbers begin again after 255, and a birth of the node begins with 0."""
    host, node = plant()
    for _ in range(300):
        assert "missed" not in host.read(node.data("D", Count=1))[0]
    node.sequence = (node.sequence + 5) % 256
    assert host.read(node.data("D", Count=1))[0]["missed"] == 5
    assert "missed" not in host.read(node.data(Up=True))[0]
    assert "missed" not in host.read(node.birth(Up=True))[0]
    assert "missed" not in host.read(node.data(Up=True))[0]


def test_a_message_that_comes_late_or_twice_makes_no_gap() -> None:
    """Nor is the one after it."""
    host, node = plant()
    first, second = node.data("D", Count=1), node.data("D", Count=2)
    assert host.read(second)[0]["missed"] == 1
    assert "missed" not in host.read(first)[0]
    assert "missed" not in host.read(second)[0]
    assert "missed" not in host.read(node.data("D", Count=3))[0]


def test_a_refused_message_is_not_missing() -> None:
    """Its number counts."""
    host, node = plant()
    host.refusal(node.data("D", Count=1, change=lambda one: _set(one, alias=99)))
    assert "missed" not in host.read(node.data("D", Count=1))[0]


def test_a_gap_is_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """In the log, with the edge node."""
    host, node = plant()
    host.time_us = START * 1000 + 3_600_000_000 // 60_000_000 * 60_000_000
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            node.sequence += 1
            host.read(node.data("D", Count=1))
            host.read(node.data("D", Count=1))
    (line,) = caplog.messages
    assert line == "Sparkplug: messages of the edge node G/E are missing; `missed` says how many before each message"


def test_a_death_takes_the_devices_with_it() -> None:
    """At the time of its arrival, because its payload was written when the connection began."""
    host, node = plant()
    arrived = host.time_us + 1_000_000
    records = host.read(node.death())
    assert [(one.get("device_id"), one["online"], one["time"]) for one in records] == [
        (None, False, at(arrived // 1000)),
        ("D", False, at(arrived // 1000)),
    ]
    assert records[0]["bdSeq"] == 0
    host.read(node.birth(Up=True))
    assert len(host.read(node.death())) == 1


def test_a_device_that_died_before_is_not_taken_again() -> None:
    """Its own death was told."""
    host, node = plant()
    host.read(node.device_death("D"))
    assert [one.get("device_id") for one in host.read(node.death())] == [None]


def test_the_death_of_an_earlier_session_means_nothing() -> None:
    """The node has come back in the meantime; the message is stored all the same."""
    host, node = plant()
    late = node.death()
    host.read(node.birth(Up=True))
    (record,) = host.read(late)
    assert "online" not in record
    assert record["bdSeq"] == 0


def test_the_state_of_a_host() -> None:
    """JSON of version 3.0, and the words of before."""
    host = Host()
    origin = {"message_type": "STATE", "host_id": "scada"}
    new = host.read(("spBv1.0/STATE/scada", b'{"online": true, "timestamp": 1700000000000}'))
    assert new == [{**origin, "online": True, "time": at(START)}]
    assert host.read(("STATE/scada", b"OFFLINE")) == [{**origin, "online": False}]
    assert host.refusal(("STATE/scada", b"[]")).startswith("not a state of Sparkplug B")
    assert host.refusal(("STATE/scada", b"{")).startswith("not JSON")


def test_commands_are_records_too() -> None:
    """By name or by alias; they have no sequence number."""
    host, node = plant()
    _, payload = node.data("D", Count=-1)
    node.sequence -= 1
    assert host.metrics(("spBv1.0/G/DCMD/E/D", payload)) == {"Count": -1}
    command = Payload(timestamp=START)
    add_metric(command, "Node Control/Rebirth", None, "Boolean", True, START)
    (record,) = host.read(("spBv1.0/G/NCMD/E", command.SerializeToString()))
    assert record["Node Control/Rebirth"] is True
    assert "missed" not in host.read(node.data("D", Count=1))[0]


def test_a_record_for_each_metric() -> None:
    """Whether a device is online, and gaps, have a record of their own before them."""
    host, node = Host("metric"), EdgeNode(NODE)
    host.read(node.birth(Up=True))
    births_ = host.read(node.device_birth("D", Temp=1.5, Count=None))
    shown = [{name: one.get(name) for name in ("metric", "value", "online")} for one in births_]
    assert shown == [
        {"metric": None, "value": None, "online": True},
        {"metric": "Temp", "value": 1.5, "online": None},
        {"metric": "Count", "value": None, "online": None},
    ]
    (record,) = host.read(node.data("D", Count=-12))
    assert record == {
        "message_type": "DDATA", "group_id": "G", "edge_node_id": "E", "device_id": "D", "time": at(START),
        "metric": "Count", "value": -12,
    }  # fmt: skip


def test_metrics_named_like_the_decoders_own_properties() -> None:
    """They are below `metric`."""
    host, node = born(time="Int8", online="Boolean", metric="Float")
    (record,) = host.read(node.data(time=1, online=False, metric=2.5))
    assert record["time"] == at(START)
    assert record["metric"] == {"time": 1, "online": False, "metric": 2.5}


@pytest.mark.parametrize("algorithm", ["DEFLATE", "GZIP"])
def test_a_compressed_payload(algorithm: str) -> None:
    """As Tahu writes it: the whole payload as the body of another."""
    host, node = plant()
    topic, payload = node.data("D", Count=-12)
    outer = Payload(uuid="SPBV1.0_COMPRESSED", seq=node.sequence - 1)
    packer = zlib.compressobj(wbits=31 if algorithm == "GZIP" else 15)
    outer.body = packer.compress(payload) + packer.flush()
    add_metric(outer, "algorithm", None, "String", algorithm, START)
    assert host.metrics((topic, outer.SerializeToString())) == {"Count": -12}
    outer.body = zlib.compress(bytes(65 * 2**20))
    outer.ClearField("metrics")
    assert host.refusal((topic, outer.SerializeToString())) == "more than 67108864 bytes when decompressed"


def test_levels_before_the_namespace_tell_nodes_apart() -> None:
    """As a bridge between brokers may add them."""
    host, node = plant()
    (topic, payload) = node.data("D", Count=1)
    assert host.refusal((f"site/{topic}", payload)).startswith("no DBIRTH")
    node.birth(Up=True)
    topic, birth = node.device_birth("D", Temp=1.5, Count=1)
    host.read((f"site/{topic}", birth))
    topic, payload = node.data("D", Count=-4)
    assert host.metrics((f"site/{topic}", payload)) == {"Count": -4}


@pytest.mark.parametrize(
    ("topic", "payload", "reason"),
    [
        ("a/b", b"\x08\x01", "its topic is not one of Sparkplug B, such as spBv1.0/GROUP/DDATA/NODE/DEVICE"),
        ("spBv1.0/G/DDATA/E", b"\x08\x01", "its topic is not one of Sparkplug B"),
        ("spBv1.0/G/NDATA/E", b"", "empty payload"),
        ("spBv1.0/G/NDATA/E", b"\xff", "not Sparkplug B: it cannot be parsed"),
        ("spBv1.0/G/NDATA/E", b"\xa0\x06\x01", "not Sparkplug B: it has none of its fields"),
        ("spBv1.0/G/NDATA/E", b"\x12\x00", "a metric has neither a name nor an alias"),
        ("spBv1.0/G/NDATA/E", b"\x12\x04\x0a\x02\xff\xfe", "not Sparkplug B"),
        ("spBv1.0/G/NDATA/E", b"\x12\x05\x0a\x01m\x20\x63", "the data type 99 is not one of Sparkplug B"),
        (f"spBv1.0/{'g' * 60_000}/NDATA/E", b"\x12\x00" * 2000, "it has too many metrics for the length of its topic"),
    ],
)
def test_what_is_not_sparkplug(topic: str, payload: bytes, reason: str) -> None:
    """The dead letter says what is wrong."""
    assert Host().refusal((topic, payload)).startswith(reason)


@given(st.binary(max_size=80), st.sampled_from(["NBIRTH", "NDATA", "DBIRTH", "DDATA", "NDEATH", "DCMD"]), st.data())
def test_any_bytes_are_decoded_or_refused(noise: bytes, kind: str, data: st.DataObject) -> None:
    """From noise or a damaged payload, the result is plain data within the bounds, or an error with a reason."""
    host, node = plant()
    topic = f"spBv1.0/G/{kind}/E{'/D' if kind[0] == 'D' else ''}"
    _, payload = node.device_birth("D", Temp=1.5, Count=1)
    cut = data.draw(st.integers(0, len(payload)))
    for damaged in (noise, payload[:cut] + noise + payload[cut:], payload[:cut] + noise + payload[cut + len(noise) :]):
        check_any(lambda given: host.read((topic, given)), damaged, list)


def test_mistakes_in_the_options() -> None:
    """Found when the configuration is read."""
    assert mistakes({"sparkplug": {"rows": "topic"}}) == [
        "decode.sparkplug: rows: expected 'payload' or 'metric', got 'topic'"
    ]


def test_a_birth_is_wanted_once_a_minute() -> None:
    """After data without a birth, and after a gap; the time and the command's topic are found in what is remembered."""
    host, node = Host(), EdgeNode(NODE)
    birth = node.birth(Up=True)
    assert "no NBIRTH" in host.refusal(node.data(Up=False))
    wanted = find_rebirths(host.memory)
    assert wanted == {"spBv1.0/G/NCMD/E": host.time_us}
    host.refusal(node.data(Up=False))
    host.read(birth)
    assert find_rebirths(host.memory) == wanted
    host.time_us += 60_000_000
    node.data(Up=True)  # is lost
    host.read(node.data(Up=True))
    assert find_rebirths(host.memory) == {"spBv1.0/G/NCMD/E": host.time_us}


def test_no_birth_is_wanted_if_nothing_is_missing() -> None:
    """A session without gaps."""
    host, node = Host(), EdgeNode(NODE)
    for message in (node.birth(Up=True), node.device_birth("D", Temp=1.0), node.data("D", Temp=2.0), node.death()):
        host.read(message)
    assert find_rebirths(host.memory) == {}
