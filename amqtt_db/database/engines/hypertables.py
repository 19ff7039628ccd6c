"""The interface of hypertables: tables that the database splits into chunks by time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import timedelta

import attrs
import sqlalchemy as sa

from amqtt_db.routing.route import Ordering


@attrs.frozen
class HypertableLayout:
    """The layout of one table's chunks: a route's ``Hypertable`` in terms of the table's own columns."""

    length: timedelta
    compress_after: timedelta | None = None
    segment_by: tuple[str, ...] = ()
    order_by: tuple[Ordering, ...] = ()


class Hypertables(ABC):
    """Creates and maintains tables in chunks by ``time``, which may be compressed and are deleted as a whole."""

    @abstractmethod
    def missing(self, connection: sa.Connection) -> str | None:
        """Return why the database cannot have hypertables, and what to do; None if it can."""

    @abstractmethod
    def make(self, connection: sa.Connection, table: str, layout: HypertableLayout) -> list[str]:
        """Turn an empty table into a hypertable, or change its settings; return the DDL used.

        Existing chunks do not change.
        """

    @abstractmethod
    def retention_policies(self, connection: sa.Connection) -> Mapping[str, timedelta | None]:
        """Return the retention policies of all hypertables by name; None means that rows are never deleted."""

    @abstractmethod
    def set_retention(self, connection: sa.Connection, table: str, keep: timedelta | None) -> None:
        """Set the retention policy; None removes it."""

    @abstractmethod
    def permit_deletes(self, connection: sa.Connection) -> None:
        """Let the transaction delete compressed rows, however many must be decompressed."""
