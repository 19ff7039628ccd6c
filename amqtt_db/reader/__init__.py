"""Read records back from the database, the same from every model."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from amqtt_db.config import Settings
from amqtt_db.database.engines.urls import check_url
from amqtt_db.database.snapshot import open_snapshot
from amqtt_db.decode.libraries import import_library
from amqtt_db.reader.records import read_records
from amqtt_db.reader.selection import Selection
from amqtt_db.record import Record

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

__all__ = ["Records", "Selection", "read", "read_records", "url_of"]


def read(
    database: str | Settings,
    topic: str = "#",
    *,
    since: datetime | str | None = None,
    until: datetime | str | None = None,
    limit: int | None = None,
    newest: bool = False,
) -> Records:
    """Return the records of all topics that an MQTT filter covers, in time order, whatever their models.

    ``database`` is a SQLAlchemy URL, or the settings that name one.  ``since`` (inclusive) and ``until`` (exclusive)
    limit the records' times: datetimes with a zone, or text such as ``2026-01-31T12:00`` (UTC) and ``24h`` (ago).
    ``limit`` is the maximum number of records; ``newest`` reverses the order.  Records with equal times are ordered by
    id and part, and the properties of a record by path.  Records are fetched a page at a time, from the database as it
    was when the first one was requested; close the iterator if you stop halfway.

    Raises ValueError at once for a wrong argument, and DatabaseError, when the first record is requested, if the
    database cannot be read.
    """
    return Records(url_of(database), Selection.of(topic, since, until, limit, newest=newest))


class Records(Iterator[Record]):
    """The wanted records, one after the other; or all of them as a table of one of three libraries."""

    def __init__(self, url: str, selection: Selection) -> None:
        self._url = url
        self._selection = selection
        self._found = self._read()

    def __next__(self) -> Record:
        return next(self._found)

    def close(self) -> None:
        """Release the database, if not all records have been read."""
        self._found.close()

    def to_arrow(self) -> pyarrow.Table:
        """Return all records as an Arrow table: a column for each part of the envelope and for each property.

        The columns are typed by kind; where a property has several kinds, each has a column.  Raises ValueError, with
        what to install, if pyarrow is missing, and DatabaseError if a record cannot be read.
        """
        arrow = import_library("arrow", "pyarrow", "amqtt_db.reader.arrow")
        with open_snapshot(self._url) as snapshot:
            return arrow.read_arrow(snapshot, self._selection)

    def to_pandas(self) -> pandas.DataFrame:
        """Return :meth:`to_arrow` as a DataFrame of pandas, with the types of Arrow.

        Raises what that raises, and ImportError if pandas is missing.
        """
        import pandas  # noqa: PLC0415

        return self.to_arrow().to_pandas(types_mapper=pandas.ArrowDtype)

    def to_polars(self) -> polars.DataFrame:
        """Return :meth:`to_arrow` as a DataFrame of Polars.

        Raises what that raises, and ImportError if Polars is missing.
        """
        import polars  # noqa: PLC0415

        return polars.from_arrow(self.to_arrow())

    def _read(self) -> Generator[Record]:
        with open_snapshot(self._url) as snapshot:
            yield from read_records(snapshot, self._selection)


def url_of(database: str | Settings) -> str:
    """Return the database URL.  Raises ValueError if it is malformed."""
    if isinstance(database, Settings):
        return database.database
    check_url(database)
    return database
