"""The same history through all four models: the same records back, whatever the tables look like."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from amqtt_db.shape import Record
from tests.history import messages
from tests.values import same
from tests.workbench import Sent, Workbench

MODELS = ("wide", "eav", "document", "narrow")
COUNT = 10_000


def _stored(directory: Path, model: str, sent: list[Sent]) -> list[Record]:
    directory.mkdir()
    bench = Workbench(
        directory,
        {"topic": "home/{room}/climate", "model": model, "time": "at"},
        {"topic": "#", "model": model, "time": "at"},
    )
    rng = random.Random(1)
    while sent:
        size = rng.randrange(1, 1000)
        bench.send(*sent[:size])
        sent = sent[size:]
    assert bench.dead() == []
    return bench.records()


def _expected(value: Any) -> Any:
    """What a JSON payload means, worked out by hand: numbers are doubles, nulls are absent, integers stay exact."""
    if isinstance(value, dict):
        return {key: _expected(item) for key, item in value.items() if item is not None}
    if type(value) is int and -(2**53) <= value <= 2**53:
        return float(value)
    return value


def _envelope(record: Record) -> tuple[Any, ...]:
    return record.id, record.part, record.time, record.topic, record.session, record.qos, record.retain


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Record]]:
    """The history in each model."""
    root = tmp_path_factory.mktemp("models")
    return {model: _stored(root / model, model, list(messages(COUNT))) for model in MODELS}


@pytest.mark.parametrize("model", MODELS)
def test_the_history_comes_back(model: str, stored: dict[str, list[Record]]) -> None:
    """10,000 messages, each value with its type, its topic, its time, its QoS."""
    sent = list(messages(COUNT))
    assert len(stored[model]) == COUNT
    for message, record in zip(sent, stored[model], strict=True):
        assert (record.topic, record.qos, record.retain) == (message.topic, message.qos, message.retain)
        payload = json.loads(message.raw())
        assert record.time == payload["at"] * 1_000_000
        expected = dict(_flat(_expected(payload)))
        found = {path: value for path, (_, value) in record.properties().items() if not path.startswith("{")}
        assert same(found, expected), (found, expected)


def _flat(data: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in data.items():
        pairs += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return pairs


@pytest.mark.parametrize("model", MODELS[1:])
def test_all_models_tell_the_same_records(model: str, stored: dict[str, list[Record]]) -> None:
    """Kinds, named levels and envelopes included."""
    for first, other in zip(stored["wide"], stored[model], strict=True):
        assert _envelope(first) == _envelope(other)
        left, right = first.properties(), other.properties()
        assert left.keys() == right.keys()
        assert all(left[path][0] == right[path][0] and same(left[path][1], right[path][1]) for path in left)
