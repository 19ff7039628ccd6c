"""SQLite's SQL for views: JSON by ``json_extract`` and ``json_each``, as every SQLite with JSON has them.

What its SQL cannot turn back: bytes in JSON stay base64 text; text with U+0000 in tagged JSON is NULL, and so is what
lies in an object with such a key.
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
from amqtt_db.database.engines.views import ViewSQL
from amqtt_db.record import EXACT, Kind, split_path

_WAIT: Final = 500  # milliseconds
_TAGGED: Final = ("bytes", "date", "datetime", "decimal", "time", "uuid")
"""Kinds whose values are an object with one key in tagged JSON, and text in a document."""

_TYPED: Final = '."$typed"'
_INT: Final = '."$int"'

# A document as rows of path, kind (NULL where JSON tells it) and JSON text; objects that are only nesting are left out.
_WALK: Final = """WITH RECURSIVE walk(path, kind, type, value) AS (
  SELECT {path}, {kind}, e.type, {value} FROM json_each({data}) e
  UNION ALL SELECT walk.path || '.' || {path}, {kind_below}, e.type, {value} FROM walk, json_each(walk.value) e
  WHERE walk.type = 'object' AND NOT {is_leaf})"""
_LEAVES: Final = """SELECT path, coalesce(kind, {kind}) AS kind, {value} AS value FROM walk
  WHERE type <> 'null' AND (type <> 'object' OR {is_leaf})
  UNION ALL SELECT '{{' || l.key || '}}', 'text', json_quote(l.value) FROM json_each({levels}) l"""
_IS_LEAF: Final = "(coalesce(walk.kind = 'json', 0) OR walk.value = '{}' OR walk.value GLOB '{\"$[^$]*')"
_KEY: Final = "CASE WHEN e.key LIKE '$%' THEN substr(e.key, 2) ELSE e.key END"
_PART: Final = f"replace(replace({_KEY}, '\\', '\\\\'), '.', '\\.')"
_PATH: Final = f"CASE WHEN e.key LIKE '{{%' THEN '\\' || {_PART} ELSE {_PART} END"


@attrs.frozen
class _Place:
    """A place in a JSON text: expressions for the text, and the path into it."""

    document: str
    path: str = "$"

    @property
    def type(self) -> str:
        """The JSON type of what is there."""
        return f"json_type({self.document}, {_literal(self.path)})"

    @property
    def value(self) -> str:
        """What is there: a number, a text, 0 or 1; an array or an object as JSON."""
        return f"json_extract({self.document}, {_literal(self.path)})"

    def at(self, step: str) -> _Place:
        """A place below."""
        return attrs.evolve(self, path=self.path + step)

    def key(self, key: str) -> _Place:
        """A member of an object; a path cannot name one with a quotation mark."""
        key = f"${key}" if key.startswith("$") else key
        if '"' not in key:
            return self.at(f'."{json.dumps(key, ensure_ascii=False)[1:-1]}"')
        value = (
            "json_object('v', CASE WHEN type IN ('object', 'array') THEN json(value) "
            "WHEN type IN ('true', 'false') THEN json(type) ELSE value END)"
        )
        found = f"json_each({self.document}, {_literal(self.path)}) WHERE key = {_literal(key)}"
        return _Place(f"(SELECT {value} FROM {found})", "$.v")


class SQLiteViews(ViewSQL):
    """Views on SQLite; a changed one is dropped and made again in one transaction."""

    @contextmanager
    def hasty(self, engine: Engine, database: sa.Engine) -> Iterator[sa.Connection]:
        """``busy_timeout`` is the connection's own, so it is put back."""
        with database.connect() as connection:
            driver: Any = connection.connection.driver_connection
            (usual,) = driver.execute("PRAGMA busy_timeout").fetchone()
            driver.execute(f"PRAGMA busy_timeout = {_WAIT}")
            try:
                with connection.begin():
                    yield connection
            finally:
                driver.execute(f"PRAGMA busy_timeout = {usual}")

    def replace(self, connection: sa.Connection, view: str, select: str) -> None:
        """DROP and CREATE; readers see the one before or the one after."""
        connection.exec_driver_sql(f"DROP VIEW IF EXISTS {self.name(view)}")
        connection.exec_driver_sql(f"CREATE VIEW {self.name(view)} AS {select}")

    def untagged(self, kind: Kind, document: str) -> str:
        """See the base class."""
        return _untagged(kind, _Place(document))

    def member(self, kind: Kind, data: str, kinds: str, path: str) -> str:
        """See the base class; an object is a value and no nesting where its kind is named."""
        place = _Place(data)
        for key in split_path(path):
            place = place.key(key)
        named = _Place(kinds).key(path).value
        if kind == "json":
            whole = f"{named} = 'json' OR {place.value} = '{{}}'"
            return f"CASE WHEN {place.type} = 'array' OR {whole} THEN {_text(place)} END"
        if kind in {"number", "text", "bool", "tagged"}:
            return f"CASE WHEN {named} IS NULL THEN {_untagged(kind, place)} END"
        large = f"WHEN {named} IS NULL THEN {_untagged(kind, place)}" if kind in {"int64", "bigint"} else ""
        return f"CASE WHEN {named} = {_literal(kind)} THEN {_from_text(kind, place.value)} {large} END"

    def level(self, levels: str, name: str) -> str:
        """See the base class."""
        return _untagged("text", _Place(levels).key(name))

    def rest_of_rows(self, path: str, columns: Mapping[str, Sequence[Kind]], rows: str, known: Collection[str]) -> str:
        """See the base class."""
        kinds, values = [], []
        for column, some in columns.items():
            mixed = len(some) > 1
            kinds.append(f"WHEN {column} IS NOT NULL THEN {_kind(_Place(column)) if mixed else _literal(some[0])}")
            values.append(f"WHEN {column} IS NOT NULL THEN {column if mixed else _tagged(some[0], column)}")
        kind, value = (f"CASE {' '.join(cases)} END" for cases in (kinds, values))
        return self._object(f"SELECT {path} AS path, {kind} AS kind, {value} AS value {rows}", known)

    def rest_of_document(self, data: str, kinds: str, levels: str, known: Collection[str]) -> str:
        """See the base class; walks down the objects as far as they are only nesting."""
        below = f"walk.path || '.' || {_PATH}"
        value = (
            f"CASE e.type WHEN 'text' THEN json_quote(e.value) WHEN 'real' THEN {_tagged('number', 'e.value')} "
            "WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' ELSE e.value END"
        )
        walk = _WALK.format(
            path=_PATH,
            kind=_named(kinds, _PATH),
            kind_below=_named(kinds, below),
            value=value,
            data=data,
            is_leaf=_IS_LEAF,
        )
        there = _Place("value")
        tagged = (
            f"CASE WHEN kind IN ({self.texts(_TAGGED)}) THEN json_object('$' || kind, {there.value}) "
            f"WHEN kind = 'bigint' THEN json_object('$int', {there.value}) "
            f"WHEN kind = 'int64' AND type = 'integer' THEN {_tagged('int64', there.value)} ELSE value END"
        )
        leaves = _LEAVES.format(kind=_kind(there), value=tagged, levels=levels, is_leaf=_IS_LEAF)
        return self._object(leaves, known, before=f"{walk} ")

    def _object(self, properties: str, known: Collection[str], before: str = "") -> str:
        path = "CASE WHEN path LIKE '$%' THEN '$' || path ELSE path END"
        return (
            f"({before}SELECT nullif(json_group_object({path}, json(value)), '{{}}') FROM ({properties}) "
            f"WHERE kind || ' ' || path NOT IN ({self.texts(known)}))"
        )


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _named(kinds: str, path: str) -> str:
    """What a document's kinds say of a path."""
    key = f"CASE WHEN {path} LIKE '$%' THEN '$' || {path} ELSE {path} END"
    return f"(SELECT k.value FROM json_each({kinds}) k WHERE k.key = {key})"


def _untagged(kind: Kind, place: _Place) -> str:
    """What lies at a place of tagged JSON as a column of ``kind`` has it; NULL if it is of another kind."""
    if kind == "json":
        return _untagged_json(place)
    if kind in {"int64", "bigint"}:
        return _untagged_integer(kind, place)
    if kind == "tagged":
        return f"CASE WHEN {_is_unfit(place)} THEN {place.value} END"
    tagged = _from_text(kind, place.at(_tag(kind)).value)
    plain: Mapping[Kind, str] = {
        "number": f"WHEN 'integer' THEN CAST({place.value} AS REAL) WHEN 'real' THEN {place.value} ELSE {tagged}",
        "text": f"WHEN 'text' THEN {place.value}",
        "bool": f"WHEN 'true' THEN {place.value} WHEN 'false' THEN {place.value}",
    }
    return f"CASE {place.type} {plain[kind]} END" if kind in plain else tagged


def _is_unfit(place: _Place) -> str:
    """Whether a column of the value's own kind would not return it identically: NaN, −0.0, lone surrogates."""
    number, text = (place.at(_tag(kind)).value for kind in ("number", "text"))
    return f"{number} IN ('nan', '-0.0') OR {text} GLOB '*\\ud[89a-f]*'"


def _untagged_integer(kind: Kind, place: _Place) -> str:
    typed, large = place.at(f"{_TYPED}[1]"), place.at(_INT).value
    fits = f"{'' if kind == 'int64' else 'NOT '}{_fits(large)}"
    of_kind = f"{place.at(f'{_TYPED}[0]').value} = {_literal(kind)}"
    number = f"coalesce({typed.at(_INT).value}, {typed.value})"
    return f"CASE WHEN {of_kind} THEN {_from_text(kind, number)} WHEN {fits} THEN {_from_text(kind, large)} END"


def _untagged_json(place: _Place) -> str:
    typed = place.at(f"{_TYPED}[1]")
    return (
        f"CASE WHEN {place.at(f'{_TYPED}[0]').value} = 'json' THEN {_text(typed)} WHEN {place.type} = 'array' "
        f"OR {place.type} = 'object' AND {place.value} NOT GLOB '{{\"$[^$o]*' THEN {place.value} END"
    )


def _text(place: _Place) -> str:
    """What lies at a place as JSON text."""
    bools = "WHEN 'true' THEN 'true' WHEN 'false' THEN 'false'"
    return (
        f"CASE {place.type} {bools} WHEN 'real' THEN {_DIGITS.format(place.value)} ELSE json_quote({place.value}) END"
    )


def _tag(kind: Kind) -> str:
    return f'."${kind}"'


def _fits(number: str) -> str:
    """Whether a text of digits is a signed integer of 64 bits."""
    return f"CAST(CAST({number} AS INTEGER) AS TEXT) = {number}"


def _from_text(kind: Kind, text: str) -> str:
    """A value from its text in JSON."""
    if kind == "number":
        known = "WHEN 'inf' THEN 9e999 WHEN '-inf' THEN -9e999 WHEN 'nan' THEN NULL WHEN '-0.0' THEN NULL"
        return f"CASE {text} {known} ELSE CAST({text} AS REAL) END"
    if kind == "int64":
        return f"CAST({text} AS INTEGER)"
    if kind == "bigint":
        return f"CAST({text} AS TEXT)"
    if kind == "datetime":
        start = f"CASE substr({text}, 20, 1) WHEN '.' THEN 27 ELSE 20 END"
        zone = f"nullif(substr({text}, {start}), '')"
        return f"datetime(substr({text}, 1, 19) || {zone}) || {_fraction(text, 20)}"
    if kind == "time":
        return f"CASE WHEN length({text}) IN (8, 15) THEN substr({text}, 1, 8) || {_fraction(text, 9)} END"
    return text


def _fraction(text: str, at: int) -> str:
    """The microseconds of a time, whose point would be at a position."""
    return f"CASE substr({text}, {at}, 1) WHEN '.' THEN substr({text}, {at}, 7) ELSE '.000000' END"


def _kind(place: _Place) -> str:
    """The kind of what lies at a place of tagged JSON."""
    large = place.at(_INT).value
    tags = " ".join(
        f"WHEN {place.at(_tag(kind)).type} IS NOT NULL THEN '{kind}'" for kind in ("number", "text", *_TAGGED)
    )
    return (
        f"CASE {place.type} WHEN 'true' THEN 'bool' WHEN 'false' THEN 'bool' WHEN 'integer' THEN 'number' "
        f"WHEN 'real' THEN 'number' WHEN 'text' THEN 'text' WHEN 'array' THEN 'json' "
        f"ELSE CASE WHEN {large} IS NOT NULL THEN iif({_fits(large)}, 'int64', 'bigint') "
        f"WHEN {_is_unfit(place)} THEN 'tagged' {tags} "
        f"ELSE coalesce({place.at(f'{_TYPED}[0]').value}, 'json') END END"
    )


_DIGITS: Final = (
    "CASE CAST(printf('%.15g', {0}) AS REAL) WHEN {0} THEN printf('%.15g', {0}) ELSE printf('%!.17g', {0}) END"
)

_OBJECTS: Final[Mapping[Kind, str]] = {
    "bigint": "json_object('$int', {})",
    "bool": "CASE WHEN {} THEN 'true' ELSE 'false' END",
    "bytes": "json_object('$hex', hex({}))",
    "datetime": "json_object('$datetime', replace({}, ' ', 'T') || '+00:00')",
    "int64": (
        f"CASE WHEN {{0}} BETWEEN {-EXACT} AND {EXACT} THEN json_object('$typed', json_array('int64', {{0}})) "
        "ELSE json_object('$int', CAST({0} AS TEXT)) END"
    ),
    "json": "{}",
    "number": (
        f"CASE WHEN {{0}} = 0 OR abs({{0}}) BETWEEN 1e-300 AND {EXACT - 1} THEN {_DIGITS} "
        "ELSE json_object('$number', CASE WHEN abs({0}) > 1.7976931348623157e308 THEN lower({0}) "
        f"ELSE {_DIGITS} END) END"
    ),
    "tagged": "{}",
    "text": "json_quote({})",
}


def _tagged(kind: Kind, value: str) -> str:
    """A column's value as tagged JSON."""
    return _OBJECTS.get(kind, f"json_object('${kind}', {{}})").format(value)
