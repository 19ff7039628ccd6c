"""Keys of lookup tables that nothing refers to are forgotten; no record ever gets another key's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from amqtt_db import latest
from amqtt_db.writer import retention, stale_keys
from amqtt_db.writer.transaction import CheckpointMoved
from tests.database.engines.servers import Site
from tests.models.test_lookup_names import MODEL
from tests.workbench import Sent, Workbench

HOUR, DAY = 3600.0, 86_400.0
LOOKUPS = {"mqtt_topic": "topic", "mqtt_property": "property", "mqtt_series": "property", "device": "device"}


def _keys(bench: Workbench, lookup: str) -> list[str]:
    """The keys of a lookup, in the order in which they came."""
    return [row[0] for row in bench.sql(f"SELECT {LOOKUPS[lookup]} FROM {lookup} ORDER BY id")]


def _after_a_day(bench: Workbench) -> None:
    """Let everything grow old, and let a round do what is done once a day."""
    bench.writer.retention.finish()
    bench.now += DAY + HOUR
    bench.writer.retention.finish()


def _at(bench: Workbench, **values: Any) -> dict[str, Any]:
    return {"at": bench.now, **values}


def test_what_nothing_refers_to_goes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """In steps, however the keys lie; what a record or a newest value still needs stays, and so does the newest key."""
    monkeypatch.setattr(stale_keys, "KEYS_AT_ONCE", 3)
    old = {"keep": "1 h", "time": "at"}
    bench = Workbench(
        site,
        {"topic": "e/#", "model": "eav", **old},
        {"topic": "n/#", "model": "narrow", **old},
        {"topic": "#", "model": "narrow", "latest": True},
    )
    gone = [(f"{'en'[n % 2]}/{n}", {f"p{n}": n, "q": n, "at": 1}) for n in range(10)]
    bench.send(*gone[:5], ("kept", {"p3": 1, "r": 2}), *gone[5:])
    bench.send(("e/late", _at(bench, v=1)), ("n/late", _at(bench, v=1)))
    _after_a_day(bench)
    assert [(record.topic, record["p3"], record["r"]) for record in bench.records()] == [("kept", 1.0, 2.0)]
    assert {"kept"} < set(_keys(bench, "mqtt_topic")) <= {"kept", "e/late", "n/late"}
    assert {"p3", "r"} < set(_keys(bench, "mqtt_property")) < {"p3", "r", "at", "v"}
    assert {"p3", "r"} < set(_keys(bench, "mqtt_series")) < {"p3", "r", "at", "v"}
    assert [len(_keys(bench, lookup)) for lookup in ("mqtt_topic", "mqtt_property", "mqtt_series")] == [2, 3, 3]
    (state,) = latest(bench.url)
    assert state.values == {"p3": 1.0, "r": 2.0}


def test_a_users_lookup(tmp_path: Path) -> None:
    """The tables of users' models are asked as well."""
    kept, old = ({MODEL: {"table": name}} for name in ("kept", "old"))
    bench = Workbench(tmp_path, {"topic": "a/+", "model": old, "keep": "1 h"}, {"topic": "b/+", "model": kept})
    bench.send(*((f"a/{n}", {"v": n}) for n in range(5)), *((f"b/{n}", {"v": n}) for n in (1, 3)))
    _after_a_day(bench)
    left = set(_keys(bench, "device"))
    assert {"1", "3"} <= left
    assert len(left) <= 3
    assert len(bench.records()) == 2


def test_a_writer_never_uses_an_id_that_is_forgotten(site: Site) -> None:
    """It has to look again, also if its ids are older than the forgetting; views show the property again."""
    entry = {"topic": "#", "model": "eav", "keep": "1 h", "time": "at"}
    bench = Workbench(site, entry)
    bench.send(("t", _at(bench, v=1)), ("t", _at(bench, w=1)), ("t", _at(bench, x=1)))
    bench.writer._views.finish()
    other = Workbench(site, entry, token="b")
    other.send(("t", _at(other, v=1)))
    _after_a_day(bench)
    assert bench.records() == []
    assert len(_keys(bench, "mqtt_property")) == 1
    for one in (other, bench):
        one.now = bench.now
        late = one.batch(Sent("t", _at(one, v=2, w=3)))
        with pytest.raises(CheckpointMoved):
            one.store(late)
        one.restart()
        one.store(late)
        one.writer._views.finish()
    assert [(record["v"], record["w"]) for record in bench.records()] == [(2.0, 3.0)] * 2
    assert bench.sql("SELECT v, w FROM all_view") == [(2.0, 3.0)] * 2


@pytest.mark.slow
def test_forgetting_goes_on_after_the_writer_has_started_afresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever forgets topics must start afresh before the next message: the rest is not left for another day."""
    monkeypatch.setattr(retention, "FORGET_AT_ONCE", 2)
    monkeypatch.setattr(retention, "SLICE", 0.0)
    bench = Workbench(tmp_path, {"topic": "t/+", "model": "eav", "keep": "1 h"})
    bench.send(*((f"t/{n}", {f"p{n}": n}) for n in range(7)))
    bench.writer.retention.finish()
    bench.now += DAY + HOUR
    tables = ("mqtt_assignment", "mqtt_topic", "mqtt_property")
    left = [7, 7, 7]
    for _ in range(10):
        bench.restart()
        before = left
        for _ in range(100):
            bench.writer.retention.step(quiet=True)
            left = [bench.sql(f"SELECT count(*) FROM {table}")[0][0] for table in tables]
            if left[0] != before[0]:
                break  # the next message would end this writer
    assert left == [0, 1, 1]


def test_nothing_goes_while_unknown_rows_might_refer_to_it(tmp_path: Path) -> None:
    """A table that no known model explains may refer to any key, unless it is empty."""
    bench = Workbench(tmp_path, {"topic": "t/#", "model": "eav", "keep": "1 h"}, {"topic": "#", "model": "document"})
    bench.send(*((f"t/{n}", {f"p{n}": 1}) for n in range(4)), ("u", {"v": 1}))
    bench.sql("UPDATE mqtt_table SET key = '$table/unknown' WHERE name = 'mqtt_document'")
    before = _keys(bench, "mqtt_topic"), _keys(bench, "mqtt_property")
    _after_a_day(bench)
    assert (_keys(bench, "mqtt_topic"), _keys(bench, "mqtt_property")) == before
    bench.sql("DELETE FROM mqtt_document")
    bench.now += DAY
    bench.writer.retention.finish()
    assert _keys(bench, "mqtt_topic") == before[0][-1:]
