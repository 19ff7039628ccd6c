"""Ids of new keys: a batch looks up all of them together, however they are spread over its messages."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import sqlalchemy as sa

from amqtt_db.errors import DatabaseError
from tests.database.engines.servers import Site
from tests.workbench import Sent, Workbench


def _transactions(bench: Workbench, names: list[str]) -> int:
    """Return how many transactions store a batch of messages, each with a property of its own; views wait."""
    bench.writer._views._not_before = math.inf
    begun: list[object] = []
    database, note = bench.writer._database, begun.append
    sa.event.listen(database, "begin", note)
    bench.send(*(("t", {name: index}) for index, name in enumerate(names)))
    sa.event.remove(database, "begin", note)
    return len(begun)


@pytest.mark.parametrize("model", ["eav", "narrow"])
def test_new_names_cost_one_transaction(model: str, tmp_path: Path) -> None:
    """It has no more transactions for a hundred names than for one; known names need none at all."""
    bench = Workbench(tmp_path, {"topic": "#", "model": model})
    bench.send(("t", {"a": 1}))
    one, many = _transactions(bench, ["b"]), _transactions(bench, [f"c{number}" for number in range(100)])
    assert many == one
    assert _transactions(bench, ["a", "b", "c1"]) < one
    assert [record.properties() for record in bench.records()][1:101] == [
        {"b": ("number", 0.0)},
        *({f"c{number}": ("number", float(number))} for number in range(99)),
    ]


@pytest.mark.parametrize("model", ["eav", "narrow", {"wide": {"table": "w"}}], ids=["eav", "narrow", "wide"])
def test_odd_values_among_new_names(model: object, site: Site) -> None:
    """Messages with a new name each are stored exactly, also those whose value needs another column."""
    bench = Workbench(site, {"topic": "#", "model": model})
    values = [index / 4 if index % 7 else (-0.0, 10**20, "text", 2**60)[index // 7] for index in range(28)]
    bench.send(*(("t", {f"name {index}": value}) for index, value in enumerate(values)))
    assert [repr(data[f"name {index}"]) for index, data in enumerate(bench.data())] == list(map(repr, values))
    assert not bench.dead()


def test_a_constraint_on_a_lookup_is_not_the_messages_fault(tmp_path: Path) -> None:
    """While somebody's trigger refuses new names, messages wait; the error says which table refuses them."""
    bench = Workbench(tmp_path, {"topic": "#", "model": "eav"})
    bench.send(("t", {"a": 1}))
    bench.sql("CREATE TRIGGER no BEFORE INSERT ON mqtt_property BEGIN SELECT RAISE(ABORT, 'no'); END")
    batch = bench.batch(Sent("t", {"b": 2}))
    with pytest.raises(DatabaseError, match="cannot look up ids in mqtt_property: IntegrityError"):
        bench.store(batch)
    bench.sql("DROP TRIGGER no")
    bench.store(batch)
    assert bench.data() == [{"a": 1.0}, {"b": 2.0}]


def test_the_schema_is_free_again(site: Site) -> None:
    """After new keys of several lookups in one batch, another writer gets the schema's lock at once."""
    entry = {"topic": "#", "model": "narrow"}
    bench, other = Workbench(site, entry), Workbench(site, entry, token="b")
    for number in range(3):
        bench.send((f"t/{number}", {f"p{number}": 1}))
        other.send((f"u/{number}", {f"q{number}": 1}))
    assert len(bench.records()) == 6
