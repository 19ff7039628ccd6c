"""The TimescaleDB page is correct: its configuration creates the tables it names, and its queries run."""

from __future__ import annotations

from typing import Any

import yaml

from amqtt_db import config
from amqtt_db.testing.starting import execute
from tests.database.engines.servers import Site
from tests.docs.test_docs import ROOT, blocks
from tests.workbench import Workbench

PAGE = ROOT / "docs" / "timescaledb.md"


def _texts(language: str) -> list[str]:
    return [block.text for block in blocks(PAGE) if block.language == language]


def _statements(text: str) -> list[str]:
    return [statement.strip() for statement in text.split(";") if statement.strip()]


def _routes() -> list[dict[str, Any]]:
    (document,) = map(yaml.safe_load, _texts("yaml"))
    assert config.load_document(document).notes == ()
    section: dict[str, Any] = document["plugins"]["amqtt_db.Plugin"]
    return list(section["routes"])


def test_the_page_tells_the_truth(timescaledb: Site) -> None:
    """Its statements run and return the chunks of the tables it names."""
    extension, queries = _texts("sql")
    execute(timescaledb.url, *_statements(extension), "SELECT _timescaledb_functions.stop_background_workers()")
    bench = Workbench(timescaledb, *_routes())
    bench.send(("meters/7/power", {"w": 1.5}), ("home/attic/climate", {"temp": 20}))
    bench.writer.retention.finish()
    tables, chunks, sizes, policies = [bench.sql(statement) for statement in _statements(queries)]
    named = {"climate", "meters_meter_power_message", "meters_meter_power_point"}
    assert {row[0] for row in tables} == named
    assert all(f"`{name}`" in PAGE.read_text(encoding="utf-8") for name in named)
    assert [row[3] for row in chunks] == [False]
    assert len(sizes) == 1
    assert sorted(row[1] for row in policies) == ["policy_compression"] * 3 + ["policy_retention"] * 2


def test_segments_and_order_are_as_the_page_says(timescaledb: Site) -> None:
    """Configured segments and orders are used, and otherwise those of the models."""
    execute(timescaledb.url, "SELECT _timescaledb_functions.stop_background_workers()")
    bench = Workbench(timescaledb, *_routes())
    bench.send(("meters/7/power", {"w": 1.5}), ("home/attic/climate", {"temp": 20}))
    settings = bench.sql(
        "SELECT hypertable::text, segmentby, orderby FROM timescaledb_information.hypertable_columnstore_settings"
    )
    assert sorted(settings) == [
        ("climate", "room", '"time" DESC'),
        ("meters_meter_power_message", "topic", '"time" DESC,id,part'),
        ("meters_meter_power_point", "series", '"time" DESC,id,part'),
    ]
