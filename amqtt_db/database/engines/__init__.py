"""Engines: one for each database system, found by URL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from amqtt_db import registry
from amqtt_db.database.engines.urls import ENGINE_GROUP, dialect_of

if TYPE_CHECKING:  # it needs SQLAlchemy, which the broker's process does without
    from amqtt_db.database.engines.base import Engine

ENGINES: Final[Mapping[str, str]] = {
    "mariadb": "amqtt_db.database.engines.mysql.MySQL",
    "mysql": "amqtt_db.database.engines.mysql.MySQL",
    "postgresql": "amqtt_db.database.engines.postgresql.PostgreSQL",
    "sqlite": "amqtt_db.database.engines.sqlite.SQLite",
}
"""Dialect names and where their engines are; others come from the entry point group ``amqtt_db.engines``."""


def engine_for(url: str) -> Engine:
    """Return the engine for a SQLAlchemy URL.  Raises ValueError for an unknown dialect."""
    engine: Engine = registry.load(dialect_of(url), ENGINES, ENGINE_GROUP)(url)
    return engine
