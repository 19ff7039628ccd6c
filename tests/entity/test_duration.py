"""One grammar for lengths of time, in the YAML and on the command line."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtt_db.cli.arguments import parse_pause, parse_time
from amqtt_db.config.yaml_checks import duration
from amqtt_db.config.yaml_checks import seconds as number_of_seconds
from amqtt_db.entity.duration import LONGEST_DAYS, format_duration, read_duration


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("90s", 90), ("90 sec", 90), ("5m", 300), ("5 min", 300), ("5 minutes", 300), ("24h", 86_400), ("1.5 h", 5400),
        ("7d", 604_800), ("90 days", 7_776_000), ("2W", 1_209_600), (" 1 week ", 604_800),
    ],
)  # fmt: skip
def test_every_notation_means_the_same_everywhere(written: str, seconds: int) -> None:
    """As long as it is in a key of the YAML, before now in an option, and as a pause."""
    length = timedelta(seconds=seconds)
    assert read_duration(written) == duration(written) == length
    if seconds < 1_000_000:
        assert number_of_seconds(written) == seconds
    assert abs(datetime.now(timezone.utc) - parse_time(written) - length) < timedelta(minutes=1)
    if seconds <= 86_400:
        assert parse_pause(written) == seconds


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("5 months", "vary in length"),
        ("1y", "vary in length"),
        ("5 fortnights", "unknown unit"),
        ("99999999 d", "36600"),
    ],
)
def test_what_is_no_length_of_time_is_told(written: str, says: str) -> None:
    """An unknown unit, one that varies, and more than a hundred years."""
    with pytest.raises(ValueError, match=says):
        duration(written)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("1d", "1 day"),
        ("2w", "14 days"),
        ("7200s", "2 h"),
        ("300s", "5 min"),
        ("1234567s", "1234567 s"),
        ("0.5s", "0.5 s"),
    ],
)
def test_a_length_of_time_is_shown_in_its_largest_whole_unit(written: str, shown: str) -> None:
    length = read_duration(written)
    assert length is not None
    assert format_duration(length) == shown


@given(st.timedeltas(timedelta(0), timedelta(days=LONGEST_DAYS)))
def test_a_length_of_time_is_shown_as_it_can_be_read(length: timedelta) -> None:
    """To a millisecond: a hundred years have too many microseconds for a double."""
    read = read_duration(format_duration(length))
    assert read is not None
    assert abs(read - length) < timedelta(milliseconds=1)
