"""Records: exact times, absent properties, and batches that hold the same records."""

from __future__ import annotations

from datetime import datetime, timezone

from amqtt_db.record import Record, RecordBatch, Shape, to_micros


def test_a_records_time_is_exact_from_year_1_to_9999() -> None:
    """Microseconds lead to the datetime and back at both ends."""
    for moment in (datetime.min, datetime.max):
        aware = moment.replace(tzinfo=timezone.utc)
        record = Record(1, 0, to_micros(aware), "t", None, 0, False, (), Shape(()))
        assert record.time == aware


def test_absent_properties_are_not_among_a_records_properties() -> None:
    """None means absent."""
    record = Record(1, 0, 0, "t", None, 0, False, (1, None), Shape((("a", "number"), ("b", "text"))))
    assert record.properties() == {"a": ("number", 1)}


def test_a_batch_holds_the_records_it_was_made_of() -> None:
    """In their order, also picked by indexes and joined; with and without properties."""
    for shape, values in ((Shape((("a", "number"),)), (1.5,)), (Shape(()), ())):
        records = [Record(n, n % 2, n * 10, f"t/{n}", n or None, n % 3, n > 1, values, shape) for n in range(4)]
        batch = RecordBatch.of(shape, records)
        assert list(batch) == records
        assert list(batch.at([1, 3])) == [records[1], records[3]]
        assert list(RecordBatch.joined([batch, batch.at([2])])) == [*records, records[2]]
        assert batch.first == (0, 0)
        assert batch[1:3] == records[1:3]
