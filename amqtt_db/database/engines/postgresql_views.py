"""PostgreSQL's SQL for views: JSON by ``jsonb``.

What its SQL cannot decode is NULL: text with U+0000, and everything in an object with such a key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import sqlalchemy as sa

from amqtt_db.database.engines.base import Engine
from amqtt_db.database.engines.views import ViewSQL
from amqtt_db.errors import Busy
from amqtt_db.record import Kind

_TAGGED: Final = ("bytes", "date", "datetime", "decimal", "time", "uuid")
"""Kinds whose values are objects with one key in tagged JSON, and text in a document."""

_TAGS: Final = ", ".join(f"'${name}'" for name in ("int", "number", "text", *_TAGGED))
_INT64: Final = f"BETWEEN {-(2**63)} AND {2**63 - 1}"


class PostgreSQLViews(ViewSQL[str]):
    """Views on PostgreSQL; a changed one is replaced, so that grants and dependent views remain."""

    @contextmanager
    def with_short_timeout(self, engine: Engine, database: sa.Engine) -> Iterator[sa.Connection]:
        """Limit the wait for the schema by ``statement_timeout``, and for readers of the view by ``lock_timeout``."""
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
        """Use REPLACE, because new columns come at the end, unless somebody has changed the view by hand."""
        plain = connection.execution_options(no_parameters=True)
        made = f"VIEW {self.name(view)} AS {select}"
        try:
            with connection.begin_nested():
                plain.exec_driver_sql(f"CREATE OR REPLACE {made}")
        except sa.exc.ProgrammingError:
            plain.exec_driver_sql(f"DROP VIEW IF EXISTS {self.name(view)}")
            plain.exec_driver_sql(f"CREATE {made}")

    def at(self, document: str, keys: Sequence[str]) -> str:
        """Return an expression for a value of type ``jsonb``."""
        return f"({' -> '.join((f'{document}::jsonb', *map(self._key, keys)))})"

    def text_at(self, place: str) -> str:
        """Use an empty path, which leads to the value itself."""
        return f"({place} #>> '{{}}')"

    def json_at(self, place: str) -> str:
        """Return the value unchanged: it already has that type."""
        return place

    def is_list_or_empty(self, place: str) -> str:
        """Go by the JSON type."""
        return f"jsonb_typeof({place}) = 'array' OR {place} = '{{}}'"

    def untagged(self, kind: Kind, place: str) -> str:
        """Go by the JSON type, and by the tags of values that JSON has no type for."""
        if kind == "tagged":
            return f"CASE WHEN {place} ? '$text' THEN '{{\"$text\":' || ({place} -> '$text')::text || '}}' END"
        return _untagged(kind, place)

    def interval_start(self, column: str, seconds: int) -> str:
        """By the seconds since 1970."""
        return f"to_timestamp(floor(extract(epoch FROM {column}) / {seconds}) * {seconds})"

    def from_text(self, kind: Kind, text: str) -> str:
        """Use casts."""
        return _from_text(kind, text)

    def _key(self, key: str) -> str:
        return f"{self.text('$' + key if key.startswith('$') else key)}::text"


def _untagged(kind: Kind, place: str) -> str:
    """Return tagged JSON as a column of ``kind`` has it; NULL if it is of another kind."""
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
    """Return a value from its text in JSON."""
    return _FROM_TEXT[kind].format(text)
