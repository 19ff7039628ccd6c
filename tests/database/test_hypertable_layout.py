"""How tables lie in chunks: what a route names, and what models choose where it names nothing."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import attrs
import pytest

from amqtt_db.database.catalog import PhysicalTable
from amqtt_db.database.engines import engine_for
from amqtt_db.database.hypertable_layout import hypertable_layout
from amqtt_db.errors import DatabaseError
from amqtt_db.models.base import Destination, Model
from amqtt_db.models.binding import BoundTable, bind
from amqtt_db.models.document import Document
from amqtt_db.models.eav import Eav
from amqtt_db.models.narrow import Narrow
from amqtt_db.models.wide import Wide
from amqtt_db.record import Pair
from amqtt_db.routing.route import Hypertable, Ordering
from amqtt_db.writer.crash_guard import CrashGuard
from amqtt_db.writer.writer import Writer
from tests.workbench import routes

NEWEST = Ordering("time", descending=True)


def _tables(model: Model) -> list[BoundTable]:
    return list(bind(model, Destination("t"), timed=True).tables())


def _known(table: BoundTable, **columns: Pair) -> PhysicalTable:
    return PhysicalTable(table.key, table.name, {pair: name for name, pair in columns.items()})


@pytest.mark.parametrize(
    ("model", "segments"),
    [
        (Wide(), [()]),
        (Wide(table="x"), [("topic",)]),
        (Document(), [("topic",)]),
        (Eav(), [("topic",), ("property",)]),
        (Narrow(), [("topic",), ("series",)]),
    ],
)
def test_models_choose_by_their_indexes(model: Model, segments: list[tuple[str, ...]]) -> None:
    """Rows that are queried together by time are compressed together; ids distinguish late rows from duplicates."""
    chunks = [hypertable_layout(table, _known(table), Hypertable()) for table in _tables(model)]
    assert [one.segment_by for one in chunks] == segments
    assert {one.order_by for one in chunks} == {(NEWEST, Ordering("id"), Ordering("part"))}


def test_names_become_columns() -> None:
    """Fixed columns, properties and levels, by whatever name their columns got; of several kinds the plain one."""
    (table,) = _tables(Wide(table="x"))
    known = _known(table, room=("{room}", "text"), temp__text=("temp", "text"), temp=("temp", "number"))
    wish = Hypertable(
        timedelta(hours=1), timedelta(days=2), ("{room}", "qos"), (Ordering("temp", descending=True), Ordering("time"))
    )
    chunks = hypertable_layout(table, known, wish)
    assert (chunks.length, chunks.compress_after) == (timedelta(hours=1), timedelta(days=2))
    assert chunks.segment_by == ("room", "qos")
    assert chunks.order_by == (Ordering("temp", descending=True), Ordering("time"))


def test_what_is_not_there_yet_is_left_out() -> None:
    """A property without a column, and columns of the model's other table."""
    (table,) = _tables(Wide(table="x"))
    wish = Hypertable(segment_by=("machine", "qos"), order_by=(Ordering("machine"),))
    chunks = hypertable_layout(table, _known(table), wish)
    assert chunks.segment_by == ("qos",)
    assert chunks.order_by[0] == NEWEST
    messages, values = _tables(Eav())
    wish = Hypertable(segment_by=("topic",))
    assert hypertable_layout(messages, _known(messages), wish).segment_by == ("topic",)
    assert hypertable_layout(values, _known(values), wish).segment_by == ("property",)


def test_an_engine_without_hypertables_says_so(tmp_path: Path) -> None:
    """An engine that the configuration does not know says so too."""
    (route,) = routes({"topic": "#"})
    wish = attrs.evolve(route, timed=True, hypertable=Hypertable(path="routes[0].hypertable"))
    guard = CrashGuard(tmp_path / "attempt")
    writer = Writer(engine_for(f"sqlite:///{tmp_path / 'mqtt.db'}"), [wish], guard)
    with pytest.raises(
        DatabaseError, match=r"^routes\[0\]\.hypertable: the database has no hypertables; leave it out$"
    ):
        writer.prepare()
    writer.close()
    guard.close()
