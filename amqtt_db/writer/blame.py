"""Whose fault an error is: the one rule.

What is raised while user code runs or user data is worked on belongs to the message: the batch is halved until the
message stands alone, and becomes a dead letter.  What the database or its driver raises is the database's condition,
and the batch is tried again, unless the database says that a value is at fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from amqtt_db.database.engines.base import Engine, driver_error
from amqtt_db.errors import DatabaseError, Rejected, StructureError, describe_fault


def rejection(engine: Engine, error: Exception) -> Rejected | None:
    """Return why an error makes a dead letter of its message; None if it is the database's condition.

    What a database says may contain values, so mostly only the class of its error is told.
    """
    if isinstance(error, Rejected):
        return error
    if engine.is_value_fault(error):
        return Rejected(f"the database rejects a value: {engine.reason(error) or type(driver_error(error)).__name__}")
    return None


@contextmanager
def blame_data(database: sa.Engine) -> Iterator[None]:
    """Make what user data causes in the project's own code a StructureError; the database's errors stay as they are."""
    try:
        yield
    except Exception as error:
        if isinstance(error, Rejected) or _is_of_database(database, error):
            raise
        raise StructureError(describe_fault(error)) from error


def _is_of_database(database: sa.Engine, error: Exception) -> bool:
    if isinstance(error, sa.exc.StatementError):  # SQLAlchemy wraps also what a value raises before it is sent
        return isinstance(error, sa.exc.DBAPIError) or isinstance(error.orig, OSError)
    if isinstance(error, (sa.exc.CompileError, sa.exc.ArgumentError)):
        return False
    drivers_own = database.dialect.loaded_dbapi.Error
    return isinstance(error, (sa.exc.SQLAlchemyError, DatabaseError, OSError, drivers_own))
