"""Counting what a broker has dropped, from a counter that starts again with the broker."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from amqtt_db.ingest.bridge.drops import Drops


@given(st.integers(0, 9), st.lists(st.lists(st.integers(0, 9), min_size=1), max_size=5))
def test_drops_add_up_over_restarts_of_the_broker(before: int, lives: list[list[int]]) -> None:
    """What was dropped before the first look does not count; then nothing is counted twice or as less than nothing."""
    drops, counter, dropped = Drops().seen(before), before, 0
    for number, life in enumerate(lives):
        counter = counter if number == 0 else 0
        for more in life:
            counter += more
            dropped += more
            now = drops.seen(counter)
            assert drops.total <= now.total <= dropped
            drops = now
    if len(lives) < 2:
        assert drops.total == dropped
