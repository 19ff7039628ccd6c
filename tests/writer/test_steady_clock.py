"""The clock of retention believes no leap of the system's clock until it has been steady for an hour."""

from __future__ import annotations

import logging
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtt_db.writer.steady_clock import LEAP, SteadyClock
from tests.workbench import ARRIVAL, Workbench

DAY = 86_400.0
YEAR = 365 * DAY


@attrs.define
class World:
    """Two clocks of a machine, and a steady one that reads them."""

    wall: float = 1_000_000_000.0
    monotonic: float = 50.0

    def clock(self, last: float | None = None) -> SteadyClock:
        """Return a clock of a process that begins now."""
        clock = SteadyClock(lambda: self.wall, lambda: self.monotonic)
        clock.start(last)
        return clock

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.wall += seconds
        self.monotonic += seconds


def test_it_tells_the_systems_time() -> None:
    """Also when that is put right by a little, or back."""
    world = World()
    clock = world.clock()
    for seconds, leap in ((0.0, 0.0), (60.0, 0.0), (60.0, 59.0), (3600.0, -7200.0), (60.0, 0.0)):
        world.run(seconds)
        world.wall += leap
        assert clock.now() == world.wall


def test_a_leap_is_believed_after_an_hour(caplog: pytest.LogCaptureFixture) -> None:
    """Until then the old time goes on; that is logged once."""
    world = World()
    clock, old = world.clock(), world.wall
    world.wall += YEAR
    assert clock.now() == old
    for _ in range(59):
        world.run(60)
        clock.now()
    assert clock.now() == old + 59 * 60
    world.run(60)
    assert clock.now() == world.wall
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "365 days" in caplog.text


def test_a_leap_that_is_taken_back_leaves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A clock that was a year ahead for a minute."""
    world = World()
    clock = world.clock()
    world.wall += YEAR
    world.run(75)
    clock.now()
    world.wall -= YEAR
    world.run(60)
    assert clock.now() == world.wall
    assert len(caplog.records) == 1


@pytest.mark.parametrize(("pause", "is_believed"), [(6 * DAY, True), (8 * DAY, False), (-YEAR, True)])
def test_a_process_that_begins_long_after_the_last_one_doubts(pause: float, is_believed: bool) -> None:
    """The time that was told last is noted in the database."""
    world = World()
    last = world.wall
    world.wall += pause
    clock = world.clock(last)
    assert clock.now() == (world.wall if is_believed else last)
    world.run(3600)
    assert clock.now() == world.wall


@given(st.lists(st.tuples(st.floats(0, 5000), st.floats(-YEAR, YEAR)), max_size=30))
def test_it_is_never_ahead_of_what_could_be(steps: list[tuple[float, float]]) -> None:
    """It never runs ahead of the system's clock by more than doubt allows, nor of the time that really passed."""
    world = World()
    clock = world.clock()
    before, passed = clock.now(), 0.0
    for seconds, leap in steps:
        world.run(seconds)
        world.wall += leap
        passed = seconds
        now = clock.now()
        assert now <= before + passed + LEAP + 1e-3 or now == world.wall
        before = now


def test_nothing_is_deleted_by_a_clock_that_leaps(tmp_path: Path) -> None:
    """A clock that is a year ahead, in a running writer or at its start, deletes nothing too early."""
    bench = Workbench(tmp_path, {"topic": "#", "keep": "30 days"})
    bench.send(("t", {"v": 1}), ("t", {"v": 2}))
    wall = [ARRIVAL / 1_000_000]
    for _ in range(2):
        bench.writer.retention._clock = SteadyClock(lambda: wall[0], lambda: 0.0)
        bench.writer.retention._is_clock_set = False
        bench.writer.retention.finish()
        wall[0] += YEAR
        bench.writer.retention.finish()
    assert len(bench.records()) == 2
