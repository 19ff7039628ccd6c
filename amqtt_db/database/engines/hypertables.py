"""Tables in chunks by time: what a database that has them must do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import timedelta

import attrs
import sqlalchemy as sa

from amqtt_db.routing.route import Ordering


@attrs.frozen
class Chunks:
    """How a table is split into chunks: a route's ``Hypertable`` with the column names of this table."""

    length: timedelta
    compress_after: timedelta | None = None
    segment_by: tuple[str, ...] = ()
    order_by: tuple[Ordering, ...] = ()


class Hypertables(ABC):
    """Hypertables: tables in chunks by their column ``time``, which may be compressed, and are deleted as a whole."""

    @abstractmethod
    def missing(self, connection: sa.Connection) -> str | None:
        """Why the database cannot have any, and what to do; None where it can."""

    @abstractmethod
    def make(self, connection: sa.Connection, table: str, chunks: Chunks) -> list[str]:
        """Make an empty table a hypertable, or change what differs of one; returns the DDL that it took.

        What chunks there are stay as they are.
        """

    @abstractmethod
    def kept(self, connection: sa.Connection) -> Mapping[str, timedelta | None]:
        """The hypertables by name, and how long the database keeps their rows by itself; None: for ever."""

    @abstractmethod
    def keep(self, connection: sa.Connection, table: str, keep: timedelta | None) -> None:
        """Have the database delete chunks that ended longer ago than ``keep``; None: none."""

    @abstractmethod
    def permit_deletes(self, connection: sa.Connection) -> None:
        """Let the transaction delete rows of compressed chunks, however many must be unpacked for it."""
