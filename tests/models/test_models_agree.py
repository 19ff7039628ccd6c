"""The same history through all four models on every engine: the same records back, and the same views."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from amqtt_db.record import Record
from amqtt_db.testing.servers import Servers
from tests.database.engines.servers import ENGINES, make_site
from tests.history import messages
from tests.values import same
from tests.workbench import Sent, Workbench

pytestmark = pytest.mark.slow

MODELS = ("wide", "eav", "document", "narrow")
VIEWS = {"wide": ("climate_view", "rest_view")}
COUNT = 6000


def _routes(model: str) -> list[dict[str, Any]]:
    """Two routes; `wide` with a table for each, so that each has a view as in the other models."""
    names = [{"wide": {"table": name}} for name in ("climate", "rest")] if model == "wide" else [model, model]
    filters = ("home/{room}/climate", "#")
    return [
        {"topic": topic, "model": name, "time": "at", "max_columns": 100}
        for topic, name in zip(filters, names, strict=True)
    ]


def _store(bench: Workbench, sent: list[Sent]) -> None:
    rng = random.Random(1)
    while sent:
        size = rng.randrange(1, 1000)
        bench.send(*sent[:size])
        sent = sent[size:]
    bench.writer._views.finish()
    bench.analyze()
    assert bench.dead() == []


def _expected(value: Any) -> Any:
    """Return what a JSON payload means, by hand: numbers are doubles, nulls are absent, integers stay exact."""
    if isinstance(value, dict):
        return {key: _expected(item) for key, item in value.items() if item is not None}
    if type(value) is int and -(2**53) <= value <= 2**53:
        return float(value)
    return value


def _envelope(record: Record) -> tuple[Any, ...]:
    return record.id, record.part, record.time_us, record.topic, record.session, record.qos, record.retain


Stored = dict[str, Workbench]


@pytest.fixture(scope="module", params=ENGINES)
def stored(
    request: pytest.FixtureRequest, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stored]:
    """The history in each model, on each engine in turn."""
    engine: str = request.param
    sent = list(messages(COUNT))
    with ExitStack() as stack:
        benches = {}
        for model in MODELS:
            site = stack.enter_context(make_site(servers, engine, tmp_path_factory.mktemp(model)))
            benches[model] = Workbench(site, *_routes(model))
            stack.callback(benches[model].close)
            _store(benches[model], sent)
        yield benches


@pytest.mark.parametrize("model", MODELS)
def test_the_history_comes_back(model: str, stored: Stored) -> None:
    """6,000 messages, each value with its type, its topic, its time, its QoS."""
    records = stored[model].records()
    for message, record in zip(messages(COUNT), records, strict=True):
        assert (record.topic, record.qos, record.retain) == (message.topic, message.qos, message.retain)
        payload = json.loads(message.raw())
        assert record.time_us == payload["at"] * 1_000_000
        expected = dict(_flat(_expected(payload)))
        found = {path: value for path, (_, value) in record.properties().items() if not path.startswith("{")}
        assert same(found, expected), (found, expected)


def _flat(data: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in data.items():
        pairs += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return pairs


@pytest.mark.parametrize("model", MODELS[1:])
def test_all_models_tell_the_same_records(model: str, stored: Stored) -> None:
    """Kinds, named levels and envelopes included."""
    for first, other in zip(stored["wide"].records(), stored[model].records(), strict=True):
        assert _envelope(first) == _envelope(other)
        left, right = first.properties(), other.properties()
        assert left.keys() == right.keys()
        assert all(left[path][0] == right[path][0] and same(left[path][1], right[path][1]) for path in left)


QUESTIONS = [
    "SELECT topic, count(*), min(time), max(time), min(temp), max(rh) FROM {climate} GROUP BY topic ORDER BY topic",
    "SELECT time, room, temp FROM {climate} WHERE time >= '2023-11-14 22:20:00' AND temp > 28 ORDER BY time, id",
    "SELECT room, temp__text, count(*) FROM {climate} GROUP BY room, temp__text ORDER BY room, count(*)",
    "SELECT topic, count(energy_total), sum(retain), max(qos) FROM {rest} GROUP BY topic ORDER BY topic",
    "SELECT id, counter3, counter3__int64 FROM {rest} WHERE topic = 'plugs/7' AND counter3__int64 > 5 ORDER BY id",
]


@pytest.mark.parametrize("model", MODELS[1:])
def test_all_models_show_the_same_views(model: str, stored: Stored) -> None:
    """Every column of every record, and the answers to the same questions, on every engine."""
    wide, other = stored["wide"], stored[model]
    count = 0
    for first, second in zip(_views("wide"), _views(model), strict=True):
        assert set(wide.columns(first)) == set(other.columns(second))
        for left, right in zip(_rows(wide, first), _rows(other, second), strict=True):
            there = {name: (value, right[name]) for name, value in left.items() if not _is_odd(value)}
            assert {name: pair for name, pair in there.items() if not same(*pair)} == {}
            count += 1
    assert count == COUNT


def _rows(bench: Workbench, view: str) -> Iterator[dict[str, Any]]:
    """Rows by column, without ``extra``, which depends on the model."""
    names = bench.columns(view)
    for row in bench.sql(f"SELECT * FROM {view} ORDER BY id, part"):
        yield {name: value for name, value in zip(names, row, strict=True) if name != "extra"}


def _is_odd(value: Any) -> bool:
    """Text with U+0000, which a view of tagged JSON or of a document does not show."""
    return isinstance(value, str) and "\x00" in value


def _views(model: str) -> tuple[str, str]:
    return VIEWS.get(model, ("home_room_climate_view", "all_view"))


@pytest.mark.parametrize("question", QUESTIONS)
def test_all_models_answer_the_same_questions(question: str, stored: Stored) -> None:
    """The same SQL asked of the views of each model."""
    answers = []
    for model, bench in stored.items():
        climate, rest = _views(model)
        if bench.url.startswith("postgresql"):
            question = question.replace("sum(retain)", "sum(retain::int)")
        answers.append(bench.sql(question.format(climate=climate, rest=rest)))
    assert answers[0]
    assert all(same(answer, answers[0]) for answer in answers)
