"""Numbers and text on the page read as people write them."""

from __future__ import annotations

import pytest

from amqtt_db.web.templating import format_bytes, format_number, format_rate, format_whole, make_visible


@pytest.mark.parametrize(
    ("rate", "text"), [(0.0, "0"), (0.0123, "0.0123"), (9.876, "9.88"), (372.598, "373"), (12_345.6, "12\u202f346")]
)
def test_a_rate_has_no_more_digits_than_anybody_reads(rate: float, text: str) -> None:
    """Three, or all before the point."""
    assert format_rate(rate) == text


def test_numbers_have_their_thousands_apart() -> None:
    """Whole ones, long ones, sizes; a minus is a minus."""
    assert format_whole(1_234_567) == "1\u202f234\u202f567"
    assert format_number(-1234.5) == "−1\u202f234.5"
    assert format_bytes(1_070_000_000) == "1.07 GB"


def test_what_cannot_be_seen_is_escaped() -> None:
    """A reversed writing direction or a control character shows as its code; other text is left alone."""
    shown = make_visible("a\u202eb\x07c é\n")
    assert "\u202e" not in shown
    assert "\x07" not in shown
    assert "é" in shown
