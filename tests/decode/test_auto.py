"""`auto` takes what devices send: JSON where it is JSON, else text, else bytes."""

from __future__ import annotations

import gzip
import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from amqtt_db.decode import EMPTY
from amqtt_db.errors import DecodeError
from tests.decode.vectors import plain_decoder
from tests.values import json_values, same

auto = plain_decoder("auto")


@pytest.mark.parametrize(
    ("payload", "data"),
    [
        (b'{"temp": 21.5}', {"temp": 21.5}),
        (b"21.5", 21.5),
        (b" 7 \r\n", 7),
        (b'"on"', "on"),
        (b"true", True),
        (b"null", None),
        (b"ON", "ON"),
        (b"0042", "0042"),
        (b"1,5", "1,5"),
        (b"30.11 \xc2\xb0C", "30.11 °C"),
        (b"2026-11-27", "2026-11-27"),
        (b"1e999", "1e999"),
        (b"12345678901234567890123", 12345678901234567890123),
        (b"-", "-"),
        (b'"half', '"half'),
        (b"\xef\xbb\xbfON", "ON"),
        (b"\xef\xbb\xbf{}", {}),
        (b"ON\0\0", "ON"),
        (b'{"a": 1}\0', {"a": 1}),
        (b"21.5\0", 21.5),
        (b"<a>1</a>", "<a>1</a>"),
        (b"\x1b[0;32m[D][main:1]: on\x1b[0m", "\x1b[0;32m[D][main:1]: on\x1b[0m"),
        (b"[D][light:049]:   State: OFF", "[D][light:049]:   State: OFF"),
        (b"[12:00:01] started", "[12:00:01] started"),
        (b"\0", b"\0"),
        (b"\xff\xfe\x01", b"\xff\xfe\x01"),
        (b"\x80abc", b"\x80abc"),
    ],
)
def test_payloads_as_devices_send_them(payload: bytes, data: Any) -> None:
    """Each payload becomes what a human reader would expect."""
    found = auto(payload)
    assert found == data
    assert type(found) is type(data)


def test_what_only_python_takes_for_json_is_a_number() -> None:
    """Devices do send NaN and Infinity."""
    assert math.isnan(auto(b"NaN"))
    assert auto(b'{"a": -Infinity}') == {"a": -math.inf}


def test_an_empty_payload_makes_no_record() -> None:
    """It clears a retained message."""
    assert auto(b"") is EMPTY
    assert plain_decoder(["gzip", "auto"])(gzip.compress(b"")) is EMPTY


@pytest.mark.parametrize(
    "payload", [b'{"a": ', b"[1, 2", b" {", b"\xef\xbb\xbf{a}", b"{\xff}", b"[" * 300 + b"]" * 300]
)
def test_half_an_object_is_refused(payload: bytes) -> None:
    """A payload that begins like an object or a list is not taken as text."""
    with pytest.raises(DecodeError):
        auto(payload)


@given(json_values)
def test_json_is_what_json_says(value: Any) -> None:
    """All JSON is decoded as by ``json``."""
    payload = json.dumps(value).encode()
    assert same(auto(payload), plain_decoder("json")(payload))


@given(st.text().filter(lambda text: text.strip("\ufeff\0 \t\r\n")[:1] not in ("", "{", "[", '"')))
@example("\f{")
def test_text_is_kept(text: str) -> None:
    """Text that is not JSON is kept, without a byte order mark or null characters at its end."""
    found = auto(text.encode())
    if isinstance(found, str):
        assert found == text.removeprefix("\ufeff").rstrip("\0")
    else:
        assert same(found, plain_decoder("json")(text.encode()))


@given(st.binary())
def test_nothing_is_lost_of_other_bytes(payload: bytes) -> None:
    """Whatever is neither JSON nor text is kept byte by byte, or refused."""
    try:
        found = auto(payload)
    except DecodeError:
        return
    if isinstance(found, bytes):
        assert found == payload
