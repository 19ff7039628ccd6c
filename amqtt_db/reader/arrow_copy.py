"""Arrow columns of a PostgreSQL query, by binary COPY, without a Python object for each value.

The format is described in https://www.postgresql.org/docs/current/sql-copy.html: a header, then for each row the number
of its fields, and for each field its length (−1 for NULL) and what the send function of its type makes.  One message
of the protocol is one row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime, timezone
from typing import Any, Final

import attrs
import numpy as np
import psycopg
import pyarrow as pa
import sqlalchemy as sa

from amqtt_db.reader.arrow_types import MOMENT, Integers
from amqtt_db.record import EPOCH, Kind, to_micros

_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # without flags and an extension
_TRAILER_SIZE: Final = 2
_BLOCK_SIZE: Final = 2**20  # bytes, some thousand rows
_PADDING: Final = bytes(8)  # a number may be looked for behind a NULL at the end of the last row


@attrs.frozen(eq=False)
class _Block:
    """Some rows; where each begins and ends."""

    data: bytes
    starts: Integers
    ends: Integers

    def numbers(self, code: str, at: Integers) -> np.ndarray[Any, Any]:
        """Return the big-endian numbers at some bytes, in the processor's own order."""
        kind = np.dtype(f">{code}")
        everywhere = np.ndarray((len(self.data) - kind.itemsize + 1,), kind, self.data, strides=(1,))
        return everywhere[at].astype(kind.newbyteorder("="))


_Make = Callable[[_Block, Integers, Integers, Any], pa.Array]
"""Makes an array of fields, given where each begins, their lengths, and which are NULL (None if none is)."""


@attrs.frozen
class _Form:
    """How PostgreSQL sends a column: the ids of its possible types, the width in bytes or None, and what reads it.

    With ``as_text``, the server turns the values into text, which is what Arrow's column holds.
    """

    types: frozenset[int]
    width: int | None
    make: _Make
    as_text: bool = False


def copy_columns(
    connection: sa.Connection,
    query: sa.Select[Any],
    parameters: Mapping[str, Any],
    kinds: Sequence[Kind],
) -> list[list[pa.Array]] | None:
    """Return for each column of a query its values in parts, given the kinds of the columns.

    The value of a kind that Arrow holds as text has the server's form.  Returns None if a column has a type that its
    kind does not have in this project's tables.  Raises ValueError or what Arrow raises for a value that Python has no
    type for.
    """
    if not set(kinds) <= _COPIED_FORMS.keys() or not _have_types(connection, query, parameters, kinds):
        return None
    forms = [_COPIED_FORMS[kind] for kind in kinds]
    columns = zip(query.selected_columns, forms, strict=True)
    wanted = query.with_only_columns(*(sa.cast(one, sa.Text) if form.as_text else one for one, form in columns))
    compiled = wanted.compile(dialect=connection.dialect)
    driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
    statement, filled = f"COPY ({compiled}) TO STDOUT (FORMAT BINARY)", compiled.construct_params(parameters)
    if not filled:  # then the driver leaves the doubled percent signs of names as they are
        statement = statement.replace("%%", "%")
    with driver.cursor() as cursor, cursor.copy(statement.encode(), filled) as copy:
        blocks = _read_blocks(driver, copy)
        try:
            read = [list(_read_columns(block, forms)) for block in blocks]
        except (pa.ArrowException, ValueError):
            for _ in blocks:  # to leave the transaction in order
                pass
            raise
    return [list(column) for column in zip(*read, strict=True)] if read else [[] for _ in kinds]


def _have_types(
    connection: sa.Connection, query: sa.Select[Any], parameters: Mapping[str, Any], kinds: Sequence[Kind]
) -> bool:
    with connection.execute(query.limit(0), parameters) as result:
        found = [column[1] for column in result.cursor.description]
    return all(type_ in _COPIED_FORMS[kind].types for type_, kind in zip(found, kinds, strict=True))


def _read_blocks(driver: psycopg.Connection[Any], copy: psycopg.Copy) -> Iterator[_Block]:
    """Yield the rows that a server sends, some at a time."""
    first = bytes(copy.read())
    if not first.startswith(_HEADER):
        raise ValueError
    row: Any = first[len(_HEADER) :]
    size, take = len(row), driver.pgconn.get_copy_data  # what has arrived, in half the time that copy.read takes
    while size != _TRAILER_SIZE:
        data, end, ends = bytearray(), 0, [0]
        while size != _TRAILER_SIZE and end < _BLOCK_SIZE:
            data += row
            end += size
            ends.append(end)
            size, row = take(1)
            if size < 0:
                raise _server_error(driver)
            if not size:
                row = copy.read()
                size = len(row)
        bounds = np.array(ends)
        yield _Block(bytes(data + _PADDING), bounds[:-1], bounds[1:])
    if copy.read():
        raise ValueError


def _server_error(driver: psycopg.Connection[Any]) -> psycopg.Error:
    """Return what has ended a COPY too early."""
    found: psycopg.Error = psycopg.OperationalError("COPY ended early")
    while (result := driver.pgconn.get_result()) is not None:
        if result.error_message:
            found = psycopg.errors.error_from_result(result)
    return found


def _read_columns(block: _Block, forms: Sequence[_Form]) -> Iterator[pa.Array]:
    """Yield the columns of some rows.  Raises ValueError if they are not what was asked for."""
    if (block.numbers("i2", block.starts) != len(forms)).any():
        raise ValueError
    at = block.starts + 2
    for form in forms:
        lengths, at = block.numbers("i4", at), at + 4
        lacks = lengths < 0
        if form.width is not None and not (lacks | (lengths == form.width)).all():
            raise ValueError
        sizes = np.maximum(lengths, 0)
        yield form.make(block, at, sizes, lacks if lacks.any() else None)
        at = at + sizes
    if (at != block.ends).any():
        raise ValueError


def _copy_texts(kind: pa.DataType, skip: int = 0) -> _Make:
    """Return what reads texts or bytes; ``skip`` is the number of bytes before each."""

    def make(block: _Block, at: Integers, sizes: Integers, lacks: Any) -> pa.Array:
        bounds = np.column_stack((at + skip * (sizes > 0), at + sizes)).astype(np.int32).ravel()
        buffers = [None, pa.py_buffer(bounds), pa.py_buffer(block.data)]
        pieces = pa.Array.from_buffers(pa.binary(), len(bounds) - 1, buffers)  # every other one is between two values
        return pieces.take(pa.array(np.arange(len(at)) * 2, mask=lacks)).cast(kind)

    return make


def _copy_numbers(code: str, kind: pa.DataType) -> _Make:
    def make(block: _Block, at: Integers, _: Integers, lacks: Any) -> pa.Array:
        return pa.array(block.numbers(code, at), kind, mask=lacks)

    return make


def _copy_bools(block: _Block, at: Integers, _: Integers, lacks: Any) -> pa.Array:
    return pa.array(block.numbers("i1", at) != 0, pa.bool_(), mask=lacks)


def _copy_moments(code: str, kind: pa.DataType, span: Sequence[int], shift: int = 0) -> _Make:
    """Return what reads times as numbers; with ``shift``, they must be in the span that Python's types have."""
    first, last = (end - shift for end in span)
    raw = pa.int32() if code == "i4" else pa.int64()

    def make(block: _Block, at: Integers, _: Integers, lacks: Any) -> pa.Array:
        numbers = block.numbers(code, at)
        there = numbers if lacks is None else numbers[~lacks]
        if len(there) and not (first <= there.min() and there.max() <= last):
            raise ValueError
        return pa.array(numbers + shift, raw, mask=lacks).cast(kind)

    return make


_MOMENTS: Final = tuple(to_micros(end.replace(tzinfo=timezone.utc)) for end in (datetime.min, datetime.max))
_DAYS: Final = tuple((end - EPOCH.date()).days for end in (date.min, date.max))
_FIRST_DAY: Final = datetime(2000, 1, 1, tzinfo=timezone.utc)  # from which the server counts days and microseconds

_TEXT_TYPES: Final = frozenset({25, 1043})
_NUMERIC_FORM: Final = _Form(frozenset({1700}), None, _copy_texts(pa.string()), as_text=True)
_TEXT_FORM: Final = _Form(_TEXT_TYPES, None, _copy_texts(pa.string()))
_MOMENT_FORM: Final = _Form(frozenset({1184}), 8, _copy_moments("i8", MOMENT, _MOMENTS, to_micros(_FIRST_DAY)))

_COPIED_FORMS: Final[Mapping[Kind, _Form]] = {
    "bool": _Form(frozenset({16}), 1, _copy_bools),
    "number": _Form(frozenset({701}), 8, _copy_numbers("f8", pa.float64())),
    "int64": _Form(frozenset({20}), 8, _copy_numbers("i8", pa.int64())),
    "bigint": _NUMERIC_FORM,
    "text": _TEXT_FORM,
    "bytes": _Form(frozenset({17}), None, _copy_texts(pa.binary())),
    "datetime": _MOMENT_FORM,
    "timestamp": _MOMENT_FORM,
    "date": _Form(frozenset({1082}), 4, _copy_moments("i4", pa.date32(), _DAYS, (_FIRST_DAY - EPOCH).days)),
    "time": _Form(frozenset({1083}), 8, _copy_moments("i8", pa.time64("us"), (0, 86_399_999_999))),
    "decimal": _NUMERIC_FORM,
    "uuid": _Form(frozenset({2950}), None, _copy_texts(pa.string()), as_text=True),
    "json": _Form(frozenset({3802}), None, _copy_texts(pa.string(), skip=1)),  # behind the version of the format
    "tagged": _TEXT_FORM,
}
"""The ids of types: https://github.com/postgres/postgres/blob/master/src/include/catalog/pg_type.dat."""
