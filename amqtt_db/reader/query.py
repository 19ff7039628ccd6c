"""A user's own SQL, in a transaction that only reads; the answer as CSV or JSON."""

from __future__ import annotations

import base64
import csv
import io
import re
from collections import Counter
from difflib import get_close_matches
from typing import Any, Final

import orjson
import sqlalchemy as sa

from amqtt_db.config import Settings
from amqtt_db.database.engines.base import QueryResult
from amqtt_db.database.naming import SYSTEM_TABLES
from amqtt_db.database.snapshot import open_snapshot
from amqtt_db.errors import DatabaseError
from amqtt_db.reader import url_of

LONGEST_QUERY: Final = 60.0  # seconds, unless the user says otherwise
_MOST_NAMES: Final = 10
_MISSING_TABLE: Final = re.compile(
    r"""no such table: (?:main\.)?([^\s;]+)|relation "(?:[^".]+\.)?([^"]+)" does not exist|"""
    r"""Table '(?:[^'.]+\.)?([^']+)' doesn't exist"""
)
"""What SQLite, PostgreSQL, and MariaDB and MySQL answer if a table is missing."""


def run_query(database: str | Settings, statement: str, seconds: float = LONGEST_QUERY) -> QueryResult:
    """Return the answer to one SQL statement, as the database is now.

    ``database`` is a SQLAlchemy URL, or the settings that name one.  Raises DatabaseError for a statement that is
    wrong, does more than read or takes more than ``seconds``, and if the database cannot be read.
    """
    url = url_of(database)
    try:
        with open_snapshot(url) as snapshot:
            return snapshot.engine.run_query(snapshot.connection, statement, seconds)
    except DatabaseError as error:
        missing = _MISSING_TABLE.search(str(error))
        if missing is None:
            raise
        name = next(filter(None, missing.groups()))
        raise DatabaseError(f"{error}; {_name_others(url, name)}") from error


def _name_others(url: str, missing: str) -> str:
    """Return which tables and views there are instead of one that is missing: the nearest ones, or some."""
    with open_snapshot(url) as snapshot:
        inspector = sa.inspect(snapshot.connection)
        names = sorted({*inspector.get_table_names(), *inspector.get_view_names()})
    near = get_close_matches(missing, names, n=3)
    if near:
        return f"did you mean {' or '.join(near)}?"
    own = [name for name in names if name not in SYSTEM_TABLES][:_MOST_NAMES]
    return f"there are {', '.join(own) or 'no tables of records yet'}; `amqtt-db topics` says what is where"


def result_as_csv(result: QueryResult) -> str:
    """Return a header and the rows; NULL is an empty field."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(result.columns)
    writer.writerows(map(_answer_value, row) for row in result.rows)
    return text.getvalue()


def result_as_json(result: QueryResult) -> bytes:
    """Return a list of objects, one a row.  Raises DatabaseError if two columns have the same name."""
    twice = [name for name, count in Counter(result.columns).items() if count > 1]
    if twice:
        raise DatabaseError(f"two columns are named {twice[0]}; give one of them another name, with AS")
    rows = [dict(zip(result.columns, map(_answer_value, row), strict=True)) for row in result.rows]
    return orjson.dumps(rows, default=str)


def _answer_value(value: Any) -> Any:
    """Return a value that JSON and CSV have a form for: bytes as base64, and what is longer than 64 bits as text."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    return value if not isinstance(value, int) or -(2**63) <= value < 2**64 else str(value)
