"""Numbers in sentences."""

from __future__ import annotations

from amqtt_db.errors import format_count


def test_one_is_no_plural() -> None:
    """And none is one."""
    assert [format_count(number, "row") for number in (0, 1, 2)] == ["0 rows", "1 row", "2 rows"]
    assert [format_count(number, "property", "properties") for number in (1, 5)] == ["1 property", "5 properties"]
