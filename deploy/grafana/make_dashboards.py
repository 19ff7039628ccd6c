"""Grafana's dashboards as code: health, from the metrics, and data, from the views and tables of each engine.

usage: python deploy/grafana/make_dashboards.py

Writes the JSON files in ``dashboards``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

DASHBOARDS: Final = Path(__file__).parent / "dashboards"
ENGINES: Final[Mapping[str, str]] = {
    "sqlite": "frser-sqlite-datasource",
    "postgresql": "grafana-postgresql-datasource",
    "mysql": "mysql",
}
"""The engines, and the types of Grafana's data sources for them."""

_WIDTH: Final = 24
_NUMERIC: Final = "'number', 'int64', 'bigint', 'decimal'"
_VALUES: Final = ("number", "int64", "bigint", "decimal", "text", "bool", "datetime")

Panel = dict[str, Any]

HEALTH: Final[Sequence[tuple[str, str, str, Mapping[str, str]]]] = (
    ("Messages per second", "timeseries", "short", {
        "received": "sum(rate(amqtt_db_messages_received_total[$__rate_interval]))",
        "stored": "sum(rate(amqtt_db_messages_stored_total[$__rate_interval]))",
    }),
    ("Stored per second, by route", "timeseries", "short", {
        "{{route}}": "sum by (route) (rate(amqtt_db_messages_stored_total[$__rate_interval]))",
    }),
    ("Messages waiting", "timeseries", "short", {"waiting": "amqtt_db_messages_pending"}),
    ("Age of the oldest waiting message", "timeseries", "s", {"oldest": "amqtt_db_journal_oldest_seconds"}),
    ("Size of the journal", "timeseries", "bytes", {"journal": "amqtt_db_journal_bytes"}),
    ("Dead letters in the last hour, by route", "timeseries", "short", {
        "{{route}}": "sum by (route) (increase(amqtt_db_messages_dead_total[1h]))",
    }),
    ("Not stored in the last hour", "timeseries", "short", {
        "refused": "increase(amqtt_db_messages_refused_total[1h])",
        "denied": "increase(amqtt_db_messages_denied_total[1h])",
        "ignored": "sum(increase(amqtt_db_messages_ignored_total[1h]))",
    }),
    ("Time to store a batch", "timeseries", "s", {
        "median": "histogram_quantile(0.5, sum by (le) (rate(amqtt_db_batch_seconds_bucket[$__rate_interval])))",
        "99 %": "histogram_quantile(0.99, sum by (le) (rate(amqtt_db_batch_seconds_bucket[$__rate_interval])))",
    }),
    ("Is anything wrong?", "stat", "short", {
        "journal is full": "max(amqtt_db_journal_blocked)",
        "writer is failing": "max(amqtt_db_writer_failing)",
        "brokers without a connection": "count(amqtt_db_broker_connected == 0) or vector(0)",
        "restarts of the writer in a day": "sum(increase(amqtt_db_writer_restarts_total[1d]))",
    }),
)  # fmt: skip
"""Panels of the dashboard on health: title, type, unit, and the queries by their legends."""


def quote_name(engine: str, name: str) -> str:
    """Return a name as the engine quotes it."""
    return f"`{name}`" if engine == "mysql" else f'"{name}"'


def data_queries(engine: str) -> Mapping[str, tuple[str, str, str]]:
    """Return the panels of the dashboard on data: type, format and SQL by title.

    Grafana replaces what begins with a dollar.
    """
    time, view, column = (quote_name(engine, name) for name in ("time", "${view:raw}", "${column:raw}"))
    kept, grouped = _time_filter(engine, time), _time_group(engine, time)
    text = "CHAR" if engine == "mysql" else "TEXT"
    value = f"coalesce({', '.join(f'CAST(v.{kind}_value AS {text})' for kind in _VALUES)})"
    counts = ("stored", "records", "dead", "ignored", "empty", "unchanged")
    filter_ = quote_name(engine, "filter")
    sums = ", ".join(f"sum({name}) AS {name}" for name in (quote_name(engine, count) for count in counts))
    return {
        "${column} of ${view}": (
            "timeseries",
            "time_series",
            f"SELECT {grouped}, topic AS metric, avg({column}) AS value FROM {view} "
            f"WHERE {kept} GROUP BY 1, 2 ORDER BY 1, 2",
        ),
        "Records of ${view}": (
            "timeseries",
            "time_series",
            f"SELECT {grouped}, topic AS metric, count(*) AS value FROM {view} "
            f"WHERE {kept} GROUP BY 1, 2 ORDER BY 1, 2",
        ),
        "Newest values": (
            "table",
            "table",
            f"SELECT d.device, p.property, {value} AS value, v.{time} FROM mqtt_latest_value v "
            "JOIN mqtt_device d ON d.id = v.device JOIN mqtt_property p ON p.id = v.property "
            "ORDER BY d.device, p.property LIMIT 1000",
        ),
        "Dead letters": (
            "table",
            "table",
            f"SELECT {time}, {filter_} AS route, step, reason FROM mqtt_dead_letter "
            f"WHERE {kept} ORDER BY {time} DESC LIMIT 100",
        ),
        "Messages by route": (
            "table",
            "table",
            f"SELECT {filter_} AS route, {sums} FROM mqtt_counter GROUP BY {filter_} ORDER BY {filter_}",
        ),
    }


def variable_queries() -> Mapping[str, str]:
    """Return the SQL of the variables: the views, and the numeric columns of the chosen one."""
    return {
        "view": "SELECT name FROM mqtt_view ORDER BY name",
        "column": "SELECT column_name FROM mqtt_catalog "
        f"WHERE table_name = '${{view:raw}}' AND kind IN ({_NUMERIC}) ORDER BY column_name",
    }


def _time_filter(engine: str, time: str) -> str:
    if engine != "sqlite":
        return f"$__timeFilter({time})"
    return f"{time} >= datetime($__from / 1000, 'unixepoch') AND {time} < datetime($__to / 1000 + 1, 'unixepoch')"


def _time_group(engine: str, time: str) -> str:
    if engine != "sqlite":
        return f"$__timeGroupAlias({time},$__interval)"
    seconds = "($__interval_ms / 1000 + 1)"
    return f"CAST(strftime('%s', {time}) AS INTEGER) / {seconds} * {seconds} AS {time}"


def make_health() -> dict[str, Any]:
    """Return the dashboard on health."""
    source = {"type": "prometheus", "uid": "${source}"}
    panels = [
        {
            **_panel(title, kind, source, unit),
            "targets": [
                {"refId": chr(65 + number), "datasource": source, "expr": expression, "legendFormat": legend}
                for number, (legend, expression) in enumerate(queries.items())
            ],
        }
        for title, kind, unit, queries in HEALTH
    ]
    return _dashboard("amqtt_db: health", "amqtt-db-health", _source_variable("prometheus"), _placed(panels))


def make_data(engine: str) -> dict[str, Any]:
    """Return the dashboard on data."""
    source = {"type": ENGINES[engine], "uid": "${source}"}
    panels = [
        {**_panel(title, kind, source), "targets": [{"refId": "A", "datasource": source, **_target(engine, form, sql)}]}
        for title, (kind, form, sql) in data_queries(engine).items()
    ]
    variables = [
        *_source_variable(ENGINES[engine]),
        *(_query_variable(source, *one) for one in variable_queries().items()),
    ]
    return _dashboard(f"amqtt_db: data ({engine})", f"amqtt-db-data-{engine}", variables, _placed(panels))


def _target(engine: str, form: str, sql: str) -> Panel:
    if engine == "sqlite":
        kind = form.replace("_", " ")
        return {"queryText": sql, "rawQueryText": sql, "queryType": kind, "timeColumns": ["time"]}
    return {"format": form, "rawQuery": True, "rawSql": sql, "editorMode": "code"}


def _panel(title: str, kind: str, source: Mapping[str, str], unit: str = "short") -> Panel:
    defaults = {"unit": unit, "custom": {"lineWidth": 1, "fillOpacity": 8}} if kind == "timeseries" else {"unit": unit}
    return {"title": title, "type": kind, "datasource": source, "fieldConfig": {"defaults": defaults, "overrides": []}}


def _placed(panels: Iterable[Panel]) -> list[Panel]:
    """Return panels two in a row; each has a number."""
    size = {"w": _WIDTH // 2, "h": 8}
    return [
        {"id": number + 1, "gridPos": {**size, "x": number % 2 * size["w"], "y": number // 2 * size["h"]}, **panel}
        for number, panel in enumerate(panels)
    ]


def _source_variable(kind: str) -> list[Panel]:
    return [{"name": "source", "label": "source", "type": "datasource", "query": kind}]


def _query_variable(source: Mapping[str, str], name: str, sql: str) -> Panel:
    query = {"rawQueryText": sql, "queryText": sql} if source["type"] == ENGINES["sqlite"] else sql
    return {"name": name, "label": name, "type": "query", "datasource": source, "query": query, "refresh": 1}


def _dashboard(title: str, uid: str, variables: Sequence[Panel], panels: Sequence[Panel]) -> dict[str, Any]:
    return {
        "title": title,
        "uid": uid,
        "tags": ["amqtt_db"],
        "schemaVersion": 39,
        "editable": True,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-24h", "to": "now"},
        "templating": {"list": list(variables)},
        "panels": list(panels),
    }


def make_all() -> Mapping[str, str]:
    """Return the files by name, as text."""
    made = {"health": make_health(), **{f"data-{engine}": make_data(engine) for engine in ENGINES}}
    return {f"{name}.json": json.dumps(one, indent=2) + "\n" for name, one in made.items()}


if __name__ == "__main__":
    for file, content in make_all().items():
        (DASHBOARDS / file).write_text(content, encoding="utf-8")
