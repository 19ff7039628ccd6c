"""All calls of a model's methods by the writer: what they raise, or return wrongly, is the message's fault.

A model may be a user's.  Whoever works on messages asks it through these functions, which raise StructureError and
nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, get_args

from amqtt_db.errors import StructureError, blame_message
from amqtt_db.models.base import Cell, Column, Destination, Layout, Model, Query, RowMaker, Table
from amqtt_db.record import KINDS, Record, Shape

_KINDS: Final = frozenset(KINDS)


def tables_of(model: Model, destination: Destination, shape: Shape) -> tuple[Table, ...]:
    """Return the tables that records of ``shape`` need, checked to be what the database can be asked for."""
    with _calling(model, "tables"):
        tables = tuple(model.tables(destination, shape))
        for table in tables:
            for fault in _faults(table):
                raise StructureError(f"{fault} (in {_name(model, 'tables')})")
        if len({table.key for table in tables}) < len(tables):
            raise StructureError(f"two tables have the same key (in {_name(model, 'tables')})")
    return tables


def query_of(model: Model, destination: Destination) -> Query:
    """Return the query that finds records again."""
    with _calling(model, "query"):
        query: Query = _require(model.query(destination), Query)
        return query


def layout_of(model: Model) -> Layout | None:
    """Return where SQL finds the properties; None means no view."""
    with _calling(model, "layout"):
        layout = model.layout()
        return None if layout is None else _require(layout, get_args(Layout))


def maker_of(model: Model, destination: Destination, shape: Shape, cells: Mapping[str, Sequence[Cell]]) -> RowMaker:
    """Return the function that makes rows of records; it too raises StructureError and nothing else."""
    with _calling(model, "maker"):
        make = model.maker(destination, shape, cells)

    def make_rows(records: Sequence[Record]) -> Mapping[str, list[tuple[Any, ...]]]:
        with _calling(model, "maker"):
            return make(records)

    return make_rows


def is_uniform(model: Model) -> bool:
    """Return True if the records of many places may be laid together."""
    with _calling(model, "is_uniform"):
        return bool(model.is_uniform)


def has_tables_per_topic(model: Model) -> bool:
    """Return True if each topic has tables of its own."""
    with _calling(model, "per_topic"):
        return bool(model.per_topic)


def _calling(model: Model, method: str) -> Any:
    return blame_message(_name(model, method))


def _name(model: Model, method: str) -> str:
    return f"{type(model).__name__}.{method}"


def _require(value: Any, types: Any) -> Any:
    if not isinstance(value, types):
        raise TypeError(f"it returns a {type(value).__name__}")
    return value


def _faults(table: Any) -> Iterator[str]:
    """Yield what is wrong with a table that a model wants."""
    if not isinstance(table, Table):
        yield f"a {type(table).__name__} is not a Table"
        return
    columns = tuple(table.columns)
    if not all(isinstance(column, Column) and column.kind in _KINDS for column in columns):
        yield f"table {table.name} has a column that is not a Column, or of no kind"
        return
    names = [column.name for column in columns]
    if not all(isinstance(text, str) and text for text in (table.key, table.name, *names)):
        yield "a table or a column has no name"
    elif len(set(names)) < len(names):
        yield f"table {table.name} has two columns with the same name"
    elif not {*table.primary_key, *(name for index in table.indexes for name in index)} <= set(names):
        yield f"table {table.name} has a key or an index over a column that it does not have"
    elif table.overflow is not None and table.overflow not in names:
        yield f"table {table.name} has no column {table.overflow}, in which the rest should go"
    elif not all(isinstance(path, str) and kind in _KINDS for path, kind in table.properties):
        yield f"table {table.name} has a property that is not a pair of a path and a kind"
