"""Calls of a model's methods: results are checked, and for errors the message is blamed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final, get_args

from amqtt_db.errors import StructureError, blame_message
from amqtt_db.models.base import Column, Layout, Lookup, Model, Table
from amqtt_db.record import ENVELOPE_NAMES, KINDS, Record, Shape

_KINDS: Final = frozenset(KINDS)

Watch = Callable[[str], AbstractContextManager[None]]
"""Notes that the model with this spec is being called outside batches, in case it kills the process."""


def unwatched(_: str) -> AbstractContextManager[None]:
    """Note nothing: for processes that nobody restarts."""
    return nullcontext()


@contextmanager
def asking(spec: str, watch: Watch) -> Iterator[None]:
    """Call the model with this spec outside batches.  Raises only Rejected."""
    with watch(spec), blame_message():
        yield


def calling(model: Model, method: str) -> AbstractContextManager[None]:
    """Turn whatever a model's method raises into a StructureError that names the method."""
    return blame_message(f"{type(model).__name__}.{method}")


def tables_of(model: Model, shape: Shape) -> tuple[Table, ...]:
    """Return the tables that records of ``shape`` need, the record's own first, with the extra columns and indexes."""
    tables = tuple(model.tables(shape))
    for fault in _faults(tables):
        raise StructureError(fault)
    extended = _extended(tables[0], tuple(model.extra_columns()), tuple(map(tuple, model.extra_indexes())))
    for fault in (*_faults_of(extended), *lookup_faults((extended, *tables[1:]))):
        raise StructureError(fault)
    return (extended, *tables[1:])


def _extended(first: Table, columns: tuple[Column, ...], indexes: tuple[tuple[str, ...], ...]) -> Table:
    """Return a table with further columns and indexes; the same one if there are none."""
    if not columns and not indexes:
        return first
    return Table(
        first.name,
        (*first.columns, *columns),
        properties=first.properties,
        key=first.key,
        indexes=(*first.indexes, *indexes),
        overflow=first.overflow,
    )


def layout_of(model: Model) -> Layout | None:
    """Return where SQL finds the properties; None means no view."""
    layout = model.layout()
    if not isinstance(layout, (*get_args(Layout), type(None))):
        raise TypeError(f"it returns a {type(layout).__name__}")
    return layout


def required_record(model: Model, result: object) -> Record:
    """Return what a model's ``read`` returned.  Raises StructureError if that is not a record."""
    if not isinstance(result, Record):
        name = type(model).__name__
        raise StructureError(f"{name}.read returned a {type(result).__name__}, not a Record; correct {name}.read")
    return result


def _faults(tables: tuple[Any, ...]) -> Iterator[str]:
    """Yield what is wrong with a model's tables."""
    if not tables:
        yield "there is no table"
    for table in tables:
        if not isinstance(table, Table):
            yield f"a {type(table).__name__} is not a Table"
        else:
            yield from _faults_of(table)
    if len({table.name for table in tables}) < len(tables):
        yield "two tables have the same name"


def lookup_faults(tables: Iterable[Table]) -> Iterator[str]:
    """Yield what is wrong with the lookups of a model's tables."""
    declared: dict[str, Lookup] = {}
    for lookup in (column.lookup for table in tables for column in table.columns if column.lookup is not None):
        if declared.setdefault(lookup.name, lookup) != lookup:
            yield f"there are two lookups {lookup.name}"
    yield from (f"{table.name} is a table and a lookup" for table in tables if table.name in declared)


def _faults_of(table: Table) -> Iterator[str]:
    if not all(isinstance(column, Column) and column.kind in _KINDS for column in table.columns):
        yield f"table {table.name} has a column that is not a Column, or of no kind"
        return
    names = [column.name for column in table.columns]
    named = {*table.key, *(name for index in table.indexes for name in index)}
    if not all(isinstance(text, str) and text for text in (table.name or "t", *names)):
        yield "a table or a column has no name"
    elif len(set(names)) < len(names):
        yield f"table {table.name} has two columns with the same name"
    elif not named <= {*names, *ENVELOPE_NAMES}:
        yield f"table {table.name} has a key or an index over a column that it does not have"
    elif table.overflow is not None and table.overflow not in names:
        yield f"table {table.name} has no column {table.overflow}, in which the rest should go"
    elif not all(isinstance(path, str) and kind in _KINDS for path, kind in table.properties):
        yield f"table {table.name} has a property that is not a pair of a path and a kind"
