"""Avro by schemas in files → records."""

from __future__ import annotations

import json
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtt_db.decode.avro import header_decoder, schema_decoder
from amqtt_db.record import EPOCH
from tests.decode.vectors import check_any, decoded, mistakes, refusal

INNER = {"type": "record", "name": "Inner", "fields": [{"name": "x", "type": "int"}]}
READING: dict[str, Any] = {
    "type": "record",
    "name": "Reading",
    "namespace": "plant",
    "fields": [
        {"name": "temp", "type": "double"},
        {"name": "small", "type": "float"},
        {"name": "count", "type": "long"},
        {"name": "ok", "type": "boolean"},
        {"name": "room", "type": ["null", "string"]},
        {"name": "raw", "type": "bytes"},
        {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["IDLE", "RUNNING"]}},
        {"name": "list", "type": {"type": "array", "items": "long"}},
        {"name": "names", "type": {"type": "map", "values": "double"}},
        {"name": "inner", "type": ["null", INNER]},
        {"name": "again", "type": "Inner"},
        {"name": "id", "type": {"type": "fixed", "name": "Id", "size": 3}},
    ],
}
MOMENT = datetime(2026, 1, 31, 12, 0, 0, 123000, tzinfo=timezone.utc)


def written(schema: Any, data: Any) -> bytes:
    """Return data as the library writes it."""
    out = BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), data)
    return out.getvalue()


def in_file(path: Path, schema: Any, name: str = "schema.avsc") -> dict[str, Any]:
    (path / name).write_text(json.dumps(schema))
    return {"avro": {"schema": str(path / name)}}


def logical(kind: str, meaning: str, **options: Any) -> dict[str, Any]:
    return {"type": kind, "logicalType": meaning, **options}


floats = st.floats(allow_nan=False)
readings = st.fixed_dictionaries(
    {
        "temp": floats,
        "small": st.floats(width=32, allow_nan=False),
        "count": st.integers(-(2**63), 2**63 - 1),
        "ok": st.booleans(),
        "room": st.none() | st.text(),
        "raw": st.binary(),
        "state": st.sampled_from(["IDLE", "RUNNING"]),
        "list": st.lists(st.integers(-(2**63), 2**63 - 1)),
        "names": st.dictionaries(st.text(), floats),
        "inner": st.none() | st.fixed_dictionaries({"x": st.integers(-(2**31), 2**31 - 1)}),
        "again": st.fixed_dictionaries({"x": st.integers(-(2**31), 2**31 - 1)}),
        "id": st.binary(min_size=3, max_size=3),
    }
)
decode_reading = schema_decoder(json.dumps(READING).encode())


@given(readings)
def test_what_the_library_writes_is_read(data: dict[str, Any]) -> None:
    """Every value comes back with its type."""
    found = decode_reading(written(READING, data))
    assert found == data
    assert {name: type(value) for name, value in found.items()} == {name: type(value) for name, value in data.items()}


@pytest.mark.parametrize(
    ("schema", "payload", "data"),
    [
        ("int", "00", 0),
        ("int", "01", -1),
        ("int", "7f", -64),
        ("int", "8001", 64),
        ("string", "06666f6f", "foo"),
        ({"type": "array", "items": "long"}, "04063600", [3, 27]),
        ({"type": "array", "items": "long"}, "0304063600", [3, 27]),
        (["null", "string"], "00", None),
        (["null", "string"], "020261", "a"),
        (
            {"type": "record", "name": "t", "fields": [{"name": "a", "type": "long"}, {"name": "b", "type": "string"}]},
            "3606666f6f",
            {"a": 27, "b": "foo"},
        ),
    ],
)
def test_vectors_of_the_specification(schema: Any, payload: str, data: Any, tmp_path: Path) -> None:
    """The examples with which Avro's specification explains its encoding."""
    assert decoded(in_file(tmp_path, schema), bytes.fromhex(payload)) == data


@pytest.mark.parametrize(
    ("schema", "data", "expected"),
    [
        (logical("long", "timestamp-millis"), MOMENT, MOMENT),
        (logical("long", "timestamp-micros"), MOMENT, MOMENT),
        (logical("long", "local-timestamp-millis"), MOMENT.replace(tzinfo=None), MOMENT),
        (logical("long", "local-timestamp-micros"), MOMENT.replace(tzinfo=None), MOMENT),
        (logical("int", "date"), date(2026, 1, 31), date(2026, 1, 31)),
        (logical("int", "time-millis"), time(12, 0, 1), time(12, 0, 1)),
        (logical("long", "time-micros"), time(12, 0, 0, 1), time(12, 0, 0, 1)),
        (logical("string", "uuid"), UUID(int=5), UUID(int=5)),
        (logical("bytes", "decimal", precision=6, scale=2), Decimal("-12.30"), Decimal("-12.30")),
        (logical("fixed", "decimal", name="d", size=4, precision=6, scale=2), Decimal("9999.99"), Decimal("9999.99")),
        (logical("bytes", "decimal", precision=40), Decimal(10**39), Decimal(10**39)),
        (["null", logical("bytes", "decimal", precision=4, scale=1)], Decimal("1.5"), Decimal("1.5")),
        (logical("bytes", "unheard-of"), b"x", b"x"),
    ],
)
def test_logical_types_are_values(schema: Any, data: Any, expected: Any, tmp_path: Path) -> None:
    """Times are in UTC, decimals exact; a type that nobody knows is what is below it."""
    record = {"type": "record", "name": "r", "fields": [{"name": "a", "type": schema}]}
    found = decoded(in_file(tmp_path, record), written(record, {"a": data}))
    assert repr(found) == repr({"a": expected})


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-999_999, max_value=999_999))
def test_decimals_are_exact(number: Decimal) -> None:
    """To the last digit, with the zeros at the end."""
    schema = logical("bytes", "decimal", precision=9, scale=3)
    assert str(schema_decoder(json.dumps(schema).encode())(written(schema, number))) == str(number)


@pytest.mark.parametrize(
    ("schema", "payload", "says"),
    [
        ("string", b"", "empty payload"),
        ("string", b"\x16kept-dark", "it ends too early"),
        ("string", b"\x01", "it ends too early"),
        ("string", b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01kept-dark", "it ends too early"),
        ("string", b"\x02akept-dark", "unexpected bytes at its end"),
        ("string", b"\x02\xff", "text that is not UTF-8 at byte 0"),
        (["null", "string"], b"\x08", "IndexError"),
        ({"type": "enum", "name": "e", "symbols": ["a"]}, b"\x08", "IndexError"),
        ({"type": "array", "items": "int"}, b"\xfe\xff\xff\xff\xff\x01\x02", "it ends too early"),
        (logical("long", "timestamp-micros"), b"\xfe" + b"\xff" * 8 + b"\x01", "OverflowError"),
        (logical("long", "local-timestamp-micros"), b"\xfe" + b"\xff" * 8 + b"\x01", "OverflowError"),
        (logical("string", "uuid"), b"\x02a", "ValueError"),
        (logical("bytes", "decimal", precision=4), b"\x80\x89\x7a" + b"\x7f" * 10**6, "more digits than its schema"),
    ],
)
def test_what_does_not_fit_the_schema_has_a_reason(schema: Any, payload: bytes, says: str, tmp_path: Path) -> None:
    """It is refused at once, and the reason repeats nothing of the payload."""
    told = refusal(in_file(tmp_path, schema), payload)
    assert says in told
    assert "kept-dark" not in told


@given(st.binary(max_size=60))
def test_any_bytes_are_decoded_or_refused(payload: bytes) -> None:
    """Whatever is sent, the result is plain data within the bounds, or an error with a reason."""
    check_any(decode_reading, payload, dict)


@given(readings, st.data())
def test_damaged_payloads_are_decoded_or_refused(data: dict[str, Any], draw: st.DataObject) -> None:
    """The same holds for a payload with a wrong byte."""
    payload = bytearray(written(READING, data))
    payload[draw.draw(st.integers(0, len(payload) - 1))] = draw.draw(st.integers(0, 255))
    check_any(decode_reading, bytes(payload), dict)


# --- headers


def test_a_registrys_id_is_a_files_name(tmp_path: Path) -> None:
    """A zero byte, the id in four bytes, and what has the schema of that file."""
    in_file(tmp_path, "string", "7.avsc")
    in_file(tmp_path, "long", "258.avsc")
    spec = {"avro": {"schemas": str(tmp_path)}}
    assert decoded(spec, b"\0\0\0\0\x07\x02a") == "a"
    assert decoded(spec, b"\0\0\0\x01\x02\x02") == 1
    assert refusal(spec, b"\0\0\0\0\x08\x02a") == "no file has its schema, 8"
    assert refusal(spec, b"\0\0\0\0\x07") == "not Avro of this schema: it ends too early"
    for other in (b"\0\0\0\0", b"\xc3\x01\0", b"\x01kept-dark"):
        assert "it begins with neither a schema's id nor a fingerprint" in refusal(spec, other)
    assert refusal(spec, b"") == "empty payload"


def test_a_fingerprint_finds_the_schema(tmp_path: Path) -> None:
    """Whatever the file's name; it is that of the schema without what does not matter."""
    in_file(tmp_path, {"type": "int", "doc": "no part of it"}, "current.avsc")
    spec = {"avro": {"schemas": str(tmp_path)}}
    fingerprint = 0x7275D51A3F395C8F.to_bytes(8, "little")  # of "int", as the specification computes it
    assert decoded(spec, b"\xc3\x01" + fingerprint + b"\x02") == 1
    assert refusal(spec, b"\xc3\x01" + bytes(8) + b"\x02") == f"no file has its schema, {'00' * 8}"


@given(st.binary(max_size=40))
def test_any_header_is_decoded_or_refused(payload: bytes) -> None:
    """Whatever is sent, the result is plain data within the bounds, or an error with a reason."""
    decoder = header_decoder({"1": json.dumps(READING).encode()})
    for start in (b"", b"\0\0\0\0\x01", b"\xc3\x01"):
        check_any(decoder, start + payload, dict)


# --- schemas


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "record", "name": "L", "fields": [{"name": "next", "type": ["null", "L"]}]},
        {"type": "record", "name": "L", "fields": [{"name": "m", "type": {"type": "map", "values": "L"}}]},
        {
            "type": "record",
            "name": "a.L",
            "fields": [
                {
                    "name": "inner",
                    "type": {"type": "record", "name": "M", "fields": [{"name": "l", "type": ["null", "a.L"]}]},
                }
            ],
        },
    ],
)
def test_a_schema_that_contains_itself_is_refused(schema: Any, tmp_path: Path) -> None:
    """The library would go as deep as a payload says, until the process dies."""
    told = mistakes(in_file(tmp_path, schema))
    assert told == [f"decode.avro: schema: {schema['name']} contains itself, which is not supported"]


@pytest.mark.parametrize(
    "items",
    [
        "null",
        {"type": "record", "name": "Empty", "fields": []},
        {"type": "record", "name": "Nulls", "fields": [{"name": "a", "type": "null"}]},
        {"type": "fixed", "name": "None", "size": 0},
    ],
)
def test_a_list_of_nothing_is_refused(items: Any, tmp_path: Path) -> None:
    """A few bytes would make as many items as they say."""
    schema = {"type": "record", "name": "r", "fields": [{"name": "a", "type": {"type": "array", "items": items}}]}
    assert mistakes(in_file(tmp_path, schema)) == [
        "decode.avro: schema: an array of items that take no bytes is not supported"
    ]


def test_mistakes_in_the_options_are_told(tmp_path: Path) -> None:
    """Each in one line, with its path and what to do."""
    expected = ["decode.avro: expected either `schema`, a file, or `schemas`, a folder"]
    assert mistakes("avro") == expected
    assert mistakes({"avro": {"schema": "a", "schemas": "b"}}) == expected
    told = f"cannot read absent in {Path.cwd()}: No such file or directory"
    assert mistakes({"avro": {"schema": "absent"}}) == [f"decode.avro: schema: {told}"]
    assert mistakes({"avro": {"schemas": "absent"}}) == [f"decode.avro: schemas: {told}"]
    folder = {"avro": {"schemas": str(tmp_path)}}
    assert mistakes(folder) == [f"decode.avro: schemas: the folder {tmp_path} has no file that ends in .avsc"]
    for content in ("", "{", '"foo"', '{"type": "record"}', "5", "[" * 100_000):
        (tmp_path / "7.avsc").write_text(content)
        assert mistakes(folder)[0].startswith("decode.avro: schemas: 7: not an Avro schema: ")
        assert "\n" not in mistakes(folder)[0]


def test_times_of_a_record_are_aware(tmp_path: Path) -> None:
    """So that they can be the event's time."""
    schema = {"type": "record", "name": "r", "fields": [{"name": "at", "type": logical("long", "timestamp-micros")}]}
    assert decoded(in_file(tmp_path, schema), b"\x02") == {"at": EPOCH + timedelta(microseconds=1)}
