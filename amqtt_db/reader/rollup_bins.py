"""The bins of a plot that rollups fill: from the longest intervals that are short enough, or where records are gone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import key_hash
from amqtt_db.database.engines.views import view_sql
from amqtt_db.database.rollup_expiry import read_expiry, read_steps
from amqtt_db.database.rollup_tables import FIRST_TIME, LAST_TIME, SECOND, RollupTables
from amqtt_db.database.snapshot import Snapshot
from amqtt_db.models.rollup import SeriesName, Span
from amqtt_db.reader.bin_sql import BinRow
from amqtt_db.reader.plot_bins import Bins
from amqtt_db.reader.rollup import has_rollup_tables


@attrs.frozen
class SummedBins:
    """What the first ``count`` bins of a plot show; for these, no record needs to be read."""

    rows: tuple[BinRow, ...] = ()
    count: int = 0


def read_summed_bins(snapshot: Snapshot, topic: str, bins: Bins) -> SummedBins:
    """Return the bins of a topic that its rollups fill; the newest interval is left to the records."""
    if not has_rollup_tables(snapshot):
        return SummedBins()
    tables = RollupTables(snapshot.catalog, snapshot.connection)
    series, steps = tables.find_series(topic), _steps_of(snapshot, topic)
    if not series or not steps:
        return SummedBins()
    expired = read_expiry(snapshot.connection, snapshot.catalog, [topic])[topic].records
    fitting = [every for every in steps if every <= bins.width]
    every = max(fitting, default=min(steps))
    until = max(expired, _end_of(tables, topic, series.values(), every)) if fitting else expired
    count = max(0, min(bins.count, (until - bins.start) // bins.width))
    if not count:
        return SummedBins()
    low, high = bins.start if fitting else bins.start - every + 1, bins.start + count * bins.width
    names = {id_: name for name, id_ in series.items()}
    interval = _find_interval(snapshot, max(every, bins.width))
    rows = (
        _to_bin_row(number, names[id_], lowest, highest)
        for id_, start, lowest, highest in tables.read_extremes(list(names), every, low, high, interval)
        for number in _find_bin_numbers(bins, start, 1 if fitting else every)
        if 0 <= number < count
    )
    return SummedBins(tuple(rows), count)


def find_summed_time(snapshot: Snapshot, topics: Iterable[str]) -> Span | None:
    """Return the time in microseconds for which there are rollups of any of some topics, None without any."""
    if not has_rollup_tables(snapshot):
        return None
    found = [span for topic in topics for span in _summed_spans(snapshot, topic)]
    return Span(min(span.start for span in found), max(span.end for span in found)) if found else None


def _summed_spans(snapshot: Snapshot, topic: str) -> Iterator[Span]:
    """Yield from when on a topic has intervals, and the time until the end of its shortest ones."""
    tables = RollupTables(snapshot.catalog, snapshot.connection)
    ids, ends = tables.find_series(topic).values(), list[int]()
    for every in _steps_of(snapshot, topic):
        first, last = tables.next_start(ids, every, FIRST_TIME), tables.last_start(ids, every, LAST_TIME + 1)
        if first is not None and last is not None:
            ends.append(last + every)
            yield Span(first, ends[0])


def _steps_of(snapshot: Snapshot, topic: str) -> Sequence[int]:
    """Return the steps of a topic's route, as its writer has noted them; none without rollups."""
    expired = snapshot.catalog.rollup_expired
    route = snapshot.connection.scalar(sa.select(expired.c.route).where(expired.c.hash == key_hash(topic)))
    return read_steps(snapshot.connection, snapshot.catalog).get(route or "", ())


def _end_of(tables: RollupTables, topic: str, ids: Iterable[int], every: int) -> int:
    """Return up to when everything is summed up: the newest interval, and what is due, may be incomplete."""
    due = tables.catalog.rollup_due
    query = sa.select(sa.func.min(due.c.low)).where(due.c.hash == key_hash(topic), due.c.every <= every // SECOND)
    first_due = tables.connection.scalar(query)
    last = tables.last_start(list(ids), every, LAST_TIME + 1)
    ends = [int(end) for end in (first_due, last) if end is not None]
    return min(ends) if last is not None else FIRST_TIME


def _find_interval(snapshot: Snapshot, width: int) -> str | None:
    """Return SQL that tells which intervals are read together: those of about a bin, which the database does faster.

    It counts from 1970, so intervals at the beginning of a bin may be shown in the one before.
    """
    sql = view_sql(snapshot.engine, snapshot.connection.dialect)
    return None if sql is None else sql.interval_start(sql.name("start"), width // SECOND)


def _find_bin_numbers(bins: Bins, start: int, length: int) -> Iterable[int]:
    return range(bins.number_of(start), bins.number_of(start + length - 1) + 1)


def _to_bin_row(number: int, name: SeriesName, low: Any, high: Any) -> BinRow:
    path, kind = name
    shown = (low == "true", high == "true") if kind == "bool" else (low, high)
    return BinRow(number, path, kind, *shown, is_cut=False)
