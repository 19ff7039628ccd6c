"""SQLite's SQL for views: JSON by ``json_extract``.

What its SQL cannot decode: bytes in JSON stay base64 text; text with U+0000 in tagged JSON is NULL, and so is
everything in an object with such a key.
"""

# ruff: noqa: S608 - every name and every literal is quoted

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import Any, Final

import attrs
import sqlalchemy as sa

from amqtt_db.database.engines.base import Engine
from amqtt_db.database.engines.sqlite import CACHE, DDL_CACHE
from amqtt_db.database.engines.views import ViewSQL, quote_literal
from amqtt_db.record import Kind

_WAIT_MILLISECONDS: Final = 500  # milliseconds

_TYPED: Final = '."$typed"'
_INT: Final = '."$int"'


@attrs.frozen
class _SqlitePlace:
    """A place in a JSON text: an expression for the text, and a path."""

    document: str
    path: str = "$"

    @property
    def type(self) -> str:
        """The value's JSON type."""
        return f"json_type({self.document}, {quote_literal(self.path)})"

    @property
    def value(self) -> str:
        """The value: a number, text, 0 or 1; an array or an object as JSON."""
        return f"json_extract({self.document}, {quote_literal(self.path)})"

    def at(self, step: str) -> _SqlitePlace:
        """Return the place after one more step of the path."""
        return attrs.evolve(self, path=self.path + step)

    def key(self, key: str) -> _SqlitePlace:
        """Return the place of an object's member; a path cannot name one with a quotation mark."""
        key = f"${key}" if key.startswith("$") else key
        if '"' not in key:
            return self.at(f'."{json.dumps(key, ensure_ascii=False)[1:-1]}"')
        value = (
            "json_object('v', CASE WHEN type IN ('object', 'array') THEN json(value) "
            "WHEN type IN ('true', 'false') THEN json(type) ELSE value END)"
        )
        found = f"json_each({self.document}, {quote_literal(self.path)}) WHERE key = {quote_literal(key)}"
        return _SqlitePlace(f"(SELECT {value} FROM {found})", "$.v")


class SQLiteViews(ViewSQL[_SqlitePlace]):
    """Views on SQLite; a changed one is dropped and created again in one transaction."""

    @contextmanager
    def with_short_timeout(self, engine: Engine, database: sa.Engine) -> Iterator[sa.Connection]:
        """The settings are the connection's own, so they are put back."""
        with database.connect() as connection:
            driver: Any = connection.connection.driver_connection
            (usual,) = driver.execute("PRAGMA busy_timeout").fetchone()
            driver.execute(f"PRAGMA busy_timeout = {_WAIT_MILLISECONDS}")
            driver.execute(f"PRAGMA cache_size = -{DDL_CACHE}")
            try:
                with connection.begin():
                    yield connection
            finally:
                driver.execute(f"PRAGMA busy_timeout = {usual}")
                driver.execute(f"PRAGMA cache_size = -{CACHE}")

    def replace(self, connection: sa.Connection, view: str, select: str) -> None:
        """DROP and CREATE in one transaction: readers see the old view or the new one."""
        connection.exec_driver_sql(f"DROP VIEW IF EXISTS {self.name(view)}")
        connection.exec_driver_sql(f"CREATE VIEW {self.name(view)} AS {select}")

    def at(self, document: str, keys: Sequence[str]) -> _SqlitePlace:
        """Write keys as tagged JSON does."""
        return reduce(_SqlitePlace.key, keys, _SqlitePlace(document))

    def text_at(self, place: _SqlitePlace) -> str:
        """Return the value; numbers are not converted to text."""
        return place.value

    def json_at(self, place: _SqlitePlace) -> str:
        """Return text: SQLite has no type for JSON."""
        return _json_text(place)

    def is_list_or_empty(self, place: _SqlitePlace) -> str:
        """Go by the JSON type."""
        return f"{place.type} = 'array' OR {place.value} = '{{}}'"

    def untagged(self, kind: Kind, place: _SqlitePlace) -> str:
        """Go by the JSON type, and by the tags of values that JSON has no type for."""
        return _untagged(kind, place)

    def interval_start(self, column: str, seconds: int) -> str:
        """Text, as all times, without the fraction, which would be rounded; a remainder may be negative."""
        now = f"CAST(strftime('%s', substr({column}, 1, 19)) AS INTEGER)"
        return f"datetime({now} - ({now} % {seconds} + {seconds}) % {seconds}, 'unixepoch') || '.000000'"

    def from_text(self, kind: Kind, text: str) -> str:
        """Use CAST, and cut times at known positions."""
        return _from_text(kind, text)


def _untagged(kind: Kind, place: _SqlitePlace) -> str:
    """Return the value at a place of tagged JSON as a column of ``kind`` has it; NULL if it is of another kind."""
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


def _is_unfit(place: _SqlitePlace) -> str:
    """Return a condition: true for NaN, −0.0 and lone surrogates, which no column of their kind returns."""
    number, text = (place.at(_tag(kind)).value for kind in ("number", "text"))
    return f"{number} IN ('nan', '-0.0') OR {text} GLOB '*\\ud[89a-f]*'"


def _untagged_integer(kind: Kind, place: _SqlitePlace) -> str:
    typed, large = place.at(f"{_TYPED}[1]"), place.at(_INT).value
    fits = f"{'' if kind == 'int64' else 'NOT '}{_fits_int64(large)}"
    of_kind = f"{place.at(f'{_TYPED}[0]').value} = {quote_literal(kind)}"
    number = f"coalesce({typed.at(_INT).value}, {typed.value})"
    return f"CASE WHEN {of_kind} THEN {_from_text(kind, number)} WHEN {fits} THEN {_from_text(kind, large)} END"


def _untagged_json(place: _SqlitePlace) -> str:
    typed = place.at(f"{_TYPED}[1]")
    return (
        f"CASE WHEN {place.at(f'{_TYPED}[0]').value} = 'json' THEN {_json_text(typed)} WHEN {place.type} = 'array' "
        f"OR {place.type} = 'object' AND {place.value} NOT GLOB '{{\"$[^$o]*' THEN {place.value} END"
    )


def _json_text(place: _SqlitePlace) -> str:
    """Return the value at a place as JSON text."""
    bools = "WHEN 'true' THEN 'true' WHEN 'false' THEN 'false'"
    number = _NUMBER_TEXT.format(place.value)
    return f"CASE {place.type} {bools} WHEN 'real' THEN {number} ELSE json_quote({place.value}) END"


def _tag(kind: Kind) -> str:
    return f'."${kind}"'


def _fits_int64(number: str) -> str:
    """Return a condition: true for digits of a signed integer of 64 bits."""
    return f"CAST(CAST({number} AS INTEGER) AS TEXT) = {number}"


def _from_text(kind: Kind, text: str) -> str:
    """Return a value from its text in JSON."""
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
    """Return the microseconds of a time, given where its decimal point would be."""
    return f"CASE substr({text}, {at}, 1) WHEN '.' THEN substr({text}, {at}, 7) ELSE '.000000' END"


_NUMBER_TEXT: Final = (
    "CASE CAST(printf('%.15g', {0}) AS REAL) WHEN {0} THEN printf('%.15g', {0}) ELSE printf('%!.17g', {0}) END"
)
