"""Sums of records that are gone, in a copy and under another name: each message counts once, whatever the steps are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
from typer.testing import CliRunner

from amqtt_db.cli import app
from amqtt_db.reader.rollup import read_rollup
from amqtt_db.record import Record
from amqtt_db.writer.copying import CopiedTopic, Copier
from amqtt_db.writer.importing import Importer, Survey
from amqtt_db.writer.renaming import Renamer
from tests.workbench import Workbench, routes
from tests.writer.rollup_life import HOUR, MINUTE, START, Said, aggregate, make_route, require_exact
from tests.writer.test_deletion import workshop

_SEVENTHS = [{"every": "7 min"}]
_LONGER = [{"every": "15 min"}, {"every": "1 h"}]


def _fill(bench: Workbench, *topics: str) -> list[Said]:
    """Store three hours of messages, one in 40 s on each topic, and sum up and delete what is older than 30 minutes."""
    sent = [
        (topic, {"at": START + 40 * n + number / 8, "temp": n % 11 - 5, "door": ("open", "shut")[n // 7 % 2]})
        for n in range(270)
        for number, topic in enumerate(topics)
    ]
    bench.send(*sent)
    bench.now = START + 3 * HOUR + 100
    bench.writer.retention.finish()
    assert 0 < len(bench.records()) < len(sent) / 4
    return sent


@pytest.mark.slow
@pytest.mark.parametrize(
    ("short", "new_steps", "shown"),
    [
        ({"every": "5 min"}, [{"every": "5 min"}, {"every": "1 h"}], 5 * MINUTE),
        ({"every": "5 min"}, _LONGER, 15 * MINUTE),
        ({"every": "5 min", "keep": "90 min"}, [{"every": "5 min"}, {"every": "1 h"}, {"every": "7 h"}], 7 * HOUR),
    ],
)
def test_a_copy_counts_once_what_expires_meanwhile(tmp_path: Path, short: Any, new_steps: Any, shown: int) -> None:
    """Records expire in the old database after they have been copied; the new route's intervals may be longer."""
    bench = Workbench(tmp_path, route := make_route(keep="30 min", rollup=[short, {"every": "1 h"}]))
    sent = _fill(bench, "t/a", "t/b")
    (tmp_path / "new").mkdir()
    target = f"sqlite:///{tmp_path / 'new' / 'mqtt.db'}"
    new = {**route, "rollup": new_steps}
    for _ in range(2):
        copier = Copier(bench.url, target, routes(new, url=target))
        for step in copier.copy():
            if isinstance(step, CopiedTopic):
                bench.now += 6 * MINUTE
                bench.writer.retention.finish()
        copier.close()
    other = Workbench(tmp_path / "new", new)
    other.position = bench.position
    times = [("t/a", 2 * HOUR + 7), ("t/b", 0.5), ("t/b", 3 * HOUR + 95)]
    other.send(*(late := [(topic, {"at": START + second, "temp": 100}) for topic, second in times]))
    other.now = bench.now
    other.writer.retention.finish()
    require_exact(target, [*sent, *late], shown, HOUR)


def test_a_copy_with_other_steps_has_the_sums_of_what_it_has(tmp_path: Path) -> None:
    """It has none where no interval can be made of the old ones."""
    bench = Workbench(tmp_path, route := make_route(keep="30 min"))
    _fill(bench, "t/a")
    (tmp_path / "new").mkdir()
    target = f"sqlite:///{tmp_path / 'new' / 'mqtt.db'}"
    copier = Copier(bench.url, target, routes(new := {**route, "rollup": _SEVENTHS}, url=target))
    list(copier.copy())
    copier.close()
    other = Workbench(tmp_path / "new", new)
    other.now = bench.now
    left = [(one.topic, {**one.data(), "at": one.time_us / 1_000_000}) for one in other.records()]
    other.writer.retention.finish()
    require_exact(target, left, 7 * MINUTE)


@pytest.mark.slow
def test_a_renamed_topic_takes_its_sums_along(tmp_path: Path) -> None:
    """To a route with longer intervals, also when records were deleted while nobody summed up; otherwise it asks."""
    old, new = make_route(topic="t/a", keep="30 min"), make_route(topic="u/+", rollup=_LONGER, keep="25 min")
    bench = Workbench(tmp_path, old, new)
    sent = _fill(bench, "t/a", "u/b")
    off = {key: value for key, value in old.items() if key != "rollup"}
    bench.restart(off, new)
    bench.now += 6 * MINUTE
    bench.writer.retention.finish()
    bench.close()
    config = tmp_path / "amqtt-db.yaml"
    config.write_text(f"broker: mqtt://localhost\ndatabase: {bench.url}\nroutes: [{{topic: '#', time: at}}]\n")
    said = CliRunner().invoke(app, ["rename", "t/a", "v", str(config)], input="n\n")
    assert "without the sums of deleted records, because its route has no `rollup` for them?" in said.output
    assert said.exit_code == 1
    said = CliRunner().invoke(app, ["rename", "t/a", "v", str(config), "--dry-run"])
    assert "would be renamed to v, without the sums of deleted records" in " ".join(said.output.split())
    with workshop(bench, off, new) as shop:
        renamer = Renamer(shop)
        assert not renamer.loses_sums("t/a", "u/b")
        list(renamer.rename("t/a", "u/b"))
    bench.open()
    bench.writer.retention.finish()
    numbers = [("u/b", {path: value for path, value in data.items() if path != "door"}) for _, data in sent]
    for every in (15 * MINUTE, HOUR):
        found = [one for one in read_rollup(bench.url, every=f"{every} s") if one.path == "temp"]
        assert found == list(aggregate(numbers, every))


def _import(bench: Workbench, route: dict[str, Any], records: list[Record]) -> None:
    """Import records of another database, as the command does; nothing is summed up yet."""
    survey = Survey.of(records, routes(route), "other")
    with workshop(bench, route) as shop:
        importer = Importer(shop, lambda: iter(records), survey, "other")
        importer.check()
        list(importer.store())


def test_each_late_record_counts_once(tmp_path: Path) -> None:
    """Imports whose ids lie between each other, and a dead letter that is replayed before anything is summed up."""
    strict = make_route(
        keep="30 min", entity={"temp": "float", "mode": "float", "door": "str", "at": "float"}, mismatch="reject"
    )
    bench = Workbench(tmp_path, strict)
    sent = _fill(bench, "t/a")
    lax = {**strict, "mismatch": "variant", "keep": None}
    bench.restart({**strict, "keep": None})
    sent += (late := [("t/a", {"at": START + second, "temp": second}) for second in (7, 8, 9)])
    bench.send(*late)
    bench.writer.retention.finish()
    records = [attrs.evolve(one, time_us=one.time_us + 500_000) for one in bench.records()[-3:]]
    for some in (records[1:2], records):
        _import(bench, lax, some)
        bench.writer.retention.finish()
    sent += [("t/a", {"at": START + second + 0.5, "temp": second}) for second in (7, 8, 9)]
    values: list[dict[str, Any]] = [{"temp": 0}, {"mode": "hot"}, {"temp": 2}]
    sent += (late := [("t/a", {"at": START + 20 + n, **some}) for n, some in enumerate(values)])
    bench.send(*late)
    bench.restart(lax)
    assert bench.writer.replay_one(bench.dead()[0].id) is None
    bench.writer.retention.finish()
    require_exact(bench.url, sent)


def test_imported_records_are_summed_up_before_they_expire(tmp_path: Path) -> None:
    """Into a database that has none of them, however old they are; importing them once more changes nothing."""
    bench = Workbench(tmp_path, make_route(topic="#"))
    bench.send(*(sent := [("t/a", {"at": START + 40 * n, "temp": n, "door": "open"}) for n in range(60)]))
    records = bench.records()
    (tmp_path / "new").mkdir()
    other = Workbench(tmp_path / "new", route := make_route(keep="30 min"))
    other.now = START + 5 * HOUR
    for _ in range(2):
        _import(other, route, records)
    other.writer.retention.finish()
    assert not other.records()
    require_exact(other.url, sent)
