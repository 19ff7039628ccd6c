"""``only: changes``: what is stored explains every message, and everything else is counted, on every engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtt_db.config import load_section
from amqtt_db.errors import ConfigError
from tests.database.engines.servers import Site
from tests.workbench import Workbench

MODELS: list[Any] = ["wide", {"wide": {"table": "climate"}}, "eav", "narrow", "document"]
ROUTE: dict[str, Any] = {"topic": "t/{n}", "only": "changes", "time": "at"}


def stored(bench: Workbench) -> list[tuple[float, Any]]:
    """The times and values of what is stored."""
    return [(record.time_us / 1_000_000, record.get("v")) for record in bench.records()]


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS, ids=str)
def test_only_changes_are_stored(model: Any, site: Site) -> None:
    """Within a batch, over batches and over a restart; numbers by their deadband from what was stored last."""
    bench = Workbench(site, {**ROUTE, "time": None, "model": model, "deadband": {"v": 0.5}})
    bench.send(("t/1", {"v": 1, "s": "on"}), ("t/1", {"v": 1.5}), ("t/2", {"v": 1}), ("t/1", {"v": 1.4, "s": "on"}))
    bench.send(("t/1", {"v": 1.6}), ("t/1", {"v": 1.2}), ("t/1", {"s": "off"}), ("t/1", {"s": "off", "v": 1.7}))
    bench.restart()
    bench.send(("t/1", {"v": 1.1}), ("t/1", {"v": "x"}), ("t/2", {"v": 1, "more": None}), ("t/2", {"more": [1]}))
    kept = [(record.topic, record.data()) for record in bench.records()]
    assert kept == [
        ("t/1", {"v": 1.0, "s": "on"}),
        ("t/2", {"v": 1.0}),
        ("t/1", {"v": 1.6}),
        ("t/1", {"s": "off"}),
        ("t/1", {"v": "x"}),
        ("t/2", {"more": [1]}),
    ]
    assert bench.counts()["t/{n}"] == {"stored": 6, "records": 6, "unchanged": 6}


def test_a_late_message_is_stored(site: Site) -> None:
    """The newest values stay those that the next message is compared with."""
    bench = Workbench(site, ROUTE)
    bench.send(("t/1", {"at": 10, "v": 1}), ("t/1", {"at": 5, "v": 1}), ("t/1", {"at": 5, "v": 2}))
    bench.send(("t/1", {"at": 10, "v": 1}), ("t/1", {"at": 11, "v": 2}))
    assert stored(bench) == [(10, 1), (5, 1), (5, 2), (11, 2)]


def test_something_is_stored_from_time_to_time(site: Site) -> None:
    """By the times of the records; a change begins the time again."""
    bench = Workbench(site, {**ROUTE, "time": None, "at_least_every": "10 s"})
    bench.send(*(("t/1", {"v": 2 if number >= 14 else 1}) for number in range(30)))
    first = bench.records()[0].time_us
    assert [(record.time_us - first) // 1_000_000 for record in bench.records()] == [0, 10, 14, 24]


def test_lists_are_compared_as_json(site: Site) -> None:
    """In which 1 is not true, NaN is itself, and the order of an object's keys means nothing."""
    bench = Workbench(site, ROUTE)
    for items in (b"[1]", b"[1]", b"[true]", b'[{"a": 1, "b": 2}]', b'[{"b": 2, "a": 1}]', b"[NaN]", b"[NaN]"):
        bench.send(("t/1", b'{"v": %s}' % items))
    assert [repr(record.get("v")) for record in bench.records()] == ["[1]", "[True]", "[{'a': 1, 'b': 2}]", "[nan]"]


def test_numbers_far_apart_are_a_change(site: Site) -> None:
    """Also if their difference is too great for a decimal."""
    bench = Workbench(site, {"topic": "t", "only": "changes", "entity": {"v": "decimal"}})
    for text in ("9e999999", "-9e999999", "-9e999999", "1e-999999", "NaN", "NaN", "Infinity"):
        bench.send(("t", {"v": text}))
    assert [str(record.get("v")) for record in bench.records()] == [
        "9E+999999", "-9E+999999", "1E-999999", "NaN", "Infinity",
    ]  # fmt: skip
    assert not bench.dead()


def test_statements_are_compiled_once(site: Site) -> None:
    """However many batches there are: otherwise each costs time, and fills memory."""
    bench = Workbench(site, ROUTE)
    known = []
    for number in range(6):
        bench.send(("t/1", {"v": number}), ("t/2", {"v": number, "w": [1]}))
        known.append(len(bench.writer._database._compiled_cache or ()))
    assert known[-1] == known[2] > 0


def test_each_record_is_judged_by_itself(tmp_path: Path) -> None:
    """A message is unchanged if nothing of it is stored; an item's device is what ``latest`` names."""
    bench = Workbench(tmp_path, {"topic": "t", "each": "{sensor}", "only": "changes", "latest": ["sensor"]})
    bench.send(("t", {"a": {"v": 1}, "b": {"v": 1}}), ("t", {"a": {"v": 1}, "b": {"v": 2}}), ("t", {"a": {"v": 1}}))
    assert [(record.part, record["sensor"], record["v"]) for record in bench.records()] == [
        (0, "a", 1.0), (1, "b", 1.0), (1, "b", 2.0),
    ]  # fmt: skip
    assert bench.counts()["t"] == {"stored": 2, "records": 3, "unchanged": 1}


def test_a_dead_letter_that_says_nothing_new_is_done_with(tmp_path: Path) -> None:
    """A replay counts it as unchanged."""
    bench = Workbench(tmp_path, {"topic": "t", "decode": "json"})
    bench.send(("t", b"no json"))
    bench.restart({"topic": "t", "only": "changes"})
    bench.send(("t", b"no json"))
    (letter,) = bench.dead()
    assert bench.writer.replay_one(letter.id) is None
    assert bench.counts()["t"] == {"stored": 2, "records": 2}
    bench.send(("t", b"no json"))
    assert bench.counts()["t"] == {"stored": 2, "records": 2, "unchanged": 1}
    assert not bench.dead()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"only": "new"}, "only: expected `changes`, found text"),
        ({"deadband": {"v": 1}}, "deadband: has no effect without `only: changes`"),
        ({"at_least_every": "1 h"}, "at_least_every: has no effect without `only: changes`"),
        ({"only": "changes", "deadband": {"v": -1}}, "expected a number above 0 for v"),
        ({"only": "changes", "deadband": {"v": 10**400}}, "expected a number above 0 for v"),
        ({"only": "changes", "deadband": {"v": 1}, "entity": {"w": "float"}}, "declares no property 'v'"),
        ({"only": "changes", "latest": False}, "latest: `only: changes` needs the newest values"),
    ],
    ids=str,
)
def test_mistakes_are_told(keys: dict[str, Any], message: str) -> None:
    """With their path."""
    with pytest.raises(ConfigError, match=message):
        load_section({"routes": [{"topic": "#", **keys}]})


VALUES = st.sampled_from([0, 0.25, 0.5, 1, -1, 2**60, 10**30, float("nan"), float("inf"), "x", True, [1], None])
STREAM = st.lists(
    st.tuples(
        st.sampled_from(["t/1", "t/2"]),
        st.integers(0, 4),
        st.dictionaries(st.sampled_from(["v", "w"]), VALUES, max_size=2),
    ),
    max_size=15,
)


@pytest.mark.slow
@given(STREAM, st.integers(1, 6), st.sampled_from(MODELS), st.sampled_from([0.25, 1.0]))
def test_what_is_stored_explains_every_message(
    sent: Sequence[tuple[str, int, dict[str, Any]]], size: int, model: Any, width: float
) -> None:
    """Each value is within its deadband of the newest stored one, and no longer ago than it may be."""
    with TemporaryDirectory() as directory:
        route = {**ROUTE, "model": model, "deadband": {"v": width}, "at_least_every": "8 s"}
        bench = Workbench(Path(directory), route)
        messages, now = [], 100
        for topic, pause, values in sent:
            now += pause
            messages.append((topic, {**values, "at": now}))
        for first in range(0, len(messages), size):
            bench.restart()
            bench.send(*messages[first : first + size])
        counts = bench.counts().get("t/{n}", {})
        assert counts.get("stored", 0) + counts.get("unchanged", 0) == len(sent)
        assert counts.get("stored", 0) == len(bench.records())
        for position, (topic, message) in enumerate(messages, start=1):
            _check_explained(bench, topic, message, position, width)
        bench.close()


def _check_explained(bench: Workbench, topic: str, message: dict[str, Any], position: int, width: float) -> None:
    before = [record for record in bench.records(topic) if record.id % 2**40 <= position]
    assert message["at"] - max(record.time_us for record in before) / 1_000_000 < 8
    for path in message.keys() - {"at"}:
        if message[path] is not None:
            known = [record for record in before if record.get(path) is not None]
            newest = max(known, key=lambda record: (record.time_us, record.id)).get(path)
            assert _is_near(newest, message[path], width if path == "v" else 0)


def _is_near(old: Any, new: Any, width: float) -> bool:
    if isinstance(old, bool) or isinstance(new, bool) or not isinstance(old, int | float):
        return repr(old) == repr(new)
    return isinstance(new, int | float) and (repr(float(old)) == repr(float(new)) or abs(old - new) <= width)
