"""SenML in JSON and CBOR → records."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtt_db.decode.senml import CBOR_LABELS
from amqtt_db.errors import DecodeError
from amqtt_db.registry import install_hint
from tests.decode.vectors import check_any, decoded, plain_decoder, refusal

MOMENT = datetime(2023, 11, 14, 22, 13, 20, tzinfo=timezone.utc)
SECOND = 1_700_000_000
_NUMBERS = {name: number for number, name in CBOR_LABELS.items()}


def in_json(pack: list[dict[str, Any]]) -> bytes:
    return json.dumps(pack).encode()


def in_cbor(pack: list[dict[str, Any]]) -> bytes:
    return cbor2.dumps([{_NUMBERS.get(label, label): value for label, value in entry.items()} for entry in pack])


both = pytest.mark.parametrize("write", [in_json, in_cbor])


@both
@pytest.mark.parametrize(
    ("pack", "data"),
    [
        ([{"n": "urn:dev:ow:10", "u": "Cel", "v": 23.1}], {"name": "urn:dev:ow:10", "unit": "Cel", "value": 23.1}),
        (
            [
                {"bn": "dev:", "bt": SECOND, "bu": "A", "bver": 5, "n": "u", "u": "V", "v": 120.1},
                {"n": "i", "t": -5, "v": 1},
            ],
            [
                {"name": "dev:u", "unit": "V", "value": 120.1, "time": MOMENT},
                {"name": "dev:i", "unit": "A", "value": 1, "time": MOMENT - timedelta(seconds=5)},
            ],
        ),
        ([{"bn": "a"}, {"v": 1}, {"bn": "b", "vs": "x"}], [{"name": "a", "value": 1}, {"name": "b", "value": "x"}]),
        ([{"n": "a", "vb": False}], {"name": "a", "value": False}),
        ([{"n": "a", "bv": 10, "v": 0.5, "bs": 1, "s": 2}], {"name": "a", "value": 10.5, "sum": 3}),
        ([{"n": "a", "s": 0.5}], {"name": "a", "sum": 0.5}),
        ([{"bn": "x", "bv": 5}, {"n": "a"}], {"name": "xa", "value": 5}),
        ([{"n": "a", "v": 1, "t": -(2**29)}], {"name": "a", "value": 1, "time_offset": -(2**29)}),
        ([{"n": "a", "v": 1, "t": -60}], {"name": "a", "value": 1, "time_offset": -60}),
        ([{"n": "a", "v": 1, "t": SECOND + 0.25}], {"name": "a", "value": 1, "time": MOMENT + timedelta(seconds=0.25)}),
        ([{"n": "a", "v": 1, "ut": 60, "note": "x"}], {"name": "a", "value": 1, "update_time": 60, "note": "x"}),
        ([{"bn": "only a base"}], []),
        ([{"bn": "a", "note": 1}, {"v": 1}, {"note": 1}, {}], {"name": "a", "value": 1}),
        ([{"n": "a", "v": 1, "value": 2, "label": 3}], {"name": "a", "value": 1, "label": {"value": 2, "label": 3}}),
        ([], []),
    ],
)
def test_base_values_are_worked_in(write: Any, pack: list[dict[str, Any]], data: Any) -> None:
    """A base value holds until the next one; a time that counts from now is not one of the calendar."""
    assert decoded("senml", write(pack)) == data


def test_data_is_bytes() -> None:
    """In JSON it is base64 for URLs, with or without padding; in CBOR it is bytes."""
    assert decoded("senml", in_json([{"n": "a", "vd": "_-8"}]))["value"] == b"\xff\xef"
    assert decoded("senml", in_json([{"n": "a", "vd": "aGkgCg=="}]))["value"] == b"hi \n"
    assert decoded("senml", in_cbor([{"n": "a", "vd": b"\xff"}]))["value"] == b"\xff"


def test_cbor_has_decimal_fractions() -> None:
    """They are numbers as all others."""
    assert decoded("senml", in_cbor([{"n": "a", "v": Decimal("1.5")}]))["value"] == 1.5


@both
@pytest.mark.parametrize(
    ("pack", "says"),
    [
        ([1], "record 1: it is not an object"),
        ([{"v": 1}], "record 1: it has no name"),
        ([{"n": "a", "v": 1}, {"n": "a"}], "record 2: it has no value"),
        ([{"n": "a", "v": 1, "vs": "kept-dark"}], "record 1: it has several values"),
        ([{"n": "a", "v": "kept-dark"}], "v is not a number"),
        ([{"n": "a", "v": True}], "v is not a number"),
        ([{"n": "a", "v": 10**400}], "v is too large"),
        ([{"n": "a", "vs": 1}], "vs is not text"),
        ([{"n": 1, "v": 1}], "n is not text"),
        ([{"n": "a", "vb": 1}], "vb is not true or false"),
        ([{"n": "a", "vd": "*"}], "vd is not base64"),
        ([{"n": "a", "v": 1, "bver": 11}], "bver is not a version up to 10"),
        ([{"n": "a", "v": 1, "kept-dark_": 1}], "a label that must be understood"),
        ([{"bn": "a", "kept-dark_": 1}, {"v": 1}], "record 1: it has a label that must be understood"),
        ([{"n": "a", "v": 1, "t": 1e300}], "beyond the year 9999"),
        ([{"bn": "x" * 300, "v": 1}], "its name or unit has more than 256 characters"),
    ],
)
def test_what_is_not_senml_has_a_reason(write: Any, pack: Any, says: str) -> None:
    """The reason names the record and repeats nothing of it."""
    payload = cbor2.dumps(pack) if write is in_cbor and pack == [1] else write(pack)
    told = refusal("senml", payload)
    assert says in told
    assert "kept-dark" not in told


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"", "empty payload"),
        (b'{"n": "a", "v": 1}', "not SenML: it is not a list"),
        (b"[1", "not JSON"),
        (b"\x81\xa1\x18\x63\x01", "a key of an object is a int, not text"),
        (b"\x82\xa0", "not CBOR"),
        (cbor2.dumps([{0: "a", 2: 1, "x": [[]] * 2}])[:-2], "not CBOR"),
    ],
)
def test_other_payloads_are_refused(payload: bytes, says: str) -> None:
    """What is neither JSON nor CBOR, and what is both but no list."""
    assert says in refusal("senml", payload)


def test_cbor_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON is read all the same."""
    monkeypatch.setitem(sys.modules, "amqtt_db.decode.cbor", None)
    assert refusal("senml", in_cbor([{"n": "a", "v": 1}])).endswith(install_hint("cbor"))
    assert decoded("senml", in_json([{"n": "a", "v": 1}])) == {"name": "a", "value": 1}


def test_deep_cbor_is_refused() -> None:
    """Also below a label that nobody knows."""
    deep: Any = 1
    for _ in range(300):
        deep = [deep]
    assert "nested" in refusal("senml", in_cbor([{"n": "a", "v": 1, "x": deep}]))


entries = st.fixed_dictionaries(
    {"n": st.text(min_size=1, max_size=20)},
    optional={
        "v": st.floats(allow_nan=False) | st.integers() | st.text(),
        "vs": st.text(),
        "vb": st.booleans(),
        "t": st.floats(allow_nan=False) | st.integers(),
        "bt": st.integers(),
        "bv": st.floats(),
        "s": st.none() | st.integers(),
    },
)


@given(st.lists(entries, max_size=4))
def test_both_forms_mean_the_same(pack: list[dict[str, Any]]) -> None:
    """A pack is decoded to the same records from JSON and CBOR, or refused in both."""
    assert _outcome(in_json(pack)) == _outcome(in_cbor(pack))


def _outcome(payload: bytes) -> Any:
    try:
        return decoded("senml", payload)
    except DecodeError as error:
        return str(error)


@given(st.binary(max_size=40))
def test_any_bytes_are_decoded_or_refused(payload: bytes) -> None:
    """Whatever is sent, the result is plain data within the bounds, or an error with a reason."""
    for start in (b"", b"\x81", b"\x81\xa2", b"["):
        check_any(plain_decoder("senml"), start + payload, dict)
