"""Names of tables and columns."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import mysql, postgresql, sqlite

from amqtt_db.database.catalog import PhysicalTable
from amqtt_db.database.engines.base import Engine
from amqtt_db.database.engines.mysql import MySQL
from amqtt_db.database.engines.postgresql import PostgreSQL
from amqtt_db.database.engines.sqlite import SQLite
from amqtt_db.database.naming import SYSTEM_TABLES, clean, column_name, fold, table_name
from amqtt_db.database.reserved_words import RESERVED_WORDS
from amqtt_db.database.table_ddl import TableDDL, compile_ddl
from amqtt_db.models.base import Destination, Model
from amqtt_db.models.binding import bind
from amqtt_db.models.eav import Eav
from amqtt_db.models.narrow import Narrow
from amqtt_db.models.wide import Wide
from amqtt_db.record import Shape
from tests.values import texts

SHAPE = Shape((("a", "number"), ("b", "text")))
DIALECTS = {SQLite: sqlite.dialect, PostgreSQL: postgresql.dialect, MySQL: mysql.dialect}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("home/kitchen/climate", "home_kitchen_climate"),
        ("living room", "living_room"),
        ("Home/Living Room", "home_living_room"),
        ("température", "température"),
        ("1st", "_1st"),
        ("", "_"),
        ("?!", "_"),
        ('"; DROP TABLE x', "drop_table_x"),
    ],
)
def test_names_are_what_people_want_to_type(text: str, name: str) -> None:
    """Lower case, words joined by underscores, letters of any language."""
    assert clean(text) == name


@given(st.lists(texts, unique=True, max_size=20), st.sampled_from([20, 63]))
def test_columns_of_a_table_never_meet(paths: list[str], limit: int) -> None:
    """Any properties get columns that differ even where case and accents are ignored, within the engine's limit."""
    taken = {"id", "time", "topic"}
    for path in paths:
        name = column_name(path, "text", plain=True, taken=taken, limit=limit)
        assert fold(name) not in taken
        assert 0 < len(name.encode()) <= limit
        taken.add(fold(name))


def test_the_envelopes_names_never_move() -> None:
    """A property named like an envelope column gets another name."""
    assert column_name("time", "text", plain=True, taken={"time"}, limit=63) == "time_"
    assert column_name("Topic", "text", plain=True, taken={"topic"}, limit=63) == "topic_"


def test_only_the_first_kind_owns_the_plain_name() -> None:
    """A clash of types is seen in the column's name."""
    assert column_name("temp", "number", plain=True, taken=set(), limit=63) == "temp"
    assert column_name("temp", "text", plain=False, taken={"temp"}, limit=63) == "temp__text"


def test_long_topics_that_differ_at_the_end_get_different_stable_names() -> None:
    """The hash comes from the whole topic, so it is the same at every start."""
    names = [table_name("t" * 200 + end, is_taken=lambda _: False, limit=63) for end in "ab"]
    assert names[0] != names[1]
    assert names == [table_name("t" * 200 + end, is_taken=lambda _: False, limit=63) for end in "ab"]


def test_a_long_property_keeps_its_last_keys() -> None:
    """They say what it is; one without room for a single key is cut and gets a hash."""
    path = "uplink_message.decoded_payload.environment.sensors.outdoor.temperature"
    assert column_name(path, "number", plain=True, taken=set(), limit=63) == (
        "decoded_payload_environment_sensors_outdoor_temperature"
    )
    assert column_name(path, "text", plain=False, taken=set(), limit=26) == "outdoor_temperature__text"
    assert column_name(path, "text", plain=True, taken={"outdoor_temperature"}, limit=20) == "outdoor_temperature_"
    assert len(column_name("a." + "x" * 90, "text", plain=True, taken=set(), limit=63)) == 63


@pytest.mark.parametrize("topic", [*sorted(SYSTEM_TABLES), "mqtt/session", "sqlite/master", "pg_catalog"])
def test_no_topic_takes_the_name_of_a_house_or_system_table(topic: str) -> None:
    """The project's own tables and the engines' are out of reach."""
    name = table_name(topic, is_taken=lambda _: False, limit=63)
    assert name not in SYSTEM_TABLES
    assert not fold(name).startswith(("sqlite_", "pg_"))


@given(st.lists(texts, unique=True, max_size=20), st.sampled_from([20, 63, 64]))
def test_tables_never_meet(topics: list[str], limit: int) -> None:
    """Any topics get tables that differ even where case and accents are ignored, within the engine's limit."""
    taken: set[str] = set()
    for topic in topics:
        name = table_name(topic, is_taken=lambda candidate: fold(candidate) in taken, limit=limit)
        assert fold(name) not in taken
        assert 0 < len(name.encode()) <= limit
        assert name not in RESERVED_WORDS
        taken.add(fold(name))


@given(st.integers(1, 70), st.sampled_from([SQLite, PostgreSQL, MySQL]), st.booleans())
def test_a_tables_indexes_never_meet(length: int, engine: type[Engine], is_prefix: bool) -> None:
    """Whatever is cut off their names: each has its own within the limit, and those that fit keep their columns."""
    made = engine("sqlite://")
    model: Model = Eav(prefix="x" * length) if is_prefix else Wide(table="x" * length)
    for table in bind(model, Destination("t"), timed=False).tables():
        target = TableDDL(made).describe(PhysicalTable(table.key, table.name, {}), table)
        names = [str(index.name) for index in target.indexes]
        assert len(names) == len(set(names)) == len(table.indexes)
        assert all(len(name.encode()) <= made.name_limit for name in names)


@pytest.mark.parametrize("engine", [SQLite, PostgreSQL, MySQL])
@pytest.mark.parametrize("name", ["t", 'a"b', "a`b", "100 %", "any table", "any index", 's"any table"', "`any index0`"])
def test_the_ddl_of_like_tables_names_each_one(name: str, engine: type[Engine]) -> None:
    """Statements that are compiled once are those that SQLAlchemy makes for the table itself, whatever its name."""
    made, ddl = engine("sqlite://"), TableDDL(engine("sqlite://"))
    dialect = DIALECTS[engine]()
    for model in (Wide(table=name), Wide(table="other"), Narrow(prefix=name)):
        for table in bind(model, Destination("t"), timed=False).tables(SHAPE):
            columns = {pair: f"any table{number}" for number, pair in enumerate(table.properties)}
            known = PhysicalTable(table.key, table.name, columns)
            target = TableDDL(made).describe(known, table)
            wanted = {compile_ddl(dialect, sa.schema.CreateTable(target))}
            wanted |= {compile_ddl(dialect, sa.schema.CreateIndex(index)) for index in target.indexes}
            assert set(ddl.create(dialect, known, table)) == wanted


@pytest.mark.parametrize("word", ["current time", "user", "session_user", "order", "key", "Select"])
def test_a_word_of_sql_gets_another_name(word: str) -> None:
    """As a column and as a table; with a suffix it is an ordinary name."""
    assert column_name(word, "text", plain=True, taken=set(), limit=63) == f"{clean(word)}_"
    assert column_name(word, "text", plain=False, taken=set(), limit=63) == f"{clean(word)}__text"
    assert table_name(word, is_taken=lambda _: False, limit=63) == f"{clean(word)}_"
