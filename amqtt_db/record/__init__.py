"""Typed messages: kinds, property paths, shapes and records."""

from amqtt_db.record.batch import RecordBatch, RecordSlice
from amqtt_db.record.kinds import (
    EXACT,
    KIND_OF_TYPE,
    KINDS,
    MAX_DIGITS,
    Kind,
    Pair,
    TaggedValue,
    as_plain,
    kind_of,
    natural_kind,
    restored,
    tag,
)  # fmt: skip
from amqtt_db.record.paths import LEVELS, escape, flatten, level_path, nested, split_path, unescape, unflatten
from amqtt_db.record.records import (
    ENVELOPE_NAMES,
    EPOCH,
    MICROSECOND,
    Record,
    Shape,
    in_order,
    picker,
    records_of,
    to_micros,
)  # fmt: skip

__all__ = [
    "ENVELOPE_NAMES", "EPOCH", "EXACT", "KINDS", "KIND_OF_TYPE", "LEVELS", "MAX_DIGITS", "MICROSECOND", "Kind", "Pair",
    "Record", "RecordBatch", "RecordSlice", "Shape", "TaggedValue", "as_plain", "escape", "flatten", "in_order",
    "kind_of", "level_path", "natural_kind", "nested", "picker", "records_of", "restored", "split_path", "tag",
    "to_micros", "unescape", "unflatten",
]  # fmt: skip
