"""Whose fault an error is: the only rule.

For an error raised while user code runs or user data is processed, the message is to blame: the batch is halved until
the message is alone and becomes a dead letter.  For an error raised by the database or its driver, the database is, and
the batch is retried, unless the database says that a value is at fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from amqtt_db.database.engines.base import Engine, driver_error
from amqtt_db.errors import DatabaseError, Rejected, StructureError, describe_fault


def rejection(engine: Engine, error: Exception) -> Rejected | None:
    """Return why an error turns its message into a dead letter; None if the database is to blame.

    A database's text may contain values, so usually only the class of its error is shown.
    """
    if isinstance(error, Rejected):
        return error
    if engine.is_value_fault(error):
        return Rejected(f"the database rejects a value: {engine.reason(error) or type(driver_error(error)).__name__}")
    return None


@contextmanager
def blame_data(database: sa.Engine) -> Iterator[None]:
    """Turn errors that user data causes in the project's own code into StructureError; leave the database's errors."""
    try:
        yield
    except Exception as error:
        if isinstance(error, Rejected) or _is_of_database(database, error):
            raise
        raise StructureError(describe_fault(error)) from error


def _is_of_database(database: sa.Engine, error: Exception) -> bool:
    if isinstance(error, sa.exc.StatementError):  # SQLAlchemy also wraps what a value raises before it is sent
        return isinstance(error, sa.exc.DBAPIError) or isinstance(error.orig, OSError)
    if isinstance(error, (sa.exc.CompileError, sa.exc.ArgumentError)):
        return False
    drivers_own = database.dialect.loaded_dbapi.Error
    return isinstance(error, (sa.exc.SQLAlchemyError, DatabaseError, OSError, drivers_own))
