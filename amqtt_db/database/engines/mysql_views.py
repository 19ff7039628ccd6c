"""MariaDB's and MySQL's SQL for views: JSON by ``JSON_EXTRACT``.

What it cannot decode is NULL: text with U+0000 in tagged JSON, and everything in an object with such a key.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import attrs
import sqlalchemy as sa

from amqtt_db.database.engines.base import Engine
from amqtt_db.database.engines.mysql import lock_schema
from amqtt_db.database.engines.views import ViewSQL
from amqtt_db.record import Kind

_WAIT_SECONDS: Final = 1  # second, the shortest that both servers accept

_NUMBER_TYPES: Final = ("INTEGER", "UNSIGNED INTEGER", "DOUBLE")  # what MySQL calls large integers in JSON text
_INT64: Final = f"BETWEEN {-(2**63)} AND {2**63 - 1}"
_END: Final = "."  # added to texts before comparing: the collation ignores trailing spaces
_ODD: Final = "'inf', '-inf', 'nan', '-0.0'"


@attrs.frozen
class _MysqlPlace:
    """A place in a JSON text: expressions for the text and for the path."""

    document: str
    path: str

    @property
    def json(self) -> str:
        """The value, as JSON."""
        return f"JSON_EXTRACT({self.document}, {self.path})"

    @property
    def type(self) -> str:
        """The value's JSON type."""
        return f"JSON_TYPE({self.json})"

    @property
    def length(self) -> str:
        """The number of members or items."""
        return f"JSON_LENGTH({self.json})"

    @property
    def text(self) -> str:
        """The value as text: a number's digits, a string's characters."""
        return f"JSON_UNQUOTE({self.json})"


class MySQLViews(ViewSQL[_MysqlPlace]):
    """Views on MariaDB and MySQL; a changed one is replaced."""

    def __init__(self, engine: Engine, dialect: sa.Dialect) -> None:
        super().__init__(engine, dialect)
        self._dialect: Any = dialect

    @contextmanager
    def with_short_timeout(self, engine: Engine, database: sa.Engine) -> Iterator[sa.Connection]:
        """``lock_wait_timeout`` is the session's own, so it is put back."""
        with database.begin() as connection:
            usual = connection.exec_driver_sql("SELECT @@SESSION.lock_wait_timeout").scalar_one()
            lock_schema(connection, _WAIT_SECONDS)
            connection.exec_driver_sql(f"SET SESSION lock_wait_timeout = {_WAIT_SECONDS}")
            try:
                yield connection
            finally:
                if not connection.invalidated:  # else the error that says why would be hidden
                    connection.exec_driver_sql(f"SET SESSION lock_wait_timeout = {usual}")

    def replace(self, connection: sa.Connection, view: str, select: str) -> None:
        """Replace it atomically: readers see the old view or the new one."""
        plain = connection.execution_options(no_parameters=True)
        plain.exec_driver_sql(f"CREATE OR REPLACE VIEW {self.name(view)} AS {select}")

    def text(self, value: str) -> str:
        """Return a literal; backslashes are escaped."""
        return _literal(value)

    def is_text(self, column: str, value: str) -> str:
        """Compare with trailing spaces; the first condition is for an index."""
        return f"{super().is_text(column, value)} AND CONCAT({column}, '{_END}') = {self.text(value + _END)}"

    def null(self, kind: Kind) -> str:
        """Return NULL without a cast: only some types have one."""
        return "NULL"

    def shown(self, kind: Kind, column: str) -> str:
        """Let MySQL rewrite a column's JSON: it writes extracted JSON in its own order, and both must look the same."""
        return f"CAST({column} AS JSON)" if kind in {"json", "tagged"} and not self._dialect.is_mariadb else column

    def at(self, document: str, keys: Sequence[str]) -> _MysqlPlace:
        """Write keys as tagged JSON does."""
        return _MysqlPlace(document, _path_to(*keys))

    def text_at(self, place: _MysqlPlace) -> str:
        """``JSON_UNQUOTE``."""
        return place.text

    def json_at(self, place: _MysqlPlace) -> str:
        """Return JSON as written: MariaDB adds spaces to what it extracts; MySQL has no function to remove them."""
        return f"JSON_COMPACT({place.json})" if self._dialect.is_mariadb else place.json

    def is_list_or_empty(self, place: _MysqlPlace) -> str:
        """Check for length 0, too, which an empty object has."""
        return f"{place.type} = 'ARRAY' OR {place.length} = 0"

    def interval_start(self, column: str, seconds: int) -> str:
        """By the microseconds since 1970; times are UTC.  A quotient would be rounded, a remainder may be negative."""
        since, length = "TIMESTAMP '1970-01-01 00:00:00'", seconds * 1_000_000
        now = f"TIMESTAMPDIFF(MICROSECOND, {since}, {column})"
        start = f"{now} - ({now} % {length} + {length}) % {length}"
        return f"CAST(TIMESTAMPADD(MICROSECOND, {start}, {since}) AS DATETIME(6))"

    def from_text(self, kind: Kind, text: str) -> str:
        """Use CAST, and arithmetic for times with a zone."""
        return _from_text(kind, text)

    def untagged(self, kind: Kind, place: _MysqlPlace) -> str:
        """Go by the JSON type, and by the tags of values that JSON has no type for."""
        if kind == "json":
            typed = _below(place, "$typed", 1)
            return (
                f"CASE WHEN {_below(place, '$typed', 0).text} = 'json' THEN {self.json_at(typed)} "
                f"WHEN {place.type} = 'ARRAY' OR {place.type} = 'OBJECT' AND NOT {_is_tag_object(place)} "
                f"THEN {self.json_at(place)} END"
            )
        if kind in {"int64", "bigint"}:
            return _untagged_integer(kind, place)
        if kind == "tagged":
            return f"CASE WHEN {_is_unfit(place)} THEN {self.json_at(place)} END"
        tagged = _from_text(kind, _below(place, f"${kind}").text)
        double = f"CAST({place.text} AS DOUBLE)"
        plain: Mapping[Kind, str] = {
            "number": f"WHEN 'OBJECT' THEN {tagged} {_of_types(_NUMBER_TYPES, double)}",
            "text": f"WHEN 'STRING' THEN {place.text}",
            "bool": f"WHEN 'BOOLEAN' THEN {place.text} = 'true'",
        }
        return f"CASE {place.type} {plain[kind]} END" if kind in plain else tagged


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def _of_types(types: Sequence[str], then: str) -> str:
    """Return WHEN branches with the same result for several JSON types."""
    return " ".join(f"WHEN '{name}' THEN {then}" for name in types)


def _path_to(*keys: str) -> str:
    """Return a literal path along keys, as tagged JSON writes them."""
    written = ("$" + key if key.startswith("$") else key for key in keys)
    return _literal("$" + "".join(f".{json.dumps(key, ensure_ascii=False)}" for key in written))


def _below(place: _MysqlPlace, key: str, *index: int) -> _MysqlPlace:
    """Return the place of an object's member, or of an item of that member."""
    last = "".join(f"[{number}]" for number in index)
    step = _literal(f'."{key}"{last}')
    return attrs.evolve(place, path=f"CONCAT({place.path}, {step})")


def _is_tag_object(place: _MysqlPlace) -> str:
    """Return a condition: true for an object that is a tagged value."""
    return f"(LEFT({place.json}, 3) = '{{\"$' AND SUBSTR({place.json}, 4, 1) <> '$')"


def _is_unfit(place: _MysqlPlace) -> str:
    """Return a condition: true for a value that a column of its own kind would not return exactly."""
    number, text = (_below(place, tag).text for tag in ("$number", "$text"))
    return f"({number} IN ({_ODD}) OR {text} REGEXP {_literal(chr(92) * 2 + 'ud[89a-f]')})"


def _untagged_integer(kind: Kind, place: _MysqlPlace) -> str:
    typed, large = _below(place, "$typed", 1), _below(place, "$int").text
    number = f"COALESCE({_below(typed, '$int').text}, {typed.text})"
    of_kind = f"{_below(place, '$typed', 0).text} = {_literal(kind)}"
    fits = f"{_integer(large)} {'' if kind == 'int64' else 'NOT '}{_INT64}"
    return f"CASE WHEN {of_kind} THEN {_from_text(kind, number)} WHEN {fits} THEN {_from_text(kind, large)} END"


def _integer(text: str) -> str:
    return f"CAST({text} AS DECIMAL(65, 0))"


_FROM_TEXT: Final[Mapping[Kind, str]] = {
    "bytes": "FROM_BASE64({})",
    "date": "CAST({} AS DATE)",
    "datetime": (
        "CASE WHEN {0} REGEXP 'T.*[-+][0-9]{{2}}:[0-9]{{2}}$' THEN "
        "CAST(REPLACE(LEFT({0}, CHAR_LENGTH({0}) - 6), 'T', ' ') AS DATETIME(6)) "
        "- INTERVAL CONCAT(REPLACE(SUBSTR({0}, -6, 1), '+', ''), RIGHT({0}, 5)) HOUR_MINUTE END"
    ),
    "int64": "CAST({} AS SIGNED)",
    "number": f"CASE WHEN {{0}} NOT IN ({_ODD}) THEN CAST({{0}} AS DOUBLE) END",
    "time": "CASE WHEN {0} REGEXP '^[0-9:.]+$' THEN CAST({0} AS TIME(6)) END",
}


def _from_text(kind: Kind, text: str) -> str:
    """Return a value from its text in JSON."""
    return _FROM_TEXT.get(kind, "{}").format(text)
