"""Numbers in sentences."""

from __future__ import annotations

from amqtt_db.wording import counted


def test_one_is_no_plural() -> None:
    """And none is one."""
    assert [counted(number, "row") for number in (0, 1, 2)] == ["0 rows", "1 row", "2 rows"]
    assert [counted(number, "property", "properties") for number in (1, 5)] == ["1 property", "5 properties"]
