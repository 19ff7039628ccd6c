"""Records as Parquet files, and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from amqtt_db.errors import UnreadableRecords
from amqtt_db.reader.arrow import ENVELOPE_FIELDS, make_fields, pair_of, table_of
from amqtt_db.reader.arrow_columns import columns_of_records
from amqtt_db.reader.arrow_types import read_array
from amqtt_db.reader.export import batch_until_error
from amqtt_db.reader.record_file import RecordFileError, checked_record
from amqtt_db.record import ENVELOPE_NAMES, Pair, Record, to_micros

_RECORDS_A_BATCH: Final = 2000
_RECORDS_A_GROUP: Final = 50_000  # so that memory does not depend on the number of records


class _Sink:
    """A file that passes on what is written."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self.closed = False

    def write(self, data: bytes) -> int:
        """Pass on bytes."""
        self._write(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing: the file is not ours."""


def write_parquet(read: Callable[[], Iterable[Record]], write: Callable[[bytes], object]) -> int:
    """Pass records to ``write`` as one Parquet file; return their number.

    ``read`` is called twice, first to find the columns, and must return the same records both times.
    """
    fields = make_fields(_count_pairs(read()))
    schema = pa.schema([*ENVELOPE_FIELDS, *fields.values()])
    written = 0
    with pq.ParquetWriter(pa.PythonFile(_Sink(write), mode="w"), schema, compression="zstd") as file:
        for some in batch_until_error(read(), _RECORDS_A_GROUP):
            file.write_table(_in_schema(table_of([columns_of_records(some)]), schema))
            written += len(some)
    return written


def _count_pairs(records: Iterable[Record]) -> Counter[Pair]:
    """Return how many values each path and kind has."""
    counts: Counter[Pair] = Counter()
    with suppress(UnreadableRecords):  # raised when the records are written
        for some in batch_until_error(records, _RECORDS_A_GROUP):
            for pair, column in columns_of_records(some).properties.items():
                counts[pair] += len(column) - column.null_count
    return counts


def _in_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with the columns of a schema, null where it has none."""
    there = {pair_of(field) or field.name: table.column(index) for index, field in enumerate(table.schema)}
    columns = [there.get(pair_of(field) or field.name, pa.nulls(len(table), field.type)) for field in schema]
    return pa.table(columns, schema)


def read_parquet(path: Path) -> Iterator[Record]:
    """Yield the records of a file.  Raises RecordFileError if it is not one that :func:`write_parquet` wrote."""
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_RECORDS_A_BATCH):
                yield from _records_of(batch)
    except (pa.ArrowException, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise RecordFileError(
            f"{path}: it is not a file as `amqtt-db export --format parquet` writes it: {type(error).__name__}"
        ) from error


def _records_of(batch: pa.RecordBatch) -> Iterator[Record]:
    envelope = {name: batch.column(name).to_pylist() for name in ENVELOPE_NAMES}
    envelope["time"] = [to_micros(moment) for moment in envelope["time"]]
    pairs = ((pair_of(field), batch.column(index)) for index, field in enumerate(batch.schema))
    columns = [read_array(pair, column) for pair, column in pairs if pair is not None]
    for row in range(len(batch)):
        found = (column[row] for column in columns)
        values = dict(one for one in found if one is not None)
        yield checked_record({name: column[row] for name, column in envelope.items()}, values)
