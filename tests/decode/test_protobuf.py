"""Protobuf by a descriptor set → records."""

from __future__ import annotations

import math
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, json_format
from hypothesis import given
from hypothesis import strategies as st

from amqtt_db.decode import Decoder, protobuf
from amqtt_db.errors import DecodeError
from amqtt_db.record import EPOCH
from amqtt_db.registry import install_hint
from tests.decode.protos import FIELD, add_field, descriptor_set, message_class, plant
from tests.decode.vectors import check_any, decoded, mistakes, plain_decoder, refusal

PLANT = plant()
Reading = message_class(PLANT, "plant.Reading")


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    """Return a decoder of ``plant.Reading``."""
    file = tmp_path_factory.mktemp("protobuf") / "plant.desc"
    file.write_bytes(descriptor_set(PLANT))
    return plain_decoder({"protobuf": {"descriptors": str(file), "message": "plant.Reading"}})


_OPTIONAL = {"maybe", "code", "text"}


def spec_for(path: Path, *files: Any, message: str = "plant.Reading") -> dict[str, Any]:
    (path / "test.desc").write_bytes(descriptor_set(*files))
    return {"protobuf": {"descriptors": str(path / "test.desc"), "message": message}}


def set_fields(data: dict[str, Any]) -> dict[str, Any]:
    """Return what differs from a reading without any field set."""
    return {name: value for name, value in data.items() if value not in (0, "", b"", "IDLE") or name in _OPTIONAL}


def test_an_empty_message_has_the_defaults(decoder: Decoder) -> None:
    """Zero is not sent, and is a value; what knows whether it was set is absent."""
    assert decoder(b"") == {
        **dict.fromkeys(("a_double", "a_float"), 0.0),
        **dict.fromkeys(("a_int32", "a_int64", "a_uint32", "a_uint64", "a_sint64", "a_fixed64"), 0),
        "a_bool": False,
        "a_string": "",
        "a_bytes": b"",
        "state": "IDLE",
    }


@pytest.mark.parametrize(
    ("fields", "data"),
    [
        ({"a_int64": -(2**63), "a_uint64": 2**64 - 1}, {"a_int64": -(2**63), "a_uint64": 2**64 - 1}),
        ({"state": "FAULT", "states": ["IDLE", "RUNNING"]}, {"state": "FAULT", "states": ["IDLE", "RUNNING"]}),
        ({"maybe": 0.0}, {"maybe": 0.0}),
        ({"code": 0}, {"code": 0}),
        ({"text": ""}, {"text": ""}),
        ({"list": [1, 2**62]}, {"list": [1, 2**62]}),
        ({"names": {"a": 1.5, "b": 0}}, {"names": {"a": 1.5, "b": 0.0}}),
        ({"flags": {True: 1, False: 2}}, {"flags": {"true": "RUNNING", "false": "FAULT"}}),
        ({"timestamp": {"seconds": 1, "nanos": 1999}}, {"timestamp": EPOCH + timedelta(seconds=1, microseconds=1)}),
        ({"timestamp": {"seconds": -1, "nanos": 5 * 10**8}}, {"timestamp": EPOCH - timedelta(seconds=0.5)}),
        ({"duration": {"seconds": -1, "nanos": -(5 * 10**8)}}, {"duration": -1.5}),
        ({"doublevalue": {"value": 1.5}, "stringvalue": {"value": "x"}}, {"doublevalue": 1.5, "stringvalue": "x"}),
    ],
)
def test_fields_become_properties(fields: dict[str, Any], data: dict[str, Any], decoder: Decoder) -> None:
    """Integers are exact, enums are names, maps are objects, and times are times."""
    assert set_fields(decoder(Reading(**fields).SerializeToString())) == data


def test_messages_are_objects(decoder: Decoder) -> None:
    """Also in lists and maps, and in themselves."""
    message = Reading(inner=Reading(inner=Reading(a_int32=3)), readings=[Reading(a_int32=1)])
    message.numbers[5].a_int32 = 7
    data = decoder(message.SerializeToString())
    assert data["inner"]["inner"]["a_int32"] == 3
    assert [item["a_int32"] for item in data["readings"]] == [1]
    assert data["numbers"]["5"]["a_int32"] == 7


def test_json_in_a_message_is_plain_data(decoder: Decoder) -> None:
    """``Struct`` and ``Value`` are what they stand for."""
    tree = {"a": 1.5, "b": [True, None, "x"], "c": {"d": {}}}
    message = Reading()
    json_format.ParseDict({"struct": tree, "value": [1.0]}, message)
    data = decoder(message.SerializeToString())
    assert data["struct"] == tree
    assert data["value"] == [1.0]


def test_a_number_without_a_name_stays_a_number(decoder: Decoder) -> None:
    """The sender's enum may be newer."""
    assert decoder(b"\xa0\x01\x09")["state"] == 9


scalars = st.fixed_dictionaries(
    {},
    optional={
        "a_double": st.floats(allow_nan=False),
        "a_float": st.floats(width=32, allow_nan=False),
        "a_int32": st.integers(-(2**31), 2**31 - 1),
        "a_int64": st.integers(-(2**63), 2**63 - 1),
        "a_uint32": st.integers(0, 2**32 - 1),
        "a_uint64": st.integers(0, 2**64 - 1),
        "a_sint64": st.integers(-(2**63), 2**63 - 1),
        "a_fixed64": st.integers(0, 2**64 - 1),
        "a_bool": st.booleans(),
        "a_string": st.text(),
        "a_bytes": st.binary(),
        "maybe": st.floats(allow_nan=False),
        "code": st.integers(-(2**31), 2**31 - 1),
        "list": st.lists(st.integers(-(2**63), 2**63 - 1)),
        "names": st.dictionaries(st.text(), st.floats(allow_nan=False)),
    },
)


@given(fields=scalars, inner=st.lists(scalars, max_size=2))
def test_what_the_library_writes_is_read(fields: dict[str, Any], inner: list[dict[str, Any]], decoder: Decoder) -> None:
    """Every value comes back with its type, in the message and in those in it."""
    message = Reading(**fields, readings=[Reading(**part) for part in inner])
    data = decoder(message.SerializeToString())
    for found, given_ in zip((data, *data.get("readings", [])), (fields, *inner), strict=True):
        expected = {name: value for name, value in given_.items() if value not in ([], {})}
        assert {name: found[name] for name in expected} == expected
        assert [type(found[name]) for name in expected] == [type(value) for value in expected.values()]
        assert "text" not in found


@given(payload=st.binary(max_size=80))
def test_any_bytes_are_decoded_or_refused(payload: bytes, decoder: Decoder) -> None:
    """Whatever is sent, the result is plain data within the bounds, or an error with a reason."""
    check_any(decoder, payload, dict)


@given(fields=scalars, draw=st.data())
def test_damaged_messages_are_decoded_or_refused(fields: dict[str, Any], draw: st.DataObject, decoder: Decoder) -> None:
    """So it is with a message that has a wrong byte."""
    payload = bytearray(Reading(a_int32=1, inner=Reading(**fields)).SerializeToString())
    payload[draw.draw(st.integers(0, len(payload) - 1))] = draw.draw(st.integers(0, 255))
    check_any(decoder, bytes(payload), dict)


def _nested(depth: int) -> bytes:
    payload: bytes = Reading(a_int32=1).SerializeToString()
    for _ in range(depth):  # the length, as a varint of two bytes
        payload = b"\xc2\x01" + bytes((len(payload) & 127 | 128, len(payload) >> 7)) + payload
    return payload


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"\xff", "not plant.Reading: it cannot be parsed"),
        (b"\x0a\x05kept-dark", "not plant.Reading: it cannot be parsed"),
        (b"kept-dark", "not plant.Reading: it"),
        (b"\x9a\x06\x01x", "not plant.Reading: it has none of its fields"),
        (Reading(a_int32=1).SerializeToString() + b"\x52\x01\xff", "not plant.Reading: it cannot be parsed"),
        (Reading(timestamp={"seconds": 2**60}).SerializeToString(), "a timestamp is beyond the year 9999"),
        (Reading(timestamp={"nanos": -1}).SerializeToString(), "more nanoseconds than a second"),
        (_nested(200), "not plant.Reading: it cannot be parsed"),
    ],
)
def test_another_message_has_a_reason(payload: bytes, says: str, decoder: Decoder) -> None:
    """The reason names the message and repeats nothing of the payload."""
    with pytest.raises(DecodeError) as error:
        decoder(payload)
    assert says in str(error.value)
    assert "kept-dark" not in str(error.value)


def test_a_bomb_of_defaults_is_stopped(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three bytes are a message with a dozen defaults, so values are counted, for each payload from zero."""
    empty, width = b"\xda\x01\x00", len(Reading.DESCRIPTOR.fields)
    assert len(decoder(empty * 1000)["readings"]) == 1000
    monkeypatch.setattr(protobuf, "MAX_VALUES", 10 * width)
    for _ in range(3):
        assert len(decoder(empty * 9)["readings"]) == 9
        with pytest.raises(DecodeError, match=f"a message with more than {10 * width} values"):
            decoder(empty * 10)


def test_deep_messages_are_read(decoder: Decoder) -> None:
    """Up to the hundred levels that the library itself reads."""
    assert decoder(_nested(90))["inner"]


def test_required_fields_are_required(tmp_path: Path) -> None:
    """In proto2, whose other fields know whether they were set."""
    file = descriptor_pb2.FileDescriptorProto(name="old.proto", package="old", syntax="proto2")
    message = file.message_type.add(name="Old")
    add_field(message, 1, "a", "int32", label=FIELD.LABEL_REQUIRED)
    add_field(message, 2, "b", "string")
    spec = spec_for(tmp_path, file, message="old.Old")
    assert decoded(spec, b"\x08\x05") == {"a": 5}
    assert decoded(spec, b"\x08\x00\x12\x00") == {"a": 0, "b": ""}
    assert refusal(spec, b"\x12\x00") == "not old.Old: a required field is missing"
    assert decoded(spec, b"\x08\x01\x12\x01\xff") == {"a": 1, "b": b"\xff"}  # text that is not UTF-8


def test_each_decoder_has_a_pool_of_its_own(tmp_path: Path) -> None:
    """Two descriptor sets may describe different messages under one name."""
    specs = []
    for name in ("one", "two"):
        file = descriptor_pb2.FileDescriptorProto(name="same.proto", package="same", syntax="proto3")
        add_field(file.message_type.add(name="Same"), 1, name, "int32")
        (tmp_path / name).mkdir()
        specs.append(spec_for(tmp_path / name, file, message="same.Same"))
    assert [decoded(spec, b"\x08\x01") for spec in specs] == [{"one": 1}, {"two": 1}]


def test_a_message_may_be_a_value(tmp_path: Path) -> None:
    """A message that stands for a value is one."""
    assert decoded(spec_for(tmp_path, PLANT, message="google.protobuf.DoubleValue"), b"") == 0.0


def test_numbers_need_not_be_finite(decoder: Decoder) -> None:
    """NaN and infinity are values."""
    data = decoder(Reading(a_double=math.nan, a_float=-math.inf).SerializeToString())
    assert math.isnan(data["a_double"])
    assert data["a_float"] == -math.inf


def test_mistakes_in_the_options_are_told(tmp_path: Path) -> None:
    """Each in one line, with its path and what to do."""
    spec = spec_for(tmp_path, PLANT, message="plant.Redding")
    assert mistakes(spec) == [
        "decode.protobuf: message: the descriptor set has no 'plant.Redding'; did you mean 'plant.Reading'?"
    ]
    spec["protobuf"]["descriptors"] = "absent.desc"
    assert mistakes(spec) == [
        f"decode.protobuf: descriptors: cannot read absent.desc in {Path.cwd()}: No such file or directory"
    ]
    for content in (b"", b"syntax = 'proto3';"):
        (tmp_path / "test.desc").write_bytes(content)
        spec["protobuf"]["descriptors"] = str(tmp_path / "test.desc")
        assert "the file is not a descriptor set; make it with protoc --include_imports" in mistakes(spec)[0]
    assert mistakes({"protobuf": {"message": "a"}}) == ["decode.protobuf: needs the option 'descriptors'"]


def test_a_descriptor_set_has_what_it_imports(tmp_path: Path) -> None:
    """Only the files that come with protobuf may be missing; their order does not matter."""
    part = descriptor_pb2.FileDescriptorProto(name="part.proto", package="part", syntax="proto3")
    add_field(part.message_type.add(name="Part"), 1, "a", "int32")
    whole = descriptor_pb2.FileDescriptorProto(name="whole.proto", package="whole", syntax="proto3")
    whole.dependency.append("part.proto")
    add_field(whole.message_type.add(name="Whole"), 1, "part", ".part.Part")
    assert decoded(spec_for(tmp_path, whole, part, message="whole.Whole"), b"\x0a\x00") == {"part": {"a": 0}}
    told = mistakes(spec_for(tmp_path, whole, message="whole.Whole"))[0]
    assert "descriptors: the file lacks part.proto, which it imports; make it with protoc --include_imports" in told
    whole.message_type[0].field[0].type_name = ".part.Absent"
    assert "descriptors: whole.proto cannot be used: " in mistakes(spec_for(tmp_path, whole, part))[0]


@pytest.mark.parametrize(
    ("name", "library", "options"),
    [
        ("protobuf", "google.protobuf", {"descriptors": "a", "message": "b"}),
        ("avro", "fastavro", {"schema": "a"}),
        ("sparkplug", "google.protobuf", {}),
    ],
)
def test_a_missing_library_is_a_mistake_of_the_configuration(
    name: str, library: str, options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what to install, whether the library or the package around it is missing."""
    monkeypatch.setitem(sys.modules, library, None)
    expected = [f"decode.{name}: needs the library {library}: {install_hint(name)}"]
    assert mistakes({name: options}) == expected
