"""Another decoder for each value of a topic's level."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cbor2
import pytest

from amqtt_db.config import load_section
from amqtt_db.decode import time_given_by
from amqtt_db.errors import ConfigError
from tests.decode.edge_node import EdgeNode
from tests.decode.vectors import mistakes
from tests.workbench import Sent, Workbench

ROUTE: dict[str, Any] = {"topic": "d/{device}/{format}", "model": {"wide": {"table": "t"}}}
BY: dict[str, Any] = {"by": "{format}", "json": "json", "cbor": "cbor", "zipped": ["gzip", "json"]}
WRITTEN = cbor2.dumps({"v": 2})


def test_each_topic_has_the_decoder_of_its_level(tmp_path: Path) -> None:
    """What no decoder is named for becomes a dead letter that says so."""
    bench = Workbench(tmp_path, {**ROUTE, "decode": BY})
    bench.send(
        Sent("d/a/json", b'{"v": 1}'), Sent("d/a/cbor", WRITTEN), Sent("d/a/xml", b"<v/>"), Sent("d/b/json", WRITTEN)
    )
    assert bench.sql("SELECT device, format, v FROM t ORDER BY id") == [("a", "json", 1), ("a", "cbor", 2)]
    unknown, wrong = (letter.reason for letter in bench.dead())
    assert unknown == "`decode` has no decoder for this {format}, only for json, cbor, zipped"
    assert wrong.startswith("not JSON")


def test_one_for_all_other_values(tmp_path: Path) -> None:
    """A level without quotes is a mapping in YAML, and means the same."""
    bench = Workbench(tmp_path, {**ROUTE, "decode": {"by": {"format": None}, "cbor": "cbor", "else": "text"}})
    bench.send(Sent("d/a/cbor", WRITTEN), Sent("d/a/x", b"7"))
    assert bench.sql("SELECT v, value FROM t ORDER BY id") == [(2, None), (None, "7")]


def test_one_of_them_may_remember(tmp_path: Path) -> None:
    """Sparkplug's births are remembered, whatever the others do."""
    by = {"by": "{space}", "spBv1.0": "sparkplug", "else": "auto"}
    bench, node = Workbench(tmp_path, {**ROUTE, "topic": "{space}/#", "decode": by}), EdgeNode({"": {"v": "Int8"}})
    bench.send(Sent(*node.birth(v=1)))
    bench.restart()
    bench.send(Sent(*node.data(v=-12)), Sent("else/where", b'{"v": 3}'))
    assert bench.sql("SELECT space, v FROM t ORDER BY id") == [("spBv1.0", 1), ("spBv1.0", -12), ("else", 3)]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"by": "{format}"}, "decode: names no decoder; add one for each value, or `else`"),
        (
            {"by": 7, "a": "json"},
            "decode.by: expected a level of the topic such as '{format}', content_type or {user_property: name}, got 7",
        ),
        ({"by": "{x}", 1: "json"}, "decode: 1 is not text; quote it so that YAML reads it as text"),
        ({"by": "{x}", "a": "jsn"}, "decode.a: 'jsn' is unknown and not a dotted path; did you mean 'json'?"),
    ],
)
def test_mistakes_have_their_path(spec: Any, said: str) -> None:
    """All are found at once."""
    assert mistakes(spec) == [said]


def test_a_level_that_the_topic_does_not_have() -> None:
    """The nearest one is suggested."""
    with pytest.raises(ConfigError) as error:
        load_section({"routes": [{**ROUTE, "decode": {**BY, "by": "{fromat}"}}]})
    (problem,) = error.value.problems
    assert str(problem).endswith("decode.by: the topic has no level {fromat}; did you mean 'format'?")


def test_the_time_is_the_decoders_if_all_have_one() -> None:
    """Otherwise the route says which property it is."""
    assert time_given_by({"by": "{x}", "a": "senml", "b": "influx"}) == "time"
    assert time_given_by({"by": "{x}", "a": "senml", "b": "json"}) is None
