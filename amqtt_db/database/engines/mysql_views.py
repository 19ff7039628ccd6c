"""MariaDB's and MySQL's SQL for views: JSON by ``JSON_EXTRACT`` and ``JSON_TABLE``.

Neither has recursion that sees the row it is asked for, so a document is walked level by level, some of them.  What the
SQL cannot turn back is NULL: text with U+0000 in tagged JSON, and what lies in an object with such a key.
"""

# ruff: noqa: S608 - every name and every literal is quoted

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import attrs
import sqlalchemy as sa

from amqtt_db.database.engines.base import Engine
from amqtt_db.database.engines.mysql import lock_schema
from amqtt_db.database.engines.views import ViewSQL
from amqtt_db.record import EXACT, Kind, split_path

LEVELS: Final = 8
"""How deep ``extra`` looks into a document; deeper objects are one value of the last level."""

_WAIT: Final = 1  # second, the shortest that both servers know
_TAGGED: Final = ("bytes", "date", "datetime", "decimal", "time", "uuid")
"""Kinds whose values are an object with one key in tagged JSON, and text in a document."""

_NUMBERS: Final = ("INTEGER", "UNSIGNED INTEGER", "DOUBLE")  # what MySQL calls large integers in JSON text
_INT64: Final = f"BETWEEN {-(2**63)} AND {2**63 - 1}"
_END: Final = "."  # after texts that are compared: the collation leaves out spaces at the end
_ODD: Final = "'inf', '-inf', 'nan', '-0.0'"
_TEXT: Final = "LONGTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
_KEYS: Final = f"JSON_TABLE({{keys}}, '$[*]' COLUMNS (k {_TEXT} PATH '$')) k{{level}}"
# Expressions of a level get names by the way of a table of one row.
_NAMED: Final = (
    "JSON_TABLE(JSON_ARRAY(JSON_OBJECT('path', {path}, 'place', {place})), '$[*]' "
    f"COLUMNS (path {_TEXT} PATH '$.path', place {_TEXT} PATH '$.place')) w{{level}}"
)


@attrs.frozen
class _Place:
    """A place in a JSON text: expressions for the text, and for the path into it."""

    document: str
    path: str

    @property
    def json(self) -> str:
        """What is there, as JSON."""
        return f"JSON_EXTRACT({self.document}, {self.path})"

    @property
    def type(self) -> str:
        """The JSON type of what is there."""
        return f"JSON_TYPE({self.json})"

    @property
    def length(self) -> str:
        """How many members or items are there."""
        return f"JSON_LENGTH({self.json})"

    @property
    def text(self) -> str:
        """What is there as text: a number's digits, a string's characters."""
        return f"JSON_UNQUOTE({self.json})"


class MySQLViews(ViewSQL):
    """Views on MariaDB and MySQL; a changed one is replaced."""

    def __init__(self, engine: Engine, dialect: sa.Dialect) -> None:
        super().__init__(engine, dialect)
        self._dialect: Any = dialect

    @contextmanager
    def hasty(self, engine: Engine, database: sa.Engine) -> Iterator[sa.Connection]:
        """``lock_wait_timeout`` is the session's own, so it is put back."""
        with database.begin() as connection:
            usual = connection.exec_driver_sql("SELECT @@SESSION.lock_wait_timeout").scalar_one()
            lock_schema(connection, _WAIT)
            connection.exec_driver_sql(f"SET SESSION lock_wait_timeout = {_WAIT}")
            try:
                yield connection
            finally:
                connection.exec_driver_sql(f"SET SESSION lock_wait_timeout = {usual}")

    def replace(self, connection: sa.Connection, view: str, select: str) -> None:
        """Readers see the one before or the one after."""
        plain = connection.execution_options(no_parameters=True)
        plain.exec_driver_sql(f"CREATE OR REPLACE VIEW {self.name(view)} AS {select}")

    def text(self, value: str) -> str:
        """A literal; a backslash is an escape."""
        return _literal(value)

    def is_text(self, column: str, value: str) -> str:
        """Spaces before an end count; the first condition is for an index."""
        return f"{super().is_text(column, value)} AND CONCAT({column}, '{_END}') = {self.text(value + _END)}"

    def null(self, kind: Kind) -> str:
        """NULL: what a column of a view can be is known only for some types."""
        return "NULL"

    def shown(self, kind: Kind, column: str) -> str:
        """MySQL writes what it takes out of JSON in an order of its own, so a column's JSON is written by it too."""
        return f"CAST({column} AS JSON)" if kind in {"json", "tagged"} and not self._dialect.is_mariadb else column

    def untagged(self, kind: Kind, document: str) -> str:
        """See the base class."""
        return self._untagged(kind, _Place(document, "'$'"))

    def member(self, kind: Kind, data: str, kinds: str, path: str) -> str:
        """See the base class; an object is a value and no nesting where its kind is named."""
        place = _Place(data, _path(*split_path(path)))
        named = _Place(kinds, _path(path)).text
        if kind == "json":
            whole = f"{named} = 'json' OR {place.length} = 0"
            return f"CASE WHEN {place.type} = 'ARRAY' OR {whole} THEN {self._compact(place.json)} END"
        if kind in {"number", "text", "bool", "tagged"}:
            return f"CASE WHEN {named} IS NULL THEN {self._untagged(kind, place)} END"
        large = f"WHEN {named} IS NULL THEN {self._untagged(kind, place)}" if kind in {"int64", "bigint"} else ""
        return f"CASE WHEN {named} = {_literal(kind)} THEN {_from_text(kind, place.text)} {large} END"

    def level(self, levels: str, name: str) -> str:
        """See the base class."""
        return self._untagged("text", _Place(levels, _path(name)))

    def rest_of_rows(self, path: str, columns: Mapping[str, Sequence[Kind]], rows: str, known: Collection[str]) -> str:
        """See the base class."""
        kinds, values = [], []
        for column, some in columns.items():
            there, mixed = _Place(column, "'$'"), len(some) > 1
            kinds.append(f"WHEN {column} IS NOT NULL THEN {_kind(there) if mixed else _literal(some[0])}")
            values.append(f"WHEN {column} IS NOT NULL THEN {column if mixed else _tagged(some[0], column)}")
        kind, value = (f"CASE {' '.join(cases)} END" for cases in (kinds, values))
        return f"(SELECT {_object(path, value)} {rows} AND {self._is_unknown(kind, path, known)})"

    def rest_of_document(self, data: str, kinds: str, levels: str, known: Collection[str]) -> str:
        """See the base class."""
        found = [self._of_level(data, kinds, level, known) for level in range(1, LEVELS + 1)]
        name = "CONCAT('{', k1.k, '}')"
        value = _Place(levels, f"CONCAT('$.', {_quoted('k1.k')})").json
        origin = _KEYS.format(keys=f"JSON_KEYS({levels})", level=1)
        known_level = self._is_unknown("'text'", name, known)
        found.append(f"(SELECT {_object(name, value)} FROM {origin} WHERE {known_level})")
        objects = ", ".join(f"COALESCE({one}, '{{}}')" for one in found)
        return f"NULLIF(JSON_MERGE_PRESERVE({objects}), JSON_OBJECT())"

    def _compact(self, value: str) -> str:
        """JSON as it was written; MariaDB puts blanks into what it extracts, MySQL has no function against them."""
        return f"JSON_COMPACT({value})" if self._dialect.is_mariadb else value

    def _of_level(self, data: str, kinds: str, level: int, known: Collection[str]) -> str:
        """The values at one level of a document, by their paths."""
        origin = ", ".join(_tables(data, kinds, level))
        place = _Place(data, f"w{level}.place")
        named = _named(kinds, level)
        kind = f"COALESCE({named}, {_kind(place)})"
        value = (
            f"CASE WHEN {named} IN ({self.texts(_TAGGED)}) THEN JSON_OBJECT(CONCAT('$', {named}), {place.text}) "
            f"WHEN {named} = 'bigint' THEN JSON_OBJECT('$int', {place.text}) "
            f"WHEN {named} = 'int64' THEN {_tagged('int64', f'CAST({place.text} AS SIGNED)')} ELSE {place.json} END"
        )
        here = f"({_is_leaf(place, named)})" if level < LEVELS else "TRUE"
        unknown = self._is_unknown(kind, f"w{level}.path", known)
        return f"(SELECT {_object(f'w{level}.path', value)} FROM {origin} WHERE {here} AND {unknown})"

    def _is_unknown(self, kind: str, path: str, known: Collection[str]) -> str:
        if not known:
            return "TRUE"
        return f"CONCAT({kind}, ' ', {path}, '{_END}') NOT IN ({self.texts([key + _END for key in known])})"

    def _untagged(self, kind: Kind, place: _Place) -> str:
        """What lies at a place of tagged JSON as a column of ``kind`` has it; NULL if it is of another kind."""
        if kind == "json":
            typed = _below(place, "$typed", 1).json
            return (
                f"CASE WHEN {_below(place, '$typed', 0).text} = 'json' THEN {self._compact(typed)} "
                f"WHEN {place.type} = 'ARRAY' OR {place.type} = 'OBJECT' AND NOT {_is_tagged(place)} "
                f"THEN {self._compact(place.json)} END"
            )
        if kind in {"int64", "bigint"}:
            return _untagged_integer(kind, place)
        if kind == "tagged":
            return f"CASE WHEN {_is_unfit(place)} THEN {self._compact(place.json)} END"
        tagged = _from_text(kind, _below(place, f"${kind}").text)
        double = f"CAST({place.text} AS DOUBLE)"
        plain: Mapping[Kind, str] = {
            "number": f"WHEN 'OBJECT' THEN {tagged} {_of_types(_NUMBERS, double)}",
            "text": f"WHEN 'STRING' THEN {place.text}",
            "bool": f"WHEN 'BOOLEAN' THEN {place.text} = 'true'",
        }
        return f"CASE {place.type} {plain[kind]} END" if kind in plain else tagged


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def _of_types(types: Sequence[str], then: str) -> str:
    """The same for several JSON types."""
    return " ".join(f"WHEN '{name}' THEN {then}" for name in types)


def _path(*keys: str) -> str:
    """A literal path that leads along keys, as tagged JSON writes them."""
    written = ("$" + key if key.startswith("$") else key for key in keys)
    return _literal("$" + "".join(f".{json.dumps(key, ensure_ascii=False)}" for key in written))


def _below(place: _Place, key: str, *index: int) -> _Place:
    """The member of an object at a place, or an item of that member."""
    last = "".join(f"[{number}]" for number in index)
    step = _literal(f'."{key}"{last}')
    return attrs.evolve(place, path=f"CONCAT({place.path}, {step})")


def _quoted(key: str) -> str:
    return f"JSON_QUOTE({key})"


def _tables(data: str, kinds: str, level: int) -> Iterator[str]:
    """The keys of a document's objects down to a level, with the paths that they make."""
    for number in range(1, level + 1):
        above = _Place(data, f"w{number - 1}.place")
        keys = f"JSON_KEYS({data})"
        if number > 1:
            is_leaf = _is_leaf(above, _named(kinds, number - 1))
            keys = f"IF({is_leaf}, NULL, JSON_KEYS({above.json}))"
        yield _KEYS.format(keys=keys, level=number)
        plain = f"IF(k{number}.k LIKE '$%', SUBSTR(k{number}.k, 2), k{number}.k)"
        part = (
            f"REPLACE(REPLACE({plain}, {_literal(chr(92))}, {_literal(2 * chr(92))}), '.', {_literal(chr(92) + '.')})"
        )
        part = f"IF({plain} LIKE '{{%', CONCAT({_literal(chr(92))}, {part}), {part})"
        path = part if number == 1 else f"CONCAT(w{number - 1}.path, '.', {part})"
        start = "'$'" if number == 1 else f"w{number - 1}.place"
        place = f"CONCAT({start}, '.', {_quoted(f'k{number}.k')})"
        yield _NAMED.format(path=path, place=place, level=number)


def _named(kinds: str, level: int) -> str:
    """What a document's kinds say of the path of a level."""
    return _Place(kinds, f"CONCAT('$.', {_quoted(_dollar(f'w{level}.path'))})").text


def _dollar(key: str) -> str:
    """A key as tagged JSON writes it."""
    return f"IF({key} LIKE '$%', CONCAT('$', {key}), {key})"


def _object(path: str, value: str) -> str:
    """Properties as one object by path."""
    return f"JSON_OBJECTAGG({_dollar(path)}, JSON_EXTRACT({value}, '$'))"


def _is_leaf(place: _Place, named: str) -> str:
    """Whether a value is no nesting; not for NULL."""
    return f"{place.type} <> 'OBJECT' OR COALESCE({named} = 'json', FALSE) OR {place.length} = 0 OR {_is_tagged(place)}"


def _is_tagged(place: _Place) -> str:
    """Whether an object stands for another value."""
    return f"(LEFT({place.json}, 3) = '{{\"$' AND SUBSTR({place.json}, 4, 1) <> '$')"


def _is_unfit(place: _Place) -> str:
    """Whether a column of the value's own kind would not return it identically."""
    number, text = (_below(place, tag).text for tag in ("$number", "$text"))
    return f"({number} IN ({_ODD}) OR {text} REGEXP {_literal(chr(92) * 2 + 'ud[89a-f]')})"


def _untagged_integer(kind: Kind, place: _Place) -> str:
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
    """A value from its text in JSON."""
    return _FROM_TEXT.get(kind, "{}").format(text)


def _kind(place: _Place) -> str:
    """The kind of what lies at a place of tagged JSON."""
    large, numbers = _below(place, "$int").text, _of_types(_NUMBERS, "'number'")
    tags = " ".join(
        f"WHEN {_below(place, f'${kind}').json} IS NOT NULL THEN '{kind}'" for kind in ("number", "text", *_TAGGED)
    )
    return (
        f"CASE {place.type} WHEN 'BOOLEAN' THEN 'bool' {numbers} "
        f"WHEN 'STRING' THEN 'text' WHEN 'ARRAY' THEN 'json' "
        f"ELSE CASE WHEN {large} IS NOT NULL THEN IF({_integer(large)} {_INT64}, 'int64', 'bigint') "
        f"WHEN {_is_unfit(place)} THEN 'tagged' {tags} "
        f"ELSE COALESCE({_below(place, '$typed', 0).text}, 'json') END END"
    )


_OBJECTS: Final[Mapping[Kind, str]] = {
    "bigint": "JSON_OBJECT('$int', {})",
    "bool": "IF({}, 'true', 'false')",
    "bytes": f"JSON_OBJECT('$bytes', REPLACE(TO_BASE64({{}}), {_literal(chr(10))}, ''))",
    "datetime": "JSON_OBJECT('$datetime', CONCAT(REPLACE(CAST({} AS CHAR), ' ', 'T'), '+00:00'))",
    "int64": (
        f"IF({{0}} BETWEEN {-EXACT} AND {EXACT}, JSON_OBJECT('$typed', JSON_ARRAY('int64', {{0}})), "
        "JSON_OBJECT('$int', CAST({0} AS CHAR)))"
    ),
    "json": "{}",
    "number": (
        f"IF({{0}} = 0 OR ABS({{0}}) BETWEEN 1e-300 AND {EXACT - 1}, CAST({{0}} AS CHAR), "
        "JSON_OBJECT('$number', CAST({0} AS CHAR)))"
    ),
    "tagged": "{}",
    "text": "JSON_QUOTE({})",
}


def _tagged(kind: Kind, value: str) -> str:
    """A column's value as tagged JSON."""
    return _OBJECTS.get(kind, f"JSON_OBJECT('${kind}', CAST({{}} AS CHAR))").format(value)
