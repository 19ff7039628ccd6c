"""Conversions that never guess."""

from __future__ import annotations

import base64
import math
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from amqtt_db.entity.strict import CONVERT, EPOCHS, LARGEST, SMALLEST, epoch_reader, strptime_reader
from amqtt_db.record import EPOCH

UTC = timezone.utc
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
moments = st.integers(0, 4 * 10**15).map(lambda to_micros: EPOCH + timedelta(microseconds=to_micros))


@pytest.mark.parametrize(
    ("kind", "raw", "value"),
    [
        (bool, True, True),
        (int, 762162.0, 762162),
        (int, -0.0, 0),
        (int, LARGEST, LARGEST),
        (int, SMALLEST, SMALLEST),
        (int, 1e18, 10**18),
        (float, 21, 21.0),
        (float, 2**60, float(2**60)),
        (float, Decimal("21.1"), 21.1),
        (float, math.inf, math.inf),
        (str, "", ""),
        (bytes, b"\0", b"\0"),
        (bytes, "AAEC", b"\0\1\2"),
        (Decimal, 5, Decimal(5)),
        (Decimal, 0.1, Decimal("0.1")),
        (Decimal, "-1.50e3", Decimal("-1.50e3")),
        (Decimal, Decimal("1.50"), Decimal("1.50")),
        (date, "2026-01-31", date(2026, 1, 31)),
        (date, date(2026, 1, 31), date(2026, 1, 31)),
        (time, "12:34", time(12, 34)),
        (time, "12:34:56", time(12, 34, 56)),
        (time, "12:34:56.7", time(12, 34, 56, 700000)),
        (time, "12:34:56.123456789Z", time(12, 34, 56, 123456)),
        (time, time(1, 2, tzinfo=UTC), time(1, 2)),
        (UUID, "12345678-1234-5678-1234-567812345678", UUID("12345678123456781234567812345678")),
        (UUID, "12345678123456781234567812345678", UUID("12345678123456781234567812345678")),
        (UUID, UUID(int=1), UUID(int=1)),
        (datetime, "2026-01-31T12:00:00Z", NOON),
        (datetime, "2026-01-31t12:00:00z", NOON),
        (datetime, "2026-01-31 12:00", NOON),
        (datetime, "2026-01-31T14:30:00+02:30", NOON),
        (datetime, "2026-01-31T11:00:00-0100", NOON),
        (datetime, "2026-01-31T14:00+02", NOON),
        (datetime, "2026-01-31T12:00:00.5", NOON.replace(microsecond=500000)),
        (datetime, "2026-01-31T12:00:00,123Z", NOON.replace(microsecond=123000)),
        (datetime, "2026-01-31T12:00:00.123456789Z", NOON.replace(microsecond=123456)),
        (datetime, datetime(2026, 1, 31, 12), NOON),  # noqa: DTZ001 - naive on purpose
        (datetime, NOON.astimezone(timezone(timedelta(hours=5))), NOON),
    ],
)
def test_a_value_of_the_type_is_taken(kind: type, raw: Any, value: Any) -> None:
    """The form that plain data has for it is taken too; the result is exactly of the type."""
    made = CONVERT[kind](raw)
    assert made == value
    assert type(made) is kind
    assert getattr(made, "tzinfo", None) in {None, UTC}


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (bool, 0),
        (bool, 1),
        (bool, "false"),
        (bool, "true"),
        (int, True),
        (int, 762162.1),
        (int, "12"),
        (int, "0xff"),
        (int, " 12 "),
        (int, "now"),
        (int, LARGEST + 1),
        (int, SMALLEST - 1),
        (int, 1e19),
        (int, math.nan),
        (int, math.inf),
        (float, True),
        (float, "21.5"),
        (float, 2**53 + 1),
        (float, 10**400),
        (float, Decimal("1E+1000000000")),
        (str, 5),
        (str, b"x"),
        (str, True),
        (bytes, "a b"),
        (bytes, "ä"),
        (bytes, 5),
        (Decimal, True),
        (Decimal, "NaN"),
        (Decimal, "1_000"),
        (Decimal, " 1 "),
        (Decimal, "٣"),
        (Decimal, math.nan),
        (Decimal, Decimal("Infinity")),
        (date, "20260131"),
        (date, "2026-02-30"),
        (date, "2026-01-31T00:00:00"),
        (date, NOON),
        (date, 5),
        (time, "24:00"),
        (time, "12"),
        (time, "12:34+02:00"),
        (time, 12),
        (UUID, "{12345678123456781234567812345678}"),
        (UUID, "1-2345678123456781234567812345678"),
        (UUID, 5),
        (datetime, "now"),
        (datetime, "2026-01-31"),
        (datetime, "2026-01-31T24:00:00"),
        (datetime, "2026-02-30T12:00:00"),
        (datetime, "2026-01-31T12:00:00+25:00"),
        (datetime, " 2026-01-31T12:00:00"),
        (datetime, "0001-01-01T00:00:00+01:00"),
        (datetime, 1700000000),
        (datetime, date(2026, 1, 31)),
        *((kind, None) for kind in CONVERT),
        *((kind, []) for kind in CONVERT),
        *((kind, {}) for kind in CONVERT),
    ],
)
def test_a_value_of_another_type_is_refused(kind: type, raw: Any) -> None:
    """A value that would have to be guessed, rounded or cut is refused."""
    with pytest.raises((ValueError, OverflowError)):
        CONVERT[kind](raw)


@pytest.mark.parametrize("kind", CONVERT)
def test_a_subclass_becomes_the_type_itself(kind: type) -> None:
    """Databases know no subclasses of text and numbers."""
    if kind in {int, float, str, bytes}:
        made = CONVERT[kind](type("Own", (kind,), {})())
        assert made == kind()
        assert type(made) is kind


@given(st.binary())
def test_base64_is_bytes(data: bytes) -> None:
    """Any bytes come through JSON as base64."""
    assert CONVERT[bytes](base64.b64encode(data).decode()) == data


@given(moments, st.timedeltas(timedelta(hours=-23), timedelta(hours=23)))
def test_iso_texts_of_python_are_read(moment: datetime, offset: timedelta) -> None:
    """To the microsecond, whatever the time zone."""
    offset = timedelta(minutes=offset // timedelta(minutes=1))
    assert CONVERT[datetime](moment.astimezone(timezone(offset)).isoformat()) == moment


@given(moments)
@example(datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=UTC))
def test_counts_since_1970_are_exact_to_the_microsecond(moment: datetime) -> None:
    """In every unit, as integer, float, Decimal and text."""
    to_micros = (moment - EPOCH) // timedelta(microseconds=1)
    for per_second in EPOCHS.values():
        read = epoch_reader(per_second)
        exact = Decimal(to_micros) * per_second / 10**6
        assert read(exact) == read(str(exact)) == read(moment) == moment
        assert read(float(exact)) == moment
        assert read(int(exact)) == EPOCH + timedelta(microseconds=int(exact) * 10**6 // per_second)


def test_what_is_finer_than_a_microsecond_is_dropped() -> None:
    """Digits beyond microseconds are dropped; before 1970 that means an earlier time."""
    read = epoch_reader(10**9)
    assert read(1_999) == read("1999") == EPOCH + timedelta(microseconds=1)
    assert read(-1) == read("-1") == EPOCH - timedelta(microseconds=1)


@pytest.mark.parametrize("unit", EPOCHS)
@pytest.mark.parametrize(
    "raw",
    [True, None, "now", " 1 ", "0xff", math.nan, math.inf, 10**40, 1e300, Decimal("1E+999999999"), "1E99", [], b"1"],
)
def test_what_counts_nothing_is_refused(unit: str, raw: Any) -> None:
    """No time is made up for a value that is not a time, or that lies beyond the calendar."""
    with pytest.raises((ValueError, OverflowError, OSError)):
        epoch_reader(EPOCHS[unit])(raw)


def test_times_in_a_layout_of_ones_own() -> None:
    """As strptime reads them, in UTC unless the text says otherwise."""
    assert strptime_reader("%d.%m.%Y %H:%M")("31.01.2026 12:00") == NOON
    assert strptime_reader("%d.%m.%Y %H:%M %z")("31.01.2026 14:00 +0200") == NOON
    with pytest.raises(ValueError, match="does not match"):
        strptime_reader("%d.%m.%Y")("2026-01-31")
    with pytest.raises(ValueError, match="declared type"):
        strptime_reader("%Y")(2026)


@pytest.mark.parametrize("layout", ["%Q", "100%", "%d%"])
def test_a_layout_that_strptime_does_not_know_is_refused(layout: str) -> None:
    """When it is configured, not with every message."""
    with pytest.raises(ValueError, match="is not a strptime format"):
        strptime_reader(layout)
