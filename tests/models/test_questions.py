"""The questions of the page about models: each is answered, and by an index, on every engine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final

import pytest

from amqtt_db.testing.servers import Servers
from amqtt_db.testing.starting import connected
from tests.database.engines.servers import ENGINES, make_site
from tests.docs.test_docs import ROOT, blocks
from tests.workbench import Sent, Workbench

BLOCKS: Final = [block.text for block in blocks(ROOT / "docs" / "models.md") if block.language == "sql"]
MODELS: Final[dict[str, Any]] = {
    "one table": {"wide": {"table": "climate"}},
    "a table per topic": "wide",
    "eav": "eav",
    "document": "document",
    "narrow": "narrow",
}
ROOMS: Final = ("attic", "bath", "hall", "kitchen", "porch")
COUNT: Final = 6_000  # a message a minute
FEW: Final = 30  # rows that may be read by the way, also in the order of an index
END: Final = 1_769_864_400  # 2026-01-31 13:00, in seconds since 1970
SINCE: Final = END - 3600
SMALL: Final = {"t": "mqtt_topic", "k": "mqtt_property", "s": "mqtt_series", "p": "mqtt_assignment"}
"""Aliases of the page for the tables with a row for each topic or property: they may be read whole."""


def _questions(model: str) -> list[str]:
    block = BLOCKS[list(MODELS).index(model)]
    return [re.sub(r"^--.*\n", "", part.strip()) for part in block.split(";") if part.strip()]


def _messages() -> Iterator[Sent]:
    for number in range(COUNT):
        room = ROOMS[number * 7 % 11 % len(ROOMS)]
        payload = {"at": END - 60 * (COUNT - number), "temp": number % 40, "rh": 50, "mode": "eco"}
        yield Sent(f"home/{room}/climate", payload)


@pytest.fixture(scope="module", params=[(engine, model) for engine in ENGINES for model in MODELS], ids="-".join)
def asked(
    request: pytest.FixtureRequest, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Workbench]]:
    """A model, and a database with several days of its records and up-to-date statistics."""
    engine, model = request.param
    with ExitStack() as stack:
        site = stack.enter_context(make_site(servers, engine, tmp_path_factory.mktemp("asked")))
        bench = Workbench(site, {"topic": "home/{room}/climate", "model": MODELS[model], "time": "at"})
        bench.send(*_messages())
        bench.analyze()
        yield model, bench


def _is_scanned(bench: Workbench, query: str) -> list[str]:
    """The aliases or names of tables that are read whole, but for the small ones."""
    if bench.url.startswith("sqlite"):
        steps = [str(row[3]) for row in bench.sql(f"EXPLAIN QUERY PLAN {query}")]
        found = [step.split()[1] for step in steps if step.startswith("SCAN ") and " USING INDEX " not in step]
    elif bench.url.startswith("postgresql"):
        ((plan,),) = bench.sql(f"EXPLAIN (FORMAT JSON) {query}")
        nodes = _nodes((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"])
        found = [node["Alias"] for node in nodes if node["Node Type"] == "Seq Scan"]
    else:
        with connected(bench.url) as connection:
            plain = connection.execution_options(no_parameters=True)
            rows = plain.exec_driver_sql(f"EXPLAIN FORMAT=TRADITIONAL {query}").mappings().all()
        found = [row["table"] for row in rows if row["type"] in {"ALL", "index"} and int(row["rows"] or 0) > FEW]
    return [alias for alias in found if alias not in SMALL]


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", []):
        yield from _nodes(below)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(3), ids=["topic and time", "property", "latest"])
def test_an_index_answers(number: int, asked: tuple[str, Workbench]) -> None:
    """No question reads a table of records from end to end."""
    model, bench = asked
    question = _questions(model)[number]
    assert _is_scanned(bench, question) == []


def test_the_answers_are_right(asked: tuple[str, Workbench]) -> None:
    """As many rows as were sent, and the last ones."""
    model, bench = asked
    late = [sent for sent in _messages() if sent.payload["at"] >= SINCE]
    attic = [float(sent.payload["temp"]) for sent in late if sent.topic == "home/attic/climate"]
    rooms = ("attic", "hall") if model == "a table per topic" else ROOMS
    topic, every, latest = map(bench.sql, _questions(model))
    assert len(topic) == len(attic) > 5
    assert model == "document" or [row[1] for row in topic] == attic
    assert len(every) == sum(sent.topic.split("/")[1] in rooms for sent in late)
    assert len(latest) == {"a table per topic": 1, "eav": 20, "narrow": 20}.get(model, 5) + _levels(model)


def _levels(model: str) -> int:
    """A level of the topic is a property like others, where each has a row."""
    return len(ROOMS) if model in {"eav", "narrow"} else 0


def test_scans_are_seen(asked: tuple[str, Workbench]) -> None:
    """A plan that reads a whole table is recognised on each engine."""
    model, bench = asked
    table = _questions(model)[1].split("FROM ")[1].split()[0]
    big = "mqtt_point" if model == "narrow" else table
    assert _is_scanned(bench, f"SELECT sum(z.id) FROM {big} z WHERE z.id + 1 > 7") == ["z"]
