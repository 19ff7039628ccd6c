"""Times of events and times that users write: one strict parser, the same answer on every Python."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from amqtt_db.entity.timestamp import event_time, read_time
from amqtt_db.record import to_micros

MOMENT = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    "text",
    [
        "1770121500000",  # digits alone: an epoch as text, or 17701215 in Python 3.11's eyes
        "20231114",
        "20260131T120000Z",
        "2026-W05-6",
        "2026-031",
        "2026-01-31T12",
        "2026-1-31",
        "12:00",
        "2026-01-31T24:00:00",
        "2026-02-30",
        "\u0662\u0660\u0662\u0666-01-31",  # digits, but not ASCII
        " 2026-01-31",
        "now",
        "",
    ],
)
def test_text_that_is_no_time_is_not_guessed_at(text: str) -> None:
    """It has no event time, so the arrival is taken; Pythons from 3.11 on would read some of it as a date."""
    assert event_time(text) is None
    with pytest.raises(ValueError, match="is not a time; write ISO 8601"):
        read_time(text)


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31T12:00:00Z",
        "2026-01-31 12:00",
        "2026-01-31t13:00:00+01:00",
        "2026-01-31T12:00:00.000000000",
        "2026-01-31T17:45+0545",
    ],
)
def test_text_that_is_a_time(text: str) -> None:
    """ISO 8601 with or without seconds, fractions and a zone; none means UTC."""
    assert event_time(text) == to_micros(MOMENT)
    assert read_time(text) == MOMENT


def test_a_date_is_its_midnight() -> None:
    """In UTC, for events as for users."""
    assert event_time("2026-01-31") == to_micros(datetime(2026, 1, 31, tzinfo=timezone.utc))
    assert read_time("2026-01-31") == datetime(2026, 1, 31, tzinfo=timezone.utc)


def test_how_long_ago() -> None:
    """`24h` is a day before now; what is before all times is a mistake."""
    before = datetime.now(timezone.utc)
    assert before <= read_time("24h") + timedelta(hours=24) <= datetime.now(timezone.utc)
    with pytest.raises(ValueError, match="is not a time"):
        read_time("999999999w")
