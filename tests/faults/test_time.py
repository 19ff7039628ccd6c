"""Clocks that jump, and unusual times: every message is stored, in order of arrival."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from tests.faults.conftest import Count
from tests.faults.load import Ledger, Load
from tests.faults.scene import Scene
from tests.integration.broker import RawClient

JUMPING = """
import pathlib, sys, time
real, offset = time.time_ns, pathlib.Path("offset")
time.time_ns = lambda: real() + int(float(offset.read_text()) * 1e9)
time.time = lambda: time.time_ns() / 1e9
from amqtt.scripts.broker_script import main
main()
"""
HOUR, YEAR = 3600, 365 * 86400

TIMES = {
    "0001-01-01T00:00:00": "0001-01-01 00:00:00.000000",
    "9999-12-31T23:59:59.999999": "9999-12-31 23:59:59.999999",
    "2026-03-29T02:30:00": "2026-03-29 02:30:00.000000",
    "2026-10-25T02:30:00+02:00": "2026-10-25 00:30:00.000000",
    "2026-10-25T02:30:00+01:00": "2026-10-25 01:30:00.000000",
    "0001-01-01T00:00:00+14:00": None,
    "9999-12-31T23:59:59-12:00": None,
    "2026-02-30T00:00:00": None,
    "yesterday": None,
}
"""Payload → the value in the column of its declared type; None: the text is kept in a separate column."""


@pytest.mark.fault("the clock set back an hour and forward a year")
def test_a_clock_that_jumps(tmp_path: Path, count: Count, round_: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids go on in the order of arrival, times are the clock's in UTC, and nothing waits for the clock to come back."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    (tmp_path / "offset").write_text("0")
    scene = Scene(tmp_path, jumping=JUMPING)
    ledger = Ledger()
    with scene:
        for number, offset in enumerate((0, -HOUR, YEAR, 0)):
            partial = tmp_path / "offset.new"
            partial.write_text(str(offset))
            partial.replace(tmp_path / "offset")
            ledger.add(Load(scene.port, 3, most=100, first=1000 * number).finished())
        verdict = scene.judge(ledger)
        assert verdict.stored == len(ledger.sent)
        numbers = [int(n) // 1000 for (n,) in scene.sql("SELECT n FROM loads ORDER BY id")]
        assert numbers == sorted(numbers)
        for number, offset in enumerate((0, -HOUR, YEAR, 0)):
            here = f"n BETWEEN {1000 * number} AND {1000 * number + 99}"
            ((first,),) = scene.sql(f"SELECT min(time) FROM loads WHERE {here}")
            wanted = datetime.now(timezone.utc) + timedelta(seconds=offset)
            assert abs(datetime.fromisoformat(first).replace(tzinfo=timezone.utc) - wanted) < timedelta(minutes=5)
        count(verdict)
        scene.kill_both()


@pytest.mark.fault("payload times in year 1 and 9999, in gaps of summer time, and none at all")
def test_times_in_payloads(tmp_path: Path, count: Count, round_: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a payload gives as its time is stored: as a time where it is one, as it came where it is not."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    entity = {"at": {"type": "datetime"}}
    routes = [{"topic": "t", "model": {"wide": {"table": "times"}}, "entity": entity, "time": "at"}]
    with Scene(tmp_path, routes=routes) as scene:
        with RawClient(scene.port, "c") as client:
            client.publish("t", [{"at": time} for time in TIMES], 1)
            assert len(client.acknowledged(len(TIMES))) == len(TIMES)
        scene.settle()
        rows = scene.sql("SELECT at, at__text FROM times ORDER BY id")
        assert rows == [(time, None if time else given) for given, time in TIMES.items()]
        count(scene.verdict(Ledger(acknowledged={(0, number) for number in range(len(TIMES))}), len(rows)))
