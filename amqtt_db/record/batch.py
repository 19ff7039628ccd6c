"""Records of one shape, column by column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from operator import attrgetter
from typing import Any, overload

import attrs

from amqtt_db.record.records import Record, Shape, picker

_record_fields = attrgetter("id", "part", "time_us", "topic", "session", "qos", "retain", "values")


@attrs.frozen(eq=False)
class RecordBatch(Sequence[Record]):
    """Records of one shape, column by column; a single record is created only on demand.

    All sequences have the same length; ``columns`` hold the values, one for each of the shape's properties.
    """

    shape: Shape
    ids: Sequence[int]
    parts: Sequence[int]
    times: Sequence[int]
    topics: Sequence[str]
    sessions: Sequence[int | None]
    qos: Sequence[int]
    retains: Sequence[bool]
    columns: Sequence[Sequence[Any]]

    @classmethod
    def of(cls, shape: Shape, records: Sequence[Record]) -> RecordBatch:
        """Return records of ``shape`` as a batch; a batch is returned unchanged."""
        if isinstance(records, RecordBatch):
            return records
        if isinstance(records, RecordSlice):
            return records.whole.at(records.indexes)
        *envelope, values = zip(*map(_record_fields, records), strict=True) if records else ((),) * 8
        columns = list(zip(*values, strict=True)) if values else [()] * len(shape.properties)
        ids, parts, times, topics, sessions, qos, retains = envelope
        return cls(shape, ids, parts, times, topics, sessions, qos, retains, columns)

    @classmethod
    def joined(cls, blocks: Sequence[RecordBatch]) -> RecordBatch:
        """Return the records of several batches of the same shape as one batch."""
        if len(blocks) == 1:
            return blocks[0]
        columns = [[*chain.from_iterable(some)] for some in zip(*(block.columns for block in blocks), strict=True)]
        envelope = ([*chain.from_iterable(some)] for some in zip(*(block.envelope for block in blocks), strict=True))
        ids, parts, times, topics, sessions, qos, retains = envelope
        return cls(blocks[0].shape, ids, parts, times, topics, sessions, qos, retains, columns)

    def at(self, indexes: Sequence[int]) -> RecordBatch:
        """Return the records at some indexes."""
        if len(indexes) == len(self):
            return self
        pick = picker(indexes)
        ids, parts, times, topics, sessions, qos, retains = map(pick, self.envelope)
        return RecordBatch(self.shape, ids, parts, times, topics, sessions, qos, retains, list(map(pick, self.columns)))

    @property
    def first(self) -> tuple[int, int]:
        """The id and the part of the first record."""
        return self.ids[0], self.parts[0]

    @property
    def envelope(self) -> tuple[Sequence[Any], ...]:
        """The columns of the envelope, in the order of a record's fields."""
        return self.ids, self.parts, self.times, self.topics, self.sessions, self.qos, self.retains

    @property
    def values(self) -> Sequence[tuple[Any, ...]]:
        """The records' values, row by row."""
        return list(zip(*self.columns, strict=True)) if self.columns else [()] * len(self)

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Record]:
        return map(Record, *self.envelope, self.values, repeat(self.shape))

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        return list(self)[index]


@attrs.frozen(eq=False)
class RecordSlice(Sequence[Record]):
    """The records of a batch at some ascending indexes; what is made from the whole batch can be divided by them."""

    whole: RecordBatch
    indexes: Sequence[int]

    @property
    def shape(self) -> Shape:
        """The shape of all records of the batch."""
        return self.whole.shape

    @property
    def first(self) -> tuple[int, int]:
        """The id and the part of the first record."""
        return self.whole.ids[self.indexes[0]], self.whole.parts[self.indexes[0]]

    def __len__(self) -> int:
        return len(self.indexes)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        return self.whole.at(self.indexes)[index]

    def __iter__(self) -> Iterator[Record]:
        return iter(self.whole.at(self.indexes))
