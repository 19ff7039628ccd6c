"""The views of rollups: for each step of a route one of its numbers, and one of its states."""

# ruff: noqa: S608 - every name and every literal is quoted

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from amqtt_db.database.engines.views import ViewSQL
from amqtt_db.database.rollup_tables import SECOND

_STEP_UNITS: Final = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def name_step(every: int) -> str:
    """Return the length of an interval, in microseconds, as a part of a name: ``5min``, ``1d``."""
    seconds = every // SECOND
    return next(f"{seconds // size}{unit}" for unit, size in _STEP_UNITS if seconds % size == 0)


def name_rollup_keys(route: str, every: int) -> tuple[str, str]:
    """Return the keys of the views of a step: of numbers, and of states."""
    step = name_step(every)
    return f"$rollup/{step}/{route}", f"$rollup-states/{step}/{route}"


def rollup_views(sql: ViewSQL[Any], route: str, base: str, every: int) -> Iterator[tuple[str, str, str]]:
    """Yield the key, the name and the SELECT of each view of a step; ``base`` begins the names."""
    step, (numbers, states) = name_step(every), name_rollup_keys(route, every)
    yield numbers, f"{base}_{step}", _select_numbers(sql, route, every)
    yield states, f"{base}_{step}_states", _select_states(sql, route, every)


def _select_numbers(sql: ViewSQL[Any], route: str, every: int) -> str:
    columns = {
        "topic": f"s.{sql.name('topic')}",
        "property": f"s.{sql.name('property')}",
        "time": f"r.{sql.name('start')}",
        "count": f"r.{sql.name('count')}",
        "sum": "r.total",
        "mean": f"r.total / r.{sql.name('count')}",
        "min": "r.low",
        "max": "r.high",
        **{name: f"r.{sql.name(name)}" for name in ("first", "last", "first_time", "last_time")},
    }
    shown = ", ".join(f"{column} AS {sql.name(name)}" for name, column in columns.items())
    return f"SELECT {shown} {_from(sql, 'mqtt_rollup', route, every)}"


def _select_states(sql: ViewSQL[Any], route: str, every: int) -> str:
    """Return the SELECT of how long states held; the first one may have been said in the interval before."""
    topic, path, value, start = (sql.name(name) for name in ("topic", "property", "value", "start"))
    time, count, seconds = map(sql.name, ("time", "count", "seconds"))
    where = _from(sql, "mqtt_rollup_state", route, every)
    key = f"s.{topic} AS {topic}, s.{path} AS {path}, r.{start} AS {time}"
    said = f"SELECT {key}, r.{value} AS {value}, r.{count} AS {count}, r.{sql.name('length')} AS micros {where}"
    before = f"LAG(r.{value}) OVER (PARTITION BY r.series ORDER BY r.{start})"
    waits = f"SELECT {key}, {before} AS {value}, 0 AS {count}, r.{sql.name('wait')} AS micros {where} AND r.is_last = 1"
    held = f"SELECT {topic}, {path}, {time}, {value}, {count}, micros FROM ({waits}) waits WHERE {value} IS NOT NULL"
    names = f"{topic}, {path}, {time}, {value}"
    sums = f"SUM({count}) AS {count}, SUM(micros) / 1000000.0 AS {seconds}"
    return f"SELECT {names}, {sums} FROM ({said} UNION ALL {held}) states GROUP BY {names}"


def _from(sql: ViewSQL[Any], table: str, route: str, every: int) -> str:
    same = sql.is_text(f"s.{sql.name('route')}", route)
    series = f"mqtt_rollup_series s ON s.{sql.name('id')} = r.series"
    return f"FROM {table} r JOIN {series} WHERE {same} AND r.{sql.name('every')} = {every // SECOND}"
