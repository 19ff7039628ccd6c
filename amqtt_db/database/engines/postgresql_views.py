"""PostgreSQL's SQL for views: JSON by ``jsonb``.

What its SQL cannot turn back is NULL: text with U+0000, and what lies in an object with such a key.
"""

# ruff: noqa: S608 - every name and every literal is quoted

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import sqlalchemy as sa

from amqtt_db.database.engines.base import Engine
from amqtt_db.database.engines.views import ViewSQL
from amqtt_db.errors import Busy
from amqtt_db.record import EXACT, Kind, split_path

_TAGGED: Final = ("bytes", "date", "datetime", "decimal", "time", "uuid")
"""Kinds whose values are an object with one key in tagged JSON, and text in a document."""

_TAGS: Final = ", ".join(f"'${name}'" for name in ("int", "number", "text", *_TAGGED))
_INT64: Final = f"BETWEEN {-(2**63)} AND {2**63 - 1}"

# A document as rows of path, kind (NULL where JSON tells it) and value; objects that are only nesting are left out.
_WALK: Final = """WITH RECURSIVE walk(path, kind, value) AS (
  SELECT {path}, {kind}, e.value FROM jsonb_each({data}) e
  UNION ALL SELECT walk.path || '.' || {path}, {kind_below}, e.value
  FROM walk, jsonb_each(CASE WHEN {is_leaf} THEN '{{}}' ELSE walk.value END) e)"""
_LEAVES: Final = """SELECT path, coalesce(kind, {kind}) AS kind, {value} AS value FROM walk
  WHERE {is_leaf} AND jsonb_typeof(walk.value) <> 'null'
  UNION ALL SELECT '{{' || l.key || '}}', 'text', l.value FROM jsonb_each({levels}) l"""
_IS_LEAF: Final = (
    "(jsonb_typeof(walk.value) <> 'object' OR walk.value = '{}' OR coalesce(walk.kind = 'json', false) "
    f"OR walk.value ?| array[{_TAGS}, '$object', '$typed'])"
)
_KEY: Final = "CASE WHEN e.key LIKE '$%' THEN substr(e.key, 2) ELSE e.key END"
_PART: Final = rf"replace(replace({_KEY}, '\', '\\'), '.', '\.')"
_PATH: Final = rf"CASE WHEN e.key LIKE '{{%' THEN '\' || {_PART} ELSE {_PART} END"


class PostgreSQLViews(ViewSQL):
    """Views on PostgreSQL; a changed one is replaced, so that grants and views upon it stay."""

    @contextmanager
    def hasty(self, engine: Engine, database: sa.Engine) -> Iterator[sa.Connection]:
        """``statement_timeout`` bounds the wait for the schema, ``lock_timeout`` that for whoever reads the view."""
        with database.begin() as connection:
            connection.exec_driver_sql("SET LOCAL statement_timeout = '500ms'")
            try:
                engine.lock_schema(connection)
            except sa.exc.OperationalError as error:
                raise Busy("another writer is changing the schema") from error
            connection.exec_driver_sql("SET LOCAL statement_timeout = '10s'")
            connection.exec_driver_sql("SET LOCAL lock_timeout = '500ms'")
            yield connection

    def replace(self, connection: sa.Connection, view: str, select: str) -> None:
        """Columns only come at the end, so REPLACE does, unless somebody has changed the view by hand."""
        plain = connection.execution_options(no_parameters=True)
        made = f"VIEW {self.name(view)} AS {select}"
        try:
            with connection.begin_nested():
                plain.exec_driver_sql(f"CREATE OR REPLACE {made}")
        except sa.exc.ProgrammingError:
            plain.exec_driver_sql(f"DROP VIEW IF EXISTS {self.name(view)}")
            plain.exec_driver_sql(f"CREATE {made}")

    def untagged(self, kind: Kind, document: str) -> str:
        """See the base class."""
        if kind == "tagged":
            return f"CASE WHEN {document}::jsonb ? '$text' THEN {document} END"
        return _untagged(kind, f"({document}::jsonb)")

    def member(self, kind: Kind, data: str, kinds: str, path: str) -> str:
        """See the base class; an object is a value and no nesting where its kind is named."""
        place = f"({data} -> {' -> '.join(map(self._key, split_path(path)))})"
        named = f"({kinds} ->> {self._key(path)})"
        if kind == "tagged":
            return f"CASE WHEN {place} ? '$text' THEN replace({place}::text, ': ', ':') END"
        if kind == "json":
            return f"CASE WHEN jsonb_typeof({place}) = 'array' OR {named} = 'json' OR {place} = '{{}}' THEN {place} END"
        if kind in {"number", "text", "bool"}:
            return f"CASE WHEN {named} IS NULL THEN {_untagged(kind, place)} END"
        value = f"({place} #>> '{{}}')"
        large = f"WHEN {named} IS NULL THEN {_untagged(kind, place)}" if kind in {"int64", "bigint"} else ""
        return f"CASE WHEN {named} = {self.text(kind)} THEN {_from_text(kind, value)} {large} END"

    def level(self, levels: str, name: str) -> str:
        """See the base class."""
        return _untagged("text", f"({levels} -> {self._key(name)})")

    def rest_of_rows(self, path: str, columns: Mapping[str, Sequence[Kind]], rows: str, known: Collection[str]) -> str:
        """See the base class."""
        kinds, values = [], []
        for column, some in columns.items():
            mixed = len(some) > 1
            there = f"({column}::jsonb)"
            kinds.append(f"WHEN {column} IS NOT NULL THEN {_kind(there) if mixed else self.text(some[0])}")
            values.append(f"WHEN {column} IS NOT NULL THEN {there if mixed else _tagged(some[0], column)}")
        kind, value = (f"CASE {' '.join(cases)} END" for cases in (kinds, values))
        return self._object(f"SELECT {path} AS path, {kind} AS kind, {value} AS value {rows}", known)

    def rest_of_document(self, data: str, kinds: str, levels: str, known: Collection[str]) -> str:
        """See the base class; walks down the objects as far as they are only nesting."""
        below = f"walk.path || '.' || {_PATH}"
        walk = _WALK.format(
            path=_PATH, kind=_named(kinds, _PATH), kind_below=_named(kinds, below), data=data, is_leaf=_IS_LEAF
        )
        value = (
            f"CASE WHEN kind IN ({self.texts(_TAGGED)}) THEN jsonb_build_object('$' || kind, value) "
            "WHEN kind = 'bigint' THEN jsonb_build_object('$int', value) "
            "WHEN kind = 'int64' AND jsonb_typeof(value) = 'number' "
            "THEN jsonb_build_object('$typed', jsonb_build_array('int64', value)) ELSE value END"
        )
        leaves = _LEAVES.format(kind=_kind("value"), value=value, levels=levels, is_leaf=_IS_LEAF)
        return self._object(leaves, known, before=f"{walk} ")

    def _object(self, properties: str, known: Collection[str], before: str = "") -> str:
        path = "CASE WHEN path LIKE '$%' THEN '$' || path ELSE path END"
        return (
            f"({before}SELECT jsonb_object_agg({path}, value) FROM ({properties}) properties "
            f"WHERE kind || ' ' || path NOT IN ({self.texts(known)}))"
        )

    def _key(self, key: str) -> str:
        return f"{self.text('$' + key if key.startswith('$') else key)}::text"


def _named(kinds: str, path: str) -> str:
    """What a document's kinds say of a path."""
    return f"({kinds} ->> CASE WHEN {path} LIKE '$%' THEN '$' || {path} ELSE {path} END)"


def _untagged(kind: Kind, place: str) -> str:
    """Tagged JSON as a column of ``kind`` has it; NULL if it is of another kind."""
    if kind == "json":
        return (
            f"CASE WHEN {place} #>> '{{$typed,0}}' = 'json' THEN {place} #> '{{$typed,1}}' "
            f"WHEN jsonb_typeof({place}) = 'array' "
            f"OR jsonb_typeof({place}) = 'object' AND NOT {place} ?| array[{_TAGS}, '$typed'] THEN {place} END"
        )
    if kind in {"int64", "bigint"}:
        large = f"({place} ->> '$int')"
        number = f"coalesce({place} #>> '{{$typed,1,$int}}', {place} #>> '{{$typed,1}}')"
        return (
            f"CASE WHEN {place} #>> '{{$typed,0}}' = '{kind}' THEN {_from_text(kind, number)} "
            f"WHEN {large}::numeric {'' if kind == 'int64' else 'NOT '}{_INT64} THEN {_from_text(kind, large)} END"
        )
    plain: Mapping[Kind, str] = {
        "number": f"WHEN 'number' THEN {place}::float8 WHEN 'object' THEN ({place} ->> '$number')::float8",
        "text": f"WHEN 'string' THEN {place} #>> '{{}}'",
        "bool": f"WHEN 'boolean' THEN {place}::boolean",
    }
    if kind in plain:
        return f"CASE jsonb_typeof({place}) {plain[kind]} END"
    return _from_text(kind, f"({place} ->> '${kind}')")


_FROM_TEXT: Final[Mapping[Kind, str]] = {
    "bigint": "{}::numeric",
    "bytes": "decode({}, 'base64')",
    "date": "{}::date",
    "datetime": r"CASE WHEN {0} ~ 'T.*[-+]\d\d:\d\d[\d:.]*$' THEN {0}::timestamptz END",
    "decimal": r"CASE WHEN {0} ~ '^-?\d+(\.\d+)?$' THEN {0}::numeric END",
    "int64": "{}::bigint",
    "time": r"CASE WHEN {0} ~ '^[\d:.]+$' THEN {0}::time END",
    "uuid": "{}::uuid",
}


def _from_text(kind: Kind, text: str) -> str:
    """A value from its text in JSON."""
    return _FROM_TEXT[kind].format(text)


def _kind(place: str) -> str:
    """The kind of tagged JSON."""
    tags = " ".join(f"WHEN {place} ? '${kind}' THEN '{kind}'" for kind in ("number", *_TAGGED))
    large = f"({place} ->> '$int')::numeric"
    return (
        f"CASE jsonb_typeof({place}) WHEN 'boolean' THEN 'bool' WHEN 'number' THEN 'number' WHEN 'string' THEN 'text' "
        f"WHEN 'array' THEN 'json' ELSE CASE WHEN {large} {_INT64} THEN 'int64' "
        f"WHEN {large} IS NOT NULL THEN 'bigint' WHEN {place} ? '$text' THEN 'tagged' {tags} "
        f"ELSE coalesce({place} #>> '{{$typed,0}}', 'json') END END"
    )


_OBJECTS: Final[Mapping[Kind, str]] = {
    "bigint": "jsonb_build_object('$int', {}::text)",
    "bool": "to_jsonb({})",
    "bytes": r"jsonb_build_object('$bytes', translate(encode({}, 'base64'), E'\n', ''))",
    "datetime": (
        "jsonb_build_object('$datetime', to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"+00:00\"'))"
    ),
    "int64": (
        f"CASE WHEN {{0}} BETWEEN {-EXACT} AND {EXACT} "
        "THEN jsonb_build_object('$typed', jsonb_build_array('int64', {0})) "
        "ELSE jsonb_build_object('$int', {0}::text) END"
    ),
    "json": "{}",
    "number": (
        f"CASE WHEN abs({{0}}) < {EXACT} AND ({{0}} <> 0 OR {{0}}::text = '0') THEN to_jsonb({{0}}) "
        "ELSE jsonb_build_object('$number', replace(lower({0}::text), 'infinity', 'inf')) END"
    ),
    "tagged": "{}::jsonb",
    "text": "to_jsonb({})",
}


def _tagged(kind: Kind, value: str) -> str:
    """A column's value as tagged JSON."""
    return _OBJECTS.get(kind, f"jsonb_build_object('${kind}', {{}}::text)").format(value)
