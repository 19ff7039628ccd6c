"""The version of the project's own tables: which one a database has, and how an older one is upgraded.

``mqtt_meta`` holds it.  Databases of version 0 have no such table: they are older than version numbers.

To change the system tables, increase :data:`STORE_VERSION` and add a step to :data:`_STEPS`.  A step checks what exists
before each statement: if DDL commits implicitly, a step that was killed halfway runs again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from typing import Final

import sqlalchemy as sa

from amqtt_db.database.engines.base import Engine, driver_error, first_line
from amqtt_db.errors import DatabaseError
from amqtt_db.models.spec import from_spec, to_spec

STORE_VERSION: Final = 4
"""The version that this program reads and writes."""

_META: Final = "mqtt_meta"
_JOURNAL: Final = "mqtt_journal"
_COUNTER: Final = "mqtt_counter"
_OLD_COLUMN: Final = "epoch"  # a column that only version 0 has
_COUNTS_SINCE_2: Final = frozenset({"empty", "time_missing"})
_DEAD_LETTER: Final = "mqtt_dead_letter"
_KEPT_PAYLOADS: Final = "mqtt_raw"
_KEPT_PROPERTIES: Final = "properties"  # a column of both since version 4
_VERSION_NAME: Final = "version"


def require_version(connection: sa.Connection) -> bool:
    """Return True if a writer has noted the version, which it does when all system tables are there.

    Raises DatabaseError if the database is not empty and does not have the version that this program reads.
    """
    noted = _noted_version(connection)
    found = _seen_version(connection) if noted is None else noted
    if found is not None and found < STORE_VERSION:
        raise DatabaseError(
            f"the database's tables have version {found}, but this amqtt_db needs version {STORE_VERSION}: start the "
            "writer once, with `amqtt-db run` or `amqtt-db write`, to upgrade them"
        )
    _refuse_newer(found)
    return noted is not None


def upgrade(connection: sa.Connection, engine: Engine) -> None:
    """Upgrade older system tables to :data:`STORE_VERSION`, except for the number; call this with the schema locked.

    Raises DatabaseError if they are newer, or if the database rejects a step.
    """
    found = stored_version(connection)
    _refuse_newer(found)
    try:
        for step in range(STORE_VERSION if found is None else found, STORE_VERSION):
            _STEPS[step](connection, engine)
    except sa.exc.DBAPIError as error:
        raise DatabaseError(
            f"the database's tables have version {found} and cannot be upgraded to {STORE_VERSION}: the database "
            f"answers {first_line(driver_error(error))}"
        ) from error


def write_version(connection: sa.Connection, meta: sa.Table) -> None:
    """Record that the system tables have this version."""
    noted, here = str(STORE_VERSION), meta.c.name == _VERSION_NAME
    if connection.scalar(sa.select(meta.c.value).where(here)) != noted:
        connection.execute(meta.delete().where(here))
        connection.execute(meta.insert(), {"name": _VERSION_NAME, "value": noted})


def _noted_version(connection: sa.Connection) -> int | None:
    """Return the version that a writer has noted; asking for the table first would take longer than the answer."""
    meta = sa.table(_META, sa.column("name"), sa.column("value"))
    try:
        with connection.begin_nested():
            noted = connection.scalar(sa.select(meta.c.value).where(meta.c.name == _VERSION_NAME))
    except sa.exc.DBAPIError as error:
        if error.connection_invalidated or sa.inspect(connection).has_table(_META):
            raise
        return None
    return None if noted is None else int(noted)


def stored_version(connection: sa.Connection) -> int | None:
    """Return the version of a database's system tables, None if it has none."""
    noted = _noted_version(connection)
    return _seen_version(connection) if noted is None else noted


def _seen_version(connection: sa.Connection) -> int | None:
    """Return the version that the columns of the system tables show."""
    inspector = sa.inspect(connection)
    if not all(map(inspector.has_table, (_JOURNAL, _COUNTER, _DEAD_LETTER))):
        return None  # or a writer is just creating them, which MariaDB does not hide from others
    if _OLD_COLUMN in _names_of_columns(inspector, _JOURNAL):
        return 0
    counters = _names_of_columns(inspector, _COUNTER)
    if "unchanged" not in counters:
        return 2 if counters >= _COUNTS_SINCE_2 else 1
    return 4 if _KEPT_PROPERTIES in _names_of_columns(inspector, _DEAD_LETTER) else 3


def _names_of_columns(inspector: sa.Inspector, table: str) -> set[str]:
    return {column["name"] for column in inspector.get_columns(table)}


def _refuse_newer(found: int | None) -> None:
    if found is not None and found > STORE_VERSION:
        raise DatabaseError(
            f"the database's tables have version {found}, but this amqtt_db knows only versions up to {STORE_VERSION}: "
            "install the amqtt_db that created them, or a newer one"
        )


def _to_version_1(connection: sa.Connection, engine: Engine) -> None:
    """Rename what has a plainer name now, and drop what is no longer stored."""
    with past_broken_views(connection):
        for old, new in (("mqtt_placement", "mqtt_assignment"), ("mqtt_dead_piece", "mqtt_dead_segment")):
            if sa.inspect(connection).has_table(old):
                connection.exec_driver_sql(f"ALTER TABLE {old} RENAME TO {new}")
    _rename_in_views(connection, engine, "mqtt_placement", "mqtt_assignment")
    if sa.inspect(connection).has_table("mqtt_catalog"):
        connection.exec_driver_sql("UPDATE mqtt_catalog SET kind = 'timestamp' WHERE kind = 'moment'")
        connection.exec_driver_sql("DELETE FROM mqtt_catalog WHERE property = '{}'")  # the column extra of views
    _name_models(connection)
    with past_broken_views(connection):  # last, because this identifies version 0
        connection.exec_driver_sql(f"ALTER TABLE {_JOURNAL} RENAME COLUMN {_OLD_COLUMN} TO routing_version")


def _name_models(connection: sa.Connection) -> None:
    """Name models in assignments by their registered names instead of the modules of their classes."""
    table = sa.table("mqtt_assignment", sa.column("model"))
    for old in connection.scalars(sa.select(table.c.model).distinct()).all():
        new = old
        with suppress(Exception):  # a user's class may be gone, or raise anything
            model, timed = from_spec(old)
            new = to_spec(model, timed=timed)
        if new != old:
            connection.execute(table.update().where(table.c.model == old).values(model=new))


@contextmanager
def past_broken_views(connection: sa.Connection) -> Iterator[None]:
    """Let SQLite rename tables even if some view names a table that was dropped."""
    if connection.dialect.name != "sqlite":
        yield
        return
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    try:
        yield
    finally:
        connection.exec_driver_sql("PRAGMA writable_schema = OFF")


def _rename_in_views(connection: sa.Connection, engine: Engine, old: str, new: str) -> None:
    """Make all views use a table's new name; if the database has already done so, there is nothing to do."""
    inspector, quote = sa.inspect(connection), connection.dialect.identifier_preparer.quote_identifier
    plain = connection.execution_options(no_parameters=True)
    for view in inspector.get_view_names():
        definition = str(inspector.get_view_definition(view) or "")
        renamed = re.sub(rf"\b{old}\b", new, definition)
        if renamed == definition:
            continue
        if engine.transactional_ddl:
            plain.exec_driver_sql(f"DROP VIEW {quote(view)}")
        else:
            renamed = renamed.replace("CREATE ", "CREATE OR REPLACE ", 1)
        plain.exec_driver_sql(renamed)


def _to_version_2(connection: sa.Connection, engine: Engine) -> None:
    """Add counters for messages with an empty payload, and for records without a time of their own."""
    _add_counters(connection, engine, _COUNTS_SINCE_2)


def _to_version_3(connection: sa.Connection, engine: Engine) -> None:
    """Add a counter for messages that say nothing new."""
    _add_counters(connection, engine, {"unchanged"})


def _to_version_4(connection: sa.Connection, engine: Engine) -> None:
    """Add a column for the MQTT properties of messages that are kept with their payloads."""
    inspector, type_ = sa.inspect(connection), engine.types["bytes"].compile(connection.dialect)
    for table in (_KEPT_PAYLOADS, _DEAD_LETTER):
        if inspector.has_table(table) and _KEPT_PROPERTIES not in _names_of_columns(inspector, table):
            connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN {_KEPT_PROPERTIES} {type_}")


def _add_counters(connection: sa.Connection, engine: Engine, names: Set[str]) -> None:
    quote = connection.dialect.identifier_preparer.quote
    type_ = engine.types["int64"].compile(connection.dialect)
    for name in sorted(names - _names_of_columns(sa.inspect(connection), _COUNTER)):
        connection.exec_driver_sql(f"ALTER TABLE {_COUNTER} ADD COLUMN {quote(name)} {type_} NOT NULL DEFAULT 0")


_STEPS: Final[Mapping[int, Callable[[sa.Connection, Engine], None]]] = {
    0: _to_version_1,
    1: _to_version_2,
    2: _to_version_3,
    3: _to_version_4,
}
"""Version → the step that upgrades it to the next."""
