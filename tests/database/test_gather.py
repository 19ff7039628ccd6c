"""``gather``: a view with a row per device and interval, the same whatever the model and the engine."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from amqtt_db.config import load_section
from amqtt_db.errors import ConfigError
from amqtt_db.record import EPOCH, Record
from tests.database.engines.servers import Site
from tests.workbench import Workbench

NAMES = ("temp", "state", "power")

Rows = dict[tuple[str, int], dict[str, Any]]


def gathered(records: Iterable[Record], device: str, seconds: int) -> Rows:
    """By device and start of the interval, the last value of each property."""
    found: Rows = {}
    for record in sorted(records, key=lambda one: (one.time_us, one.id)):
        start = record.time_us // 1_000_000 // seconds * seconds
        found.setdefault((str(record.get(device, record.topic)), start), {}).update(record.data())
    return found


def shown(bench: Workbench, view: str, device: str) -> Rows:
    """The rows of a view, with the starts of their intervals as seconds since 1970."""
    rows = bench.sql(f"SELECT {device}, time, {', '.join(NAMES)} FROM {view}")
    named = [(row[0], seconds_of(row[1]), dict(zip(NAMES, row[2:], strict=True))) for row in rows]
    found = {
        (name, time): {path: value for path, value in values.items() if value is not None}
        for name, time, values in named
    }
    assert len(found) == len(rows)
    return found


def seconds_of(time: Any) -> int:
    """A time as the driver returns it: text on SQLite, without a zone on MariaDB."""
    moment = datetime.fromisoformat(time) if isinstance(time, str) else time
    return int((moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)).timestamp())


@pytest.mark.slow
@pytest.mark.parametrize("model", [{"wide": {"table": "sh_device_name"}}, "eav", "narrow", "document"], ids=str)
def test_the_properties_of_a_device_are_in_one_row(model: Any, site: Site) -> None:
    """The last value of each in an interval, if each comes under a topic of its own."""
    route = {"topic": "sh/{device}/{name}", "property": "{name}", "model": model, "gather": "10 s"}
    bench, chance = Workbench(site, route), random.Random(5)
    names = chance.choices(NAMES, k=60)
    bench.send(*((f"sh/{chance.choice('ab')}/{name}", str(number).encode()) for number, name in enumerate(names)))
    bench.writer.finish_views(lambda: False)
    expected = gathered(bench.records(), "{device}", 10)
    assert shown(bench, "sh_device_name_view", "device") == expected
    assert any(len(values) == 3 for values in expected.values())


@pytest.mark.parametrize("model", [{"wide": {"table": "home"}}, "eav", "narrow", "document"], ids=str)
def test_intervals_are_counted_from_1970(model: Any, site: Site) -> None:
    """Before it too; late messages are in their own interval, and a topic is a device."""
    bench = Workbench(site, {"topic": "home/+", "model": model, "time": "t", "gather": "7 s"})
    chance = random.Random(7)
    bench.send(
        *(
            (f"home/{chance.choice('ab')}", {"t": chance.randint(-30, 30), chance.choice(NAMES): float(number)})
            for number in range(60)
        )
    )
    bench.writer.finish_views(lambda: False)
    expected = gathered(bench.records(), "topic", 7)
    for values in expected.values():
        values.pop("t")
    assert shown(bench, "home_view", "topic") == expected


@pytest.mark.parametrize("model", [{"wide": {"table": "sh_n_name"}}, "eav", "document"], ids=str)
def test_a_level_names_a_device_whatever_the_entity_makes_of_it(model: Any, site: Site) -> None:
    """A level that the entity declares is a property, unless it does not have the declared type."""
    entity = {"n": "int", "a": "float", "b": "float"}
    route = {"topic": "sh/{n}/{name}", "property": "{name}", "model": model, "gather": "1 h", "entity": entity}
    bench = Workbench(site, route)
    bench.send(("sh/1/a", b"1"), ("sh/1/b", b"2"), ("sh/2/b", b"3"), ("sh/x/a", b"4"), ("sh/x/b", b"5"))
    bench.writer.finish_views(lambda: False)
    assert sorted(bench.sql("SELECT a, b, n FROM sh_n_name_view"), key=repr) == [
        (1.0, 2.0, 1), (4.0, 5.0, None), (None, 3.0, 2),
    ]  # fmt: skip


def test_routes_of_one_table_must_not_mix_their_devices() -> None:
    """Whose levels may be equal; without ``property`` devices are topics."""
    routes = [
        {"topic": f"{name}/{{n}}/{{p}}", "gather": "1 s", "model": {"wide": {"table": "climate"}}} for name in "ab"
    ]
    load_section({"routes": routes})
    with pytest.raises(ConfigError, match=r"routes\[1\].gather: shares the table climate .* cannot tell devices"):
        load_section({"routes": [{**route, "property": "{p}"} for route in routes]})


@pytest.mark.parametrize("length", [7, 86_400, 3_000_000_000])
def test_an_interval_ends_where_the_next_begins(length: int, site: Site) -> None:
    """To the microsecond, after 1970 and before."""
    bench = Workbench(site, {"topic": "{n}", "time": "t", "gather": f"{length} s", "model": {"wide": {"table": "sh"}}})
    starts = [count * length for count in (-1, 0, 1, 20_000) if count * length < 6_000_000_000]
    texts = [
        (EPOCH + timedelta(seconds=start, microseconds=more)).isoformat(timespec="microseconds")
        for start in starts
        for more in (0, length * 1_000_000 - 1)
    ]
    bench.send(*((str(number), {"t": text, "v": 1}) for number, text in enumerate(texts)))
    bench.writer.finish_views(lambda: False)
    found = {int(row[0]): seconds_of(row[1]) for row in bench.sql("SELECT n, time FROM sh_view")}
    assert found == {number: starts[number // 2] for number in range(len(texts))}


def test_a_table_per_device_has_a_view_per_device(site: Site) -> None:
    """With ``wide`` and no table."""
    bench = Workbench(site, {"topic": "sh/{device}/{name}", "property": "{name}", "gather": "1 min"})
    bench.send(("sh/a/temp", b"1"), ("sh/a/power", b"2"), ("sh/b/temp", b"3"), ("sh/a/state", b"on"))
    bench.writer.finish_views(lambda: False)
    assert bench.sql("SELECT device, temp, power, state FROM sh_a_view") == [("a", 1.0, 2.0, "on")]
    assert bench.sql("SELECT device, temp FROM sh_b_view") == [("b", 3.0)]
    assert len(bench.sql("SELECT * FROM sh_a")) == 3


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"topic": "#", "gather": "1.5 s"}, "gather: expected whole seconds"),
        ({"topic": "a/+/{p}", "property": "{p}", "gather": "1 s"}, "gather: name every level of the topic"),
        ({"topic": "#", "gather": "often"}, "gather: "),
    ],
    ids=str,
)
def test_an_interval_without_sense_is_a_mistake(keys: dict[str, Any], message: str) -> None:
    """With its path, and what to do."""
    with pytest.raises(ConfigError, match=message):
        load_section({"routes": [keys]})
