"""The page on databases is right about types, limits and grants."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import sqlalchemy as sa

from amqtt_db.database.engines.base import Engine
from amqtt_db.database.engines.mysql import MySQL
from amqtt_db.database.engines.postgresql import PostgreSQL
from amqtt_db.database.engines.sqlite import SQLite
from amqtt_db.errors import DatabaseError
from amqtt_db.record import KINDS, Kind
from amqtt_db.testing.servers import needed
from amqtt_db.testing.starting import execute, mariadb
from amqtt_db.writer.insert_plan import MAX_NAME
from tests.docs.test_docs import ROOT

PAGE = (ROOT / "docs" / "databases.md").read_text(encoding="utf-8")
ENGINES: list[tuple[type[Engine], sa.Dialect]] = [
    (SQLite, sa.make_url("sqlite://").get_dialect()()),
    (PostgreSQL, sa.make_url("postgresql+psycopg://").get_dialect()()),
    (MySQL, sa.make_url("mysql+pymysql://").get_dialect()()),
]


def _row(name: str) -> list[str]:
    (line,) = re.findall(rf"^\| {re.escape(name)} \| (.*) \|$", PAGE, re.MULTILINE)
    return [cell.strip() for cell in line.split("|")]


@pytest.mark.parametrize("kind", KINDS)
def test_types(kind: Kind) -> None:
    """Each kind's column, in each database."""
    made = [dialect.type_compiler_instance.process(engine.types[kind]) for engine, dialect in ENGINES]
    assert _row(f"`{kind}`") == [text.partition(" CHARACTER")[0] for text in made]


def test_limits() -> None:
    """Columns and names."""
    assert _row("Property columns per table, by default") == [f"{engine.max_columns:,}" for engine, _ in ENGINES]
    assert _row("A table's columns") == [f"{engine.most_columns:,}" for engine, _ in ENGINES]
    assert _row("The name of a property") == [f"{MAX_NAME:,} bytes"] * 3


@pytest.mark.slow
def test_the_anonymous_user_of_a_bare_mariadb() -> None:
    """It keeps the page's user out until it is dropped as the page says; the harness's servers have none."""
    (statements,) = re.findall(r"^```sql\n(CREATE USER mqtt IDENTIFIED.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (remedy,) = re.findall(r"`(DROP USER [^`]*)`", PAGE)
    with ExitStack() as stack:
        with needed("mysql"):
            url = stack.enter_context(mariadb(Path(stack.enter_context(TemporaryDirectory()))))
        execute(url, "CREATE USER ''@localhost", "CREATE DATABASE mqtt", *filter(str.strip, statements.split(";")))
        own = sa.make_url(url).set(username="mqtt", password="secret", database="mqtt")
        with pytest.raises(DatabaseError, match="Access denied"):
            execute(own.render_as_string(hide_password=False), "SELECT 1")
        execute(url, remedy)
        execute(own.render_as_string(hide_password=False), "SELECT 1")
