"""Dead letters a second time, and their end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from amqtt_db.database.dead_letters import LetterChoice, purge
from amqtt_db.errors import DatabaseError
from amqtt_db.writer.remodel import Remodel
from amqtt_db.writer.replay import replay
from tests.workbench import Sent, Workbench, routes

STRICT: dict[str, Any] = {"topic": "#", "entity": {"v": "float"}, "mismatch": "reject", "unknown": "ignore"}
LENIENT: dict[str, Any] = {**STRICT, "mismatch": "variant"}


def _bench(directory: Path) -> Workbench:
    bench = Workbench(directory, STRICT)
    bench.send(Sent("a/b", {"v": "hot"}, qos=1, retain=True), ("a/b", {"v": 1}), ("c", b"{"), ("c", {"v": "x"}))
    return bench


def test_after_mending_the_route_exactly_the_mended_ones_are_stored(tmp_path: Path) -> None:
    """They keep their id, time, QoS and retain flag; the others stay dead letters; the counters move."""
    bench = _bench(tmp_path)
    letters = {letter.id: letter for letter in bench.dead()}
    results = {result.id: result.reason for result in replay(bench.url, routes(LENIENT))}
    assert results.keys() == letters.keys()
    assert [reason is None for reason in results.values()] == [True, False, True]
    assert [data["v"] for data in bench.data()] == ["hot", 1.0, "x"]
    first = bench.records("a/b")[0]
    assert (first.id, first.qos, first.retain) == (min(letters), 1, True)
    assert [letter.payload for letter in bench.dead()] == [b"{"]
    assert bench.counts() == {"#": {"stored": 3, "dead": 1, "records": 3}}


def test_replaying_twice_stores_nothing_twice(tmp_path: Path) -> None:
    """A message that was replayed is no longer a dead letter."""
    bench = _bench(tmp_path)
    for _ in range(2):
        list(replay(bench.url, routes(LENIENT)))
    assert len(bench.records()) == 3


def test_only_the_topics_asked_for(tmp_path: Path) -> None:
    """A filter leaves the others alone."""
    bench = _bench(tmp_path)
    assert [result.reason for result in replay(bench.url, routes(LENIENT), LetterChoice(topic="a/#"))] == [None]
    assert [letter.topic for letter in bench.dead()] == [b"c", b"c"]


def test_without_a_route_it_stays(tmp_path: Path) -> None:
    """A replay ignores nothing."""
    bench = _bench(tmp_path)
    reasons = [result.reason for result in replay(bench.url, routes({**LENIENT, "topic": "c"}))]
    assert reasons[0] == "no route covers its topic"
    assert len(bench.dead()) == 2


def test_what_the_database_still_refuses_stays(tmp_path: Path) -> None:
    """A user's own constraint is a reason like any other."""
    bench = _bench(tmp_path)
    bench.sql("CREATE TRIGGER no BEFORE INSERT ON a_b BEGIN SELECT RAISE(ABORT, 'no'); END")
    reasons = [result.reason for result in replay(bench.url, routes(LENIENT), LetterChoice(topic="a/b"))]
    assert reasons == ["the database rejects a value: IntegrityError"]
    assert len(bench.dead()) == 3


def test_purging_deletes_what_is_named_or_all(tmp_path: Path) -> None:
    """The answer says how many there were."""
    bench = _bench(tmp_path)
    assert purge(bench.url, LetterChoice(frozenset([bench.dead()[0].id]))) == 1
    assert purge(bench.url) == 2
    assert bench.dead() == []


def test_a_remodel_meanwhile_loses_no_letter(tmp_path: Path) -> None:
    """A letter that is replayed after its topic has moved goes to the topic's new tables."""
    bench = Workbench(tmp_path, STRICT)
    bench.send(("t", {"v": 0}), ("t", {"v": "one"}), ("t", {"v": "two"}))
    results = replay(bench.url, routes(LENIENT))
    assert next(results).reason is None
    remodel = Remodel(bench.url, routes({**LENIENT, "model": "eav"}))
    for move in remodel.moves():
        list(remodel.move(move))
    remodel.close()
    assert [result.reason for result in results] == [None]
    assert [data["v"] for data in bench.data()] == [0.0, "one", "two"]


def test_a_database_that_is_away_is_one_line(tmp_path: Path) -> None:
    """The database's answer becomes one of the project's errors."""
    bench = _bench(tmp_path)
    bench.sql("DROP TABLE mqtt_dead_letter")
    bench.sql("CREATE VIEW mqtt_dead_letter AS SELECT 1 AS id")
    with pytest.raises(DatabaseError, match="the database answers"):
        list(replay(bench.url, routes(LENIENT)))
