"""Tables whose rows replace older ones: the newest row stays, whatever the order, on every engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import permutations
from typing import Any

import attrs
import pytest

from amqtt_db.models import Column, Document, Table
from amqtt_db.models.base import Destination, Row, TableName
from amqtt_db.models.binding import bind
from amqtt_db.record import Record, Shape
from tests.database.engines.servers import Site
from tests.workbench import Workbench

MODEL = f"{__name__}.Latest"


@attrs.frozen
class Latest(Document):
    """Documents, and the newest value of each topic and port."""

    prefix: str = "kept"

    def tables(self, shape: Shape) -> Iterable[Table]:
        """The documents, and the newest values."""
        yield from super().tables(shape)
        columns = [Column("source", lookup="source"), Column("port", "int64"), Column("v", "number"), Column("note")]
        yield Table("newest", columns, key=["source", "port"], replaces=True)

    def write(self, record: Record) -> Iterator[tuple[TableName, Row]]:
        """A document and a value."""
        yield from super().write(record)
        port = int(record.get("port", 0.0))
        yield "newest", {"source": record.topic, "port": port, "v": record.get("v"), "note": record.get("note")}


def newest(bench: Workbench) -> list[tuple[Any, ...]]:
    """Source, port, value, note and position of each row."""
    query = "SELECT s.source, n.port, n.v, n.note, n.id FROM newest n JOIN source s ON s.id = n.source ORDER BY 1, 2"
    return [(*row[:4], row[4] % 2**40) for row in bench.sql(query)]


def test_the_newest_row_stays(site: Site) -> None:
    """In one batch and over several: late messages change nothing, NULL replaces a value, other keys are unaffected."""
    bench = Workbench(site, {"topic": "#", "model": MODEL, "time": "at"})
    bench.send(("a", {"at": 10, "v": 1, "note": "it's"}), ("a", {"at": 30, "v": 3}), ("a", {"at": 20, "v": 2}))
    assert newest(bench) == [("a", 0, 3.0, None, 2)]
    bench.send(("a", {"at": 29, "v": 4}), ("b", {"at": 1, "v": 5, "note": "x"}), ("a", {"at": 1, "port": 7}))
    assert newest(bench) == [("a", 0, 3.0, None, 2), ("a", 7, None, None, 6), ("b", 0, 5.0, "x", 5)]
    bench.send(("b", {"at": 2}), ("a", {"at": 31, "note": "last"}))
    assert newest(bench) == [("a", 0, None, "last", 8), ("a", 7, None, None, 6), ("b", 0, None, None, 7)]
    assert len(bench.records()) == 8
    assert not bench.dead()


def test_of_records_of_one_time_the_last_stays(site: Site) -> None:
    """The id decides, then the part."""
    bench = Workbench(site, {"topic": "#", "model": MODEL, "time": "at", "each": ""})
    bench.send(("a", [{"at": 5, "v": 1}, {"at": 5, "v": 2}]))
    assert newest(bench) == [("a", 0, 2.0, None, 1)]
    bench.send(("a", [{"at": 5, "v": 3}, {"at": 5, "v": 4}, {"at": 4, "v": 5}]))
    assert newest(bench) == [("a", 0, 4.0, None, 2)]


def test_many_keys_in_one_batch(site: Site) -> None:
    """More rows than one statement takes."""
    bench = Workbench(site, {"topic": "#", "model": MODEL})
    count = 3000
    bench.send(*(("a", {"port": number % count, "v": number}) for number in range(2 * count)))
    assert bench.sql("SELECT count(*), min(v), sum(v) FROM newest") == [(count, count, sum(range(count, 2 * count)))]


@pytest.mark.slow
@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_the_order_of_batches_does_not_matter(order: tuple[int, ...], site: Site) -> None:
    """The journal that they come from does not matter either."""
    times = [30, 10, 20]
    bench = Workbench(site, {"topic": "#", "model": MODEL, "time": "at"})
    for number in order:
        bench.send(("a", {"at": times[number], "v": number}))
    ((_, _, value, _, _),) = newest(bench)
    assert value == 0


@pytest.mark.parametrize(
    ("table", "why"),
    [
        (Table("newest", [Column("source")], key=["source"], replaces=True), "a lookup or integers"),
        (Table("newest", [Column("source", lookup="source")], replaces=True), "a name and a key"),
        (Table("more", [Column("source")], key=["source"]), "a lookup or integers"),
        (Table(None, [Column("n", "int64")], key=["n"], replaces=True), "a name and a key"),
    ],
)
def test_what_cannot_replace_is_refused(table: Table, why: str) -> None:
    """With a sentence, before anything is stored."""

    @attrs.frozen
    class Odd(Document):
        def tables(self, shape: Shape) -> Iterable[Table]:
            yield from super().tables(shape)
            yield table

    with pytest.raises(Exception, match=why):
        bind(Odd(), Destination("t"), timed=False).tables()
