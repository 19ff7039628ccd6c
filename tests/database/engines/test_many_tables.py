"""A batch for many tables, one per topic: working on many at once gives the right result for each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import pytest
import sqlalchemy as sa

from amqtt_db.errors import DatabaseError
from amqtt_db.models.base import Row, TableName
from amqtt_db.models.wide import Wide
from amqtt_db.record import Record
from tests.database.engines.servers import Site
from tests.values import NASTY_NUMBERS, NASTY_TEXT, same
from tests.workbench import Sent, Workbench

ENVELOPE = ("id", "part", "time", "topic", "session", "qos", "retain", "extra")
ENTITY = {
    "at": "datetime",
    "day": "date",
    "clock": "time",
    "amount": "decimal",
    "key": "uuid",
    "n": "int",
    "v": "float",
    "s": "str",
    "b": "bool",
}
"""A property of each kind that has its own column."""


def _reading(number: int) -> dict[str, Any]:
    return {
        "at": f"20{number % 100:02}-01-31T12:00:00.{number:06}+00:00",
        "day": f"20{number % 100:02}-01-31",
        "clock": f"12:00:00.{number:06}",
        "amount": f"{number}.10",
        "key": f"12345678-1234-5678-1234-{number:012}",
        "n": 2**62 + number,
        "v": number,
        "s": f"it's \\ {number} 🙂",
        "b": number % 2 == 0,
        "more": [number, None, {"a": 10**30 + number}],
    }


def _own(bench: Workbench, table: str) -> list[str]:
    """The columns of properties."""
    return [name for name in bench.columns(table) if name not in ENVELOPE]


@pytest.mark.slow
@pytest.mark.parametrize("rows", [1, 7, 13])
def test_many_tables_get_few_rows_each(rows: int, site: Site) -> None:
    """More tables than share a statement, every kind of column: each has its own rows, as alone they would be."""
    topics = 150
    bench = Workbench(site, {"topic": "#", "entity": ENTITY})
    sent = [Sent(f"t{number % topics}", _reading(number), qos=number % 3) for number in range(rows * topics)]
    bench.send(*sent)
    assert not bench.dead()
    found = bench.records()
    assert [(record.topic, record.qos) for record in found] == [(message.topic, message.qos) for message in sent]
    (site.path / "reference").mkdir()
    reference = Workbench(
        site.path / "reference", {"topic": "#", "model": {"wide": {"table": "all"}}, "entity": ENTITY}
    )
    reference.send(*sent)
    wanted = reference.records()
    reference.close()
    assert [record.properties() for record in found] == [record.properties() for record in wanted]
    assert [record.time_us for record in found] == [record.time_us for record in wanted]
    names = sorted({message.topic for message in sent})
    each = " UNION ALL ".join(f"SELECT count(*), min(topic), max(topic) FROM {name}" for name in names)
    assert sorted(bench.sql(each)) == [(rows, name, name) for name in names]


@pytest.mark.slow
def test_values_that_do_not_fit_come_back_beside_others(site: Site) -> None:
    """A value that one topic's column cannot hold affects neither its own message nor those of other topics."""
    values = [*NASTY_TEXT, *NASTY_NUMBERS]
    bench = Workbench(site)
    bench.send(*((f"t{number}", {"v": value, "l": [value]}) for number, value in enumerate(values)))
    assert not bench.dead()
    found = bench.data()
    wanted = [float(value) if type(value) is int and abs(value) <= 2**53 else value for value in values]
    assert same([data["v"] for data in found], wanted)
    assert same([data["l"] for data in found], [[value] for value in values])


def test_topics_keep_to_their_own_kinds(site: Site) -> None:
    """The same names elsewhere give a table neither a column that its topic never filled nor one of another kind."""
    bench = Workbench(site)
    sent: list[dict[str, Any]] = [
        {"v": 1.5, "w": None},
        {"v": "text", "w": 2.5},
        {"v": None, "w": True},
        {"v": {"x": 1}, "w": 0},
    ]
    for _ in range(2):
        bench.send(*((f"t{number}", data) for number, data in enumerate(sent)))
    assert bench.data("t2") == [{"w": True}, {"w": True}]
    assert [_own(bench, f"t{number}") for number in range(4)] == [["v"], ["v", "w"], ["w"], ["v_x", "w"]]


def test_a_property_that_is_null_elsewhere_has_no_column(site: Site) -> None:
    """Objects with equal keys are typed together, but null in one topic does not get another topic's kind."""
    bench = Workbench(site)
    bench.send(("t0", {"v": 1, "w": 2}), ("t1", {"v": 1, "w": None}), ("t2", {"v": None, "w": 3}))
    assert [_own(bench, f"t{number}") for number in range(3)] == [["v", "w"], ["v"], ["w"]]
    assert bench.data() == [{"v": 1.0, "w": 2.0}, {"v": 1.0}, {"w": 3.0}]


def test_tables_keep_the_order_of_their_own_columns(site: Site) -> None:
    """Rows of tables whose columns came in another order are not made together."""
    bench = Workbench(site)
    for topic, name in (("t0", "a"), ("t0", "b"), ("t1", "b"), ("t1", "a")):
        bench.send((topic, {name: 1}))
    sent = [("t0", {"a": 1.0, "b": 2.0}), ("t1", {"a": 3.0, "b": 4.0})]
    for _ in range(3):
        bench.send(*sent)
    assert bench.data()[4:] == [data for _, data in sent] * 3


def test_what_others_send_decides_nothing_of_a_table(site: Site) -> None:
    """The plain column goes to the first kind that the table's own topic sends, the room to its first properties."""
    bench = Workbench(site)
    bench.send(("b", {"v": 1}), ("a", {"v": "x"}), ("a", {"v": 1}))
    assert _own(bench, "a") == ["v", "v__number"]
    assert bench.sql("SELECT v FROM a ORDER BY id") == [("x",), (None,)]
    bench.restart({"topic": "#", "max_columns": 1})
    bench.send(("d", {"y": 1}), ("c", {"x": 1}), ("c", {"y": 1}))
    assert _own(bench, "c") == ["x"]


@attrs.frozen
class Signed(Wide):
    """A user's model whose rows are not those of `wide`."""

    def write(self, record: Record) -> Iterator[tuple[TableName, Row]]:
        """The same rows, signed with the topic."""
        for key, row in super().write(record):
            yield key, {**row, "topic": f"{record.topic}@{record.id % 2**40}"}


def test_a_model_with_rows_of_its_own_writes_each_itself(site: Site) -> None:
    """Topics are written together only if the same work is done for all."""
    bench = Workbench(site, {"topic": "#", "model": f"{__name__}.Signed"})
    bench.send(*((f"t{number}", {"v": 1}) for number in range(3)))
    assert [bench.sql(f"SELECT topic FROM t{number}") for number in range(3)] == [
        [(f"t{number}@{number + 1}",)] for number in range(3)
    ]


def test_a_value_refused_by_the_server_costs_its_message_alone(site: Site) -> None:
    """A constraint of one table, in the midst of a statement for many."""
    bench = Workbench(site)
    topics = [f"t{number}" for number in range(9)]
    bench.send(*((topic, {"v": 1}) for topic in topics))
    bench.sql("CREATE UNIQUE INDEX only_once ON t5 (v)")
    bench.send(*((topic, {"v": 1}) for topic in topics), *((topic, {"v": 2}) for topic in topics))
    assert [letter.topic for letter in bench.dead()] == [b"t5"]
    assert len(bench.records()) == 26


@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
def test_a_column_that_nobody_fills_is_told_with_its_table(engine: str, request: pytest.FixtureRequest) -> None:
    """The right one of all the tables that share a statement or a packet."""
    server: Site = request.getfixturevalue(engine)
    bench = Workbench(server)
    topics = [f"t{number}" for number in range(9)]
    bench.send(*((topic, {"v": 1}) for topic in topics))
    bench.sql("ALTER TABLE t5 ADD COLUMN owner VARCHAR(20) NOT NULL DEFAULT 'nobody'")
    bench.sql("ALTER TABLE t5 ALTER COLUMN owner DROP DEFAULT")
    with pytest.raises(DatabaseError, match="column owner of table t5 was added by hand"):
        bench.send(*((topic, {"v": 1}) for topic in topics))


def test_rules_on_tables_are_not_followed(postgresql: Site) -> None:
    """COPY ignores them, and the result does not depend on the number of rows."""
    bench = Workbench(postgresql)
    topics = [f"t{number}" for number in range(9)]
    bench.send(*((topic, {"v": 1}) for topic in topics))
    bench.sql("CREATE TABLE log (v float8); CREATE RULE r AS ON INSERT TO t5 DO ALSO INSERT INTO log VALUES (NEW.v)")
    with pytest.raises(sa.exc.DBAPIError, match="rules are not supported"):
        bench.send(*((topic, {"v": 2}) for topic in topics))  # of a rule that is new, a writer learns when it connects
    bench.position = bench.checkpoint
    bench.restart()
    bench.send(*((topic, {"v": 2}) for topic in topics))
    bench.send(("t5", {"v": 3}))
    assert len(bench.records()) == 19
    assert bench.sql("SELECT v FROM log") == []


def test_a_column_of_another_type_rounds_nothing(postgresql: Site) -> None:
    """If a column's type was changed, rows that do not fit are rejected, few or many, and never rounded."""
    bench = Workbench(postgresql)
    bench.send(("t", {"v": 0.1}))
    bench.sql("DROP VIEW t_view; ALTER TABLE t ALTER COLUMN v TYPE real")
    bench.send(*(("t", {"v": 0.1}) for _ in range(20)))
    bench.send(("t", {"v": 0.1}))
    assert len(bench.dead()) == 21
    assert bench.sql("SELECT count(*) FROM t") == [(1,)]
