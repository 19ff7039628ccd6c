"""The dashboards: they are what the program makes, their SQL runs on the real engines, and their metrics exist."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from amqtt_db.errors import DatabaseError
from amqtt_db.testing.starting import connected, execute
from tests.database.engines.servers import Site
from tests.docs.test_docs import ROOT
from tests.docs.test_operating_docs import ALERTS, _metrics
from tests.ingest.monitor.test_exposition import PROMTOOL
from tests.workbench import ARRIVAL, Workbench

GRAFANA = ROOT / "deploy" / "grafana"
RULES = ROOT / "deploy" / "prometheus" / "amqtt_db.rules.yml"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
START, END = ARRIVAL // 1_000_000, ARRIVAL // 1_000_000 + 3600


def load(name: str) -> dict[str, Any]:
    """A dashboard."""
    made: dict[str, Any] = json.loads((GRAFANA / "dashboards" / f"{name}.json").read_text(encoding="utf-8"))
    return made


def sql_of(target: dict[str, Any]) -> str:
    """The SQL of a panel's query, or of a variable."""
    text: str = target.get("rawSql") or target["rawQueryText"]
    return text


def expanded(sql: str, engine: str, **variables: str) -> str:
    """SQL as Grafana sends it, with an interval of a minute: its macros and variables are replaced as its docs say."""
    for name, value in variables.items():
        sql = sql.replace(f"${{{name}:raw}}", value)
    sql = sql.replace("$__interval_ms", "60000").replace("$__from", f"{START}000").replace("$__to", f"{END}000")
    iso = [f"'{time}'" for time in ("2023-11-14T22:13:20Z", "2023-11-14T23:13:20Z")]
    kept, grouped = {
        "sqlite": ("", ""),
        "postgresql": (rf"\1 BETWEEN {iso[0]} AND {iso[1]}", r'floor(extract(epoch from \1)/60)*60 AS "time"'),
        "mysql": (
            rf"\1 BETWEEN FROM_UNIXTIME({START}) AND FROM_UNIXTIME({END})",
            r'UNIX_TIMESTAMP(\1) DIV 60 * 60 AS "time"',
        ),
    }[engine]
    sql = re.sub(r"\$__timeFilter\(([^)]+)\)", kept, sql)
    return re.sub(r"\$__timeGroupAlias\(([^,]+),\$__interval\)", grouped, sql)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_whole(path: Path) -> None:
    """It is what the program makes; panels have titles and queries, are on the grid, and do not overlap."""
    made = runpy.run_path(str(GRAFANA / "make_dashboards.py"))["make_all"]()
    assert path.read_text(encoding="utf-8") == made[path.name]
    panels = json.loads(made[path.name])["panels"]
    places = {(one["gridPos"]["x"], one["gridPos"]["y"]) for one in panels}
    assert len(places) == len({one["title"] for one in panels}) == len({one["id"] for one in panels}) == len(panels)
    assert all(one["targets"] and one["gridPos"]["x"] + one["gridPos"]["w"] <= 24 for one in panels)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_grafana_knows_all_of_a_dashboard(path: Path) -> None:
    """The classes that Grafana generates from its schema read it and write it again, and drop what they do not know."""
    reason = "Grafana's classes need Python 3.11"
    plugins = pytest.importorskip("grafana_foundation_sdk.cog.plugins", reason=reason)
    encoder = pytest.importorskip("grafana_foundation_sdk.cog.encoder", reason=reason)
    models = pytest.importorskip("grafana_foundation_sdk.models.dashboard", reason=reason)
    plugins.register_default_plugins()
    dashboard = load(path.stem)
    read = models.Dashboard.from_json(dashboard)
    assert covers(json.loads(json.dumps(read, cls=encoder.JSONEncoder)), dashboard)


def covers(found: Any, expected: Any) -> bool:
    """Return True if all of the expected JSON is found; objects may have more keys."""
    if isinstance(expected, dict):
        return all(key in found and covers(found[key], value) for key, value in expected.items())
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(covers, found, expected))
    return bool(found == expected)


@contextmanager
def reader(site: Site) -> Iterator[str]:
    """The URL of a user as `deploy/grafana` makes it, who may read and nothing else; the file itself on SQLite."""
    if site.engine == "sqlite":
        yield site.url
        return
    url = sa.make_url(site.url)
    made = (GRAFANA / f"reader-{site.engine}.sql").read_text(encoding="utf-8").replace("mqtt.*", f"{url.database}.*")
    gone = {"postgresql": "DROP OWNED BY grafana; DROP ROLE grafana", "mysql": "DROP USER grafana"}[site.engine]
    execute(site.url, *filter(str.strip, re.sub("--.*", "", made).split(";")))
    try:
        yield url.set(username="grafana", password="change me").render_as_string(hide_password=False)
    finally:
        execute(site.url, *gone.split(";"))


@pytest.mark.slow
def test_the_sql_runs(site: Site) -> None:
    """Each query of each panel and variable finds what was stored, by a user who may not write."""
    bench = Workbench(site, {"topic": "home/{room}/climate", "model": "eav", "latest": True}, {"topic": "#"})
    bench.send(*(("home/attic/climate", {"temp": 20 + number, "mode": "eco"}) for number in range(5)), ("bad", b"{"))
    dashboard = load(f"data-{site.engine}")
    queries = {one["title"]: sql_of(one["targets"][0]) for one in dashboard["panels"]}
    view, column = (
        one["query"] if isinstance(one["query"], str) else sql_of(one["query"])
        for one in dashboard["templating"]["list"][1:]
    )
    chosen = {"view": "home_room_climate_view", "column": "temp"}
    url = site.stack.enter_context(reader(site))

    def run(sql: str) -> list[tuple[Any, ...]]:
        with connected(url) as connection:
            found = connection.exec_driver_sql(expanded(sql, site.engine, **chosen).replace("%", "%%"))
            return [tuple(row) for row in found]

    assert (chosen["view"],) in run(view)
    assert run(column) == [("temp",)]
    if site.engine != "sqlite":
        with pytest.raises((sa.exc.DBAPIError, DatabaseError), match=r"denied|read-only"):
            run("DELETE FROM mqtt_counter")
    (curve,) = run(queries["${column} of ${view}"])
    assert (curve[1], float(curve[2])) == ("home/attic/climate", 22.0)
    assert [(row[1], row[2]) for row in run(queries["Records of ${view}"])] == [("home/attic/climate", 5)]
    assert {row[1]: row[2] for row in run(queries["Newest values"])}.keys() == {"mode", "temp", "{room}"}
    assert [row[1:3] for row in run(queries["Dead letters"])] == [("#", "decode")]
    assert [(row[0], int(row[1])) for row in run(queries["Messages by route"])][1] == ("home/{room}/climate", 5)


def expressions() -> list[str]:
    """The queries of the dashboard on health."""
    return [target["expr"] for panel in load("health")["panels"] for target in panel["targets"]]


def test_the_metrics_exist() -> None:
    """No panel and no alert asks for a metric that there is not."""
    names = set(re.findall(r"amqtt_db_\w+", " ".join(expressions())))
    assert {name.removesuffix("_bucket") for name in names} <= set(_metrics())


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (on Debian: prometheus)")
def test_prometheus_takes_the_queries(tmp_path: Path) -> None:
    """Each of them, as a rule."""
    rules = [
        {"record": f"r{number}", "expr": one.replace("$__rate_interval", "5m")}
        for number, one in enumerate(expressions())
    ]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": rules}]}))
    done = subprocess.run(
        [str(PROMTOOL), "check", "rules", str(tmp_path / "rules.yml")], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_those_of_the_docs() -> None:
    """Word for word."""
    assert RULES.read_text(encoding="utf-8").strip() == ALERTS.strip()


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (on Debian: prometheus)")
@pytest.mark.parametrize(
    ("series", "values", "alert", "labels"),
    [
        ("amqtt_db_journal_oldest_seconds", "0+60x20", "MessagesAreNotStored", {}),
        ("amqtt_db_journal_blocked", "0 0 1x20", "JournalIsFull", {}),
        ('amqtt_db_messages_dead_total{route="a/#"}', "0x10 3x20", "DeadLetters", {"route": "a/#"}),
        (
            'amqtt_db_broker_connected{broker="mqtt://a:1883"}',
            "0x30",
            "BrokerIsNotConnected",
            {"broker": "mqtt://a:1883"},
        ),
        ("amqtt_db_messages_received_total", "7x100", "NothingArrives", {}),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isalpha() else "",
)
def test_an_alert_fires(series: str, values: str, alert: str, labels: dict[str, str], tmp_path: Path) -> None:
    """When it should, as Prometheus itself computes it."""
    (rule,) = (one for one in yaml.safe_load(ALERTS)["groups"][0]["rules"] if one["alert"] == alert)
    summary = rule["annotations"]["summary"]
    for name, value in labels.items():
        summary = summary.replace(f"{{{{ $labels.{name} }}}}", value)
    expected = {"exp_labels": labels, "exp_annotations": {"summary": summary}}
    test = {
        "interval": "1m",
        "input_series": [{"series": series, "values": values}],
        "alert_rule_test": [{"eval_time": "18m", "alertname": alert, "exp_alerts": [expected]}],
    }
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "tests": [test]}))
    done = subprocess.run([str(PROMTOOL), "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
