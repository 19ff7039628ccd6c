"""Rows into MariaDB and MySQL: INSERT statements with many rows, and packets with many statements.

Rows are written as text column by column, which measurably beats the driver's ``executemany`` and LOAD DATA.  If many
tables get a few rows each, their statements share packets, which takes half the time and a third of the processor time.
A packet stays below the server's ``max_allowed_packet``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

import pymysql

from amqtt_db.database.engines.base import AGE, RowBatch, foreign_column
from amqtt_db.database.engines.encoding import present
from amqtt_db.errors import Rejected
from amqtt_db.record import Kind

_ROOM: Final = 4096  # bytes of a packet other than rows
_STATEMENTS: Final = 100  # in a packet
_NO_DEFAULT: Final = 1364


def insert(driver: pymysql.Connection[Any], row_batches: Iterable[RowBatch], packet: int) -> None:
    """Append rows, in the order of the batches, in packets of limited size.

    Raises Rejected if one row does not fit into a packet.
    """
    statements = ((row_batch, statement) for row_batch in row_batches for statement in _statements(row_batch, packet))
    with driver.cursor() as cursor:
        for together in _packets(statements, packet - _ROOM):
            _execute(cursor, together)


def _execute(cursor: Any, together: Sequence[tuple[RowBatch, bytes]]) -> None:
    done = 0
    try:
        cursor.execute(b";".join(statement for _, statement in together))
        for done in range(1, len(together)):  # noqa: B007 - an error is that of the first statement not done
            cursor.nextset()
    except pymysql.err.MySQLError as error:
        if error.args and error.args[0] == _NO_DEFAULT:
            raise foreign_column(together[done][0].table, str(error.args[-1]).split("'")[1]) from error
        raise


def _packets(statements: Iterable[tuple[RowBatch, bytes]], most: int) -> Iterator[list[tuple[RowBatch, bytes]]]:
    """Yield statements in packets of at most ``most`` bytes, and at least one statement."""
    together: list[tuple[RowBatch, bytes]] = []
    size = 0
    for row_batch, statement in statements:
        if together and (size + len(statement) + 1 > most or len(together) == _STATEMENTS):
            yield together
            together, size = [], 0
        together.append((row_batch, statement))
        size += len(statement) + 1
    if together:
        yield together


def _statements(row_batch: RowBatch, packet: int) -> Iterator[bytes]:
    """Yield INSERT statements of at most ``packet`` bytes.  Raises Rejected if one row does not fit."""
    columns = ", ".join(map(_quoted_name, row_batch.columns))
    head = f"INSERT INTO {_quoted_name(row_batch.table)} ({columns}) VALUES (".encode()  # noqa: S608
    tail = _replacing(row_batch).encode()
    room = packet - len(head) - len(tail) - _ROOM
    for some in _chunks(_row_literals(row_batch, room), room):
        body = "),(".join(some).encode("utf-8", "surrogateescape")
        _require_room(len(body), room, row_batch.table)
        yield head + body + b")" + tail


def _replacing(row_batch: RowBatch) -> str:
    """Return the clause by which rows replace older ones; empty if they do not.

    Assignments run one after the other, so the columns that decide which row is newer are assigned last, ``time`` at
    the end: at each step the comparison still has the same result, or the compared values are equal.
    """
    if not row_batch.replaces:
        return ""
    new, old = (", ".join(form.format(_quoted_name(name)) for name in AGE) for form in ("VALUES({})", "{}"))
    others = [name for name in row_batch.columns if name not in {*row_batch.replaces, *AGE}]
    changes = (
        f"{name} = IF(({new}) > ({old}), VALUES({name}), {name})" for name in map(_quoted_name, (*others, *AGE[::-1]))
    )
    return f" ON DUPLICATE KEY UPDATE {', '.join(changes)}"


def _row_literals(row_batch: RowBatch, room: int) -> list[str]:
    """Return rows as text, without their parentheses.  Raises Rejected if one value does not fit into ``room``."""
    columns = list(zip(*row_batch.rows, strict=True))
    for kind, column in zip(row_batch.kinds, columns, strict=True):
        if kind == "bytes" or kind not in _LITERALS:
            sizes = list(map(len, present(column)))
            if sum(sizes) > room:
                _require_room(max(sizes), room, row_batch.table)  # before it is copied several times
    written = [_LITERALS.get(kind, _quoted)(column) for kind, column in zip(row_batch.kinds, columns, strict=True)]
    return list(map(",".join, zip(*written, strict=True)))


def _quoted_name(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _chunks(literals: Sequence[str], most: int) -> Iterator[Sequence[str]]:
    """Yield rows in statements of at most ``most`` bytes, and at least one row."""
    ends = list(accumulate(len(row.encode("utf-8", "surrogateescape")) + 3 for row in literals))
    if ends[-1] <= most:
        yield literals
        return
    start, base = 0, 0
    for index, end in enumerate(ends):
        if end - base > most and index > start:
            yield literals[start:index]
            start, base = index, ends[index - 1]
    yield literals[start:]


def _require_room(size: int, room: int, table: str) -> None:
    if size > room:
        raise Rejected(
            f"its row in table {table} takes at least {size} bytes, more than the server's max_allowed_packet leaves "
            f"({room}); raise max_allowed_packet on the server and run `amqtt-db dead replay`"
        )


def _plain_literal(make: Callable[[Any], str]) -> Callable[[Sequence[Any]], Iterable[str]]:
    """Return literals of values that need no quotes."""

    def literals(column: Sequence[Any]) -> Iterable[str]:
        return ["NULL" if value is None else make(value) for value in column] if None in column else map(make, column)

    return literals


def _quoted(column: Sequence[Any]) -> Iterable[str]:
    """Return literals of texts; most columns contain nothing that needs escaping."""
    joined = "".join(present(column))
    if "'" in joined or "\\" in joined:
        column = [value and value.replace("\\", "\\\\").replace("'", "\\'") for value in column]
    return ["NULL" if value is None else f"'{value}'" for value in column]


def _binary(value: bytes) -> str:
    """Return a literal whose bytes the driver sends as they are: surrogates stand for bytes that are not UTF-8."""
    return f"_binary'{_escaped(value).decode('utf-8', 'surrogateescape')}'"


def _escaped(value: bytes) -> bytes:
    return value.replace(b"\\", b"\\\\").replace(b"'", b"\\'")


_LITERALS: Final[Mapping[Kind, Callable[[Sequence[Any]], Iterable[str]]]] = {
    "bool": _plain_literal(lambda value: "1" if value else "0"),
    "number": _plain_literal(repr),
    "int64": _plain_literal(repr),
    "bytes": _plain_literal(_binary),
}
