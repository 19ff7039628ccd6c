"""Tables that another model has created: a route's model that does not fit is reported before anything is stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from amqtt_db.errors import DatabaseError
from amqtt_db.models.base import Column, Row, Table, TableName
from amqtt_db.models.wide import Wide
from amqtt_db.record import Record, Shape
from amqtt_db.writer.remodel import Remodel
from tests.database.engines.servers import Site
from tests.workbench import Workbench, routes

_SEALS: Final[dict[str, Any]] = {"int64": 1, "text": "red", "json": ["red"]}


@attrs.frozen
class Sealed(Wide):
    """``wide`` with one more column."""

    kind: str = "int64"
    optional: bool = False

    def tables(self, shape: Shape) -> Iterable[Table]:
        """The table of ``wide``, and the column ``seal``."""
        (table,) = Wide.tables(self, shape)
        seal = Column("seal", self.kind, nullable=self.optional)  # type: ignore[arg-type]
        yield attrs.evolve(table, columns=(*table.columns, seal))

    def write(self, record: Record) -> Iterator[tuple[TableName, Row]]:
        """The row of ``wide``, sealed unless that is optional."""
        for key, row in Wide.write(self, record):
            yield key, {**row, "seal": None if self.optional else _SEALS[self.kind]}


def _sealed(**options: Any) -> dict[str, Any]:
    return {"tests.writer.test_existing_tables.Sealed": {"table": "c", **options}}


def _remodel(bench: Workbench, model: Any) -> None:
    """Run ``amqtt-db remodel --drop``."""
    remodel = Remodel(bench.url, routes({"topic": "#", "model": model}, url=bench.url))
    try:
        for move in remodel.moves():
            list(remodel.move(move))
            list(remodel.drop(move))
    finally:
        remodel.close()


def _refused(table: str, column: str) -> Any:
    """The sentence, with a column that tells."""
    return pytest.raises(
        DatabaseError, match=f"table {table}, which route # names, already holds .* another model, .* such as {column};"
    )


@pytest.mark.slow
@pytest.mark.parametrize("topic", ["here", "there"])
@pytest.mark.parametrize(
    ("before", "after", "table"),
    [
        ({"wide": {"table": "a_message"}}, {"eav": {"prefix": "a"}}, "a_message"),
        ({"eav": {"prefix": "a"}}, {"wide": {"table": "a_message"}}, "a_message"),
        ({"wide": {"table": "a_value"}}, {"eav": {"prefix": "a"}}, "a_value"),
        ({"narrow": {"prefix": "a"}}, {"wide": {"table": "a_point"}}, "a_point"),
        ({"document": {"prefix": "a"}}, {"wide": {"table": "a_document"}}, "a_document"),
    ],
)
def test_a_table_of_another_model_is_no_reason_for_dead_letters(
    before: Any, after: Any, table: str, topic: str, tmp_path: Path
) -> None:
    """The YAML names it for a model whose rows it cannot hold: the writer says so, and the messages wait."""
    bench = Workbench(tmp_path, {"topic": "here", "model": before})
    bench.send(("here", {"v": 1}))
    columns = bench.columns(table)
    with pytest.raises(
        DatabaseError, match=f"table {table}, which route {topic} names, already holds .* another model"
    ):
        bench.restart({"topic": topic, "model": after})
    assert bench.columns(table) == columns
    bench.restart({"topic": "here", "model": before})
    bench.send(("here", {"v": 2}))
    assert bench.data() == [{"v": 1}, {"v": 2}]
    assert bench.dead() == []


def test_a_table_that_two_models_share_in_one_form_is_shared(tmp_path: Path) -> None:
    """`eav` and `narrow` have one table of messages; a table of another form that was dropped is not in the way."""
    bench = Workbench(tmp_path, {"topic": "#", "model": {"eav": {"prefix": "a"}}})
    bench.send(("t", {"v": 1}))
    bench.restart({"topic": "#", "model": {"narrow": {"prefix": "a"}}})
    bench.send(("t", {"v": 2}))
    assert bench.data() == [{"v": 1}, {"v": 2}]
    bench.close()
    bench.sql("DROP TABLE a_message")
    bench.restart({"topic": "#", "model": {"wide": {"table": "a_message"}}})
    bench.send(("t", {"v": 3}))
    bench.restart()
    bench.send(("t", {"v": 4}))
    assert bench.dead() == []


EAV, WIDE, AS_MESSAGE = {"eav": {"prefix": "a"}}, {"wide": {"table": "b"}}, {"wide": {"table": "a_message"}}


def test_a_table_that_was_left_empty_keeps_its_form(site: Site) -> None:
    """Nothing is known any more of the model that made it; what its columns are is asked of the database."""
    bench = Workbench(site, {"topic": "#", "model": EAV})
    bench.send(("t", {"v": 1}))
    _remodel(bench, WIDE)
    for model, table, column in ((AS_MESSAGE, "a_message", "topic"), ({"wide": {"table": "a_value"}}, "a_value", ".*")):
        with _refused(table, column):
            bench.restart({"topic": "#", "model": model})
    bench.restart({"topic": "#", "model": EAV})
    bench.send(("t", {"v": 2}))
    assert bench.data() == [{"v": 1}, {"v": 2}]


def test_a_table_that_was_made_anew_has_its_last_form(site: Site) -> None:
    """If two models have created it, the earlier one is rejected."""
    bench = Workbench(site, {"topic": "#", "model": EAV})
    bench.send(("t", {"v": 1}))
    bench.close()
    bench.sql("DROP TABLE a_message" + (" CASCADE" if site.engine == "postgresql" else ""))
    bench.restart({"topic": "#", "model": AS_MESSAGE})
    bench.send(("t", {"v": 2}))
    with _refused("a_message", "topic"):
        bench.restart({"topic": "#", "model": EAV})
    bench.restart({"topic": "#", "model": AS_MESSAGE})
    bench.send(("t", {"v": 3}))
    assert bench.dead() == []


@pytest.mark.slow
def test_remodel_is_refused_as_the_writer_is(site: Site) -> None:
    """It is refused before any topic moves, so that the writer is refused afterwards as well."""
    bench = Workbench(site, {"topic": "#", "model": EAV})
    bench.send(("t", {"v": 1}))
    for _ in range(2):
        with _refused("a_message", "topic"):
            bench.restart({"topic": "#", "model": AS_MESSAGE})
        with _refused("a_message", "topic"):
            _remodel(bench, AS_MESSAGE)
    bench.restart({"topic": "#", "model": EAV})
    bench.send(("t", {"v": 2}))
    assert bench.data() == [{"v": 1}, {"v": 2}]


@pytest.mark.slow
def test_a_column_that_was_added_is_in_nobodys_way(site: Site) -> None:
    """A user's model has added a nullable column that it always fills; rows without it fit."""
    plain = {"wide": {"table": "c"}}
    bench = Workbench(site, {"topic": "#", "model": plain})
    bench.send(("t", {"v": 1}))
    for model in (_sealed(), plain, _sealed(), _sealed(optional=True)):
        _remodel(bench, model)
        bench.restart({"topic": "#", "model": model})
        bench.send(("t", {"v": 1}))
    assert bench.data() == [{"v": 1}] * 5
    assert bench.dead() == []


def test_a_column_that_a_newer_model_has_is_added_before_it_is_written_to(site: Site) -> None:
    """No batch fails because it is missing."""
    bench = Workbench(site, {"topic": "#", "model": {"wide": {"table": "c"}}})
    bench.send(("t", {"v": 1}))
    bench.restart({"topic": "#", "model": _sealed()})
    bench.send(("t", {"v": 2}))
    assert sorted(bench.sql("SELECT v, seal FROM c")) == [(1, None), (2, 1)]
    assert bench.data() == [{"v": 1}, {"v": 2}]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (_sealed(), {"wide": {"table": "c"}}),
        (_sealed(), _sealed(optional=True)),
        (_sealed(), _sealed(kind="text")),
        (_sealed(kind="text"), _sealed(kind="json")),
        ({"wide": {"table": "c"}}, _sealed()),
    ],
)
def test_a_column_must_be_what_the_model_takes_it_for(before: Any, after: Any, site: Site) -> None:
    """One that must be filled, that may not be empty, of another type or kind, or of a property."""
    bench = Workbench(site, {"topic": "#", "model": before})
    bench.send(("t", {"seal": 1}))
    with _refused("c", "seal"):
        bench.restart({"topic": "#", "model": after})


def test_what_users_do_to_a_table_is_in_nobodys_way(site: Site) -> None:
    """Their own columns with defaults, a larger key than necessary, and compatible types."""
    bench = Workbench(site, {"topic": "#", "model": {"wide": {"table": "c"}}})
    bench.send(("t", {"v": 1}))
    bench.close()
    bench.sql("ALTER TABLE c ADD COLUMN checked BIGINT DEFAULT 0 NOT NULL")
    if site.engine == "sqlite":
        (made,) = bench.sql("SELECT sql FROM sqlite_schema WHERE name = 'c'")[0]
        bench.sql("ALTER TABLE c RENAME TO d")
        bench.sql(made.replace("DATETIME", "TEXT").replace("BIGINT", "INTEGER"))
        bench.sql("INSERT INTO c SELECT * FROM d")
    elif site.engine == "postgresql":
        bench.sql("ALTER TABLE c DROP CONSTRAINT c_pkey, ADD PRIMARY KEY (id, part, time)")
        bench.sql("DROP VIEW c_view")
        bench.sql("CREATE DOMAIN short AS varchar(200)")
        bench.sql("ALTER TABLE c ALTER COLUMN topic TYPE short")
    elif site.engine == "mysql":
        bench.sql("ALTER TABLE c DROP PRIMARY KEY, ADD PRIMARY KEY (id, part, time)")
    bench.open()
    bench.send(("t", {"v": 2}))
    assert bench.data() == [{"v": 1}, {"v": 2}]
