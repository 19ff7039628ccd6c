"""BSON → plain data."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import bson
import pytest
from bson.binary import Binary, UuidRepresentation
from hypothesis import given
from hypothesis import strategies as st

from tests.decode.vectors import check_any, decoded, plain_decoder, refusal

MOMENT = datetime(2026, 1, 31, 12, 0, 0, 123000, tzinfo=timezone.utc)
OPTIONS: Any = bson.CodecOptions(uuid_representation=UuidRepresentation.STANDARD)


def test_values_are_plain() -> None:
    """Times are in UTC, decimals exact, ids of objects text."""
    data = {
        "t": 21.5,
        "n": 5,
        "big": bson.Int64(2**40),
        "s": "ä",
        "raw": b"\xff",
        "other": Binary(b"x", 128),
        "ok": True,
        "none": None,
        "at": MOMENT,
        "d": bson.Decimal128("1.50"),
        "u": UUID(int=5),
        "id": bson.ObjectId("65a1b2c3d4e5f60718293a4b"),
        "ts": bson.Timestamp(1_700_000_000, 1),
        "list": [1, {"a": []}],
    }
    found = decoded("bson", bson.encode(data, codec_options=OPTIONS))
    expected = {
        **data,
        "other": b"x",
        "d": Decimal("1.50"),
        "id": "65a1b2c3d4e5f60718293a4b",
        "ts": datetime(2023, 11, 14, 22, 13, 20, tzinfo=timezone.utc),
    }
    assert found == expected
    assert {type(value) for value in found.values()} <= {
        float, int, str, bytes, bool, type(None), datetime, Decimal, UUID, list,
    }  # fmt: skip


def test_a_vector_of_the_specification() -> None:
    """The first example on the format's own page."""
    payload = b"\x16\x00\x00\x00\x02hello\x00\x06\x00\x00\x00world\x00\x00"
    assert decoded("bson", payload) == {"hello": "world"}


def _nested(depth: int) -> bytes:
    payload: bytes = bson.encode({"a": 1})
    for _ in range(depth):
        body = b"\x03a\0" + payload + b"\0"
        payload = (len(body) + 4).to_bytes(4, "little") + body
    return payload


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"", "empty payload"),
        (b"kept-dark", "not BSON: its structure is broken"),
        (bson.encode({"a": 1}) + b"kept-dark", "not BSON: its structure is broken"),
        (bson.encode({"a": "kept-dark"})[:-1], "not BSON: its structure is broken"),
        (b"\x0e\x00\x00\x00\x02a\x00\x02\x00\x00\x00\xff\x00\x00", "not BSON: "),
        (b"\x10\x00\x00\x00\x09a\x00" + b"\xff" * 7 + b"\x7f\x00", "a value out of range"),
        (bson.encode({"a": re.compile("kept-dark")}), "BSON Regex cannot be stored"),
        (bson.encode({"a": bson.Code("kept-dark")}), "BSON Code cannot be stored"),
        (bson.encode({"a": bson.MinKey()}), "BSON MinKey cannot be stored"),
        (_nested(300), "nested deeper than 200 levels"),
        (_nested(20_000), "not BSON: "),
    ],
)
def test_what_is_not_bson_has_a_reason(payload: bytes, says: str) -> None:
    """The reason repeats nothing of the payload."""
    told = refusal("bson", payload)
    assert says in told
    assert "kept-dark" not in told


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.datetimes(timezones=st.just(timezone.utc)).map(
        lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    )
)
keys = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
trees = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=10)
objects = st.dictionaries(keys, trees)


@given(objects)
def test_what_the_library_writes_is_read(data: dict[str, Any]) -> None:
    """Every value comes back, to the millisecond."""
    assert decoded("bson", bson.encode(data)) == data


@given(objects, st.data())
def test_damaged_payloads_are_decoded_or_refused(data: dict[str, Any], draw: st.DataObject) -> None:
    """The result is plain data within the bounds, or an error with a reason."""
    payload = bytearray(bson.encode(data))
    payload[draw.draw(st.integers(0, len(payload) - 1))] = draw.draw(st.integers(0, 255))
    check_any(plain_decoder("bson"), bytes(payload), dict)
