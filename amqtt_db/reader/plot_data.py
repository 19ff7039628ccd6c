"""The values of a topic over time, as a plot needs them: the extremes of each property in many short bins.

A bin is a range of the index by time, and no more than :data:`DEPTH` rows of it are read.  So a plot takes as long for
ten million records as for a hundred thousand; where a bin has more, it shows the first ones, and says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from math import isfinite
from typing import Any, Final

import attrs

from amqtt_db.database.snapshot import Snapshot
from amqtt_db.models.base import OwnColumns, ValueRows
from amqtt_db.reader.bin_sql import DEPTH, BinRow, read_columns, read_points, read_value_rows
from amqtt_db.reader.keys import LookupCache
from amqtt_db.reader.path import RecordPath, plan_paths
from amqtt_db.reader.plot_bins import NUMERIC, PLOTTED, Bins
from amqtt_db.reader.rollup_bins import read_summed_bins
from amqtt_db.reader.selection import Selection
from amqtt_db.reader.sources import find_sources
from amqtt_db.reader.walk import walk
from amqtt_db.record import Record
from amqtt_db.routing.topics import TopicFilter

_FEW: Final = 4000  # records that are read whole, where SQL cannot find the extremes
_SOME: Final = 6  # records of a bin, if there are more than a few


@attrs.frozen
class Extremes:
    """The lowest and the highest value of a property in a bin: numbers, texts or truth values."""

    low: Any
    high: Any

    def __or__(self, other: Extremes) -> Extremes:
        lowest, highest = min(self.low, other.low, key=_rank), max(self.high, other.high, key=_rank)
        return Extremes(lowest, highest)


def _rank(value: Any) -> tuple[bool, Any]:
    """Return where a value is in order: a property may be true or false at one time, and text at another."""
    return isinstance(value, str), value


@attrs.frozen
class Series:
    """A property over time: its extremes by the number of the bin; a bin without a value has none."""

    path: str
    is_numeric: bool
    bins: dict[int, Extremes]


@attrs.frozen
class PlotData:
    """The series of a topic, by path, and whether some bin has more records than were read."""

    series: tuple[Series, ...]
    is_sampled: bool = False


def read_plot(snapshot: Snapshot, topic: str, bins: Bins) -> PlotData:
    """Return the series of one topic, whatever its model.  Raises DatabaseError if it cannot be read."""
    keys = LookupCache(snapshot)
    found = find_sources(snapshot, Selection(TopicFilter.exactly(topic)))
    by_path: dict[tuple[str, bool], dict[int, Extremes]] = {}
    is_sampled = False
    summed = read_summed_bins(snapshot, topic, bins)
    paths = plan_paths(snapshot, keys, found, scan=False) if summed.count < bins.count else ()
    rest = bins.after(summed.count)
    read = (_read_bins(snapshot, keys, path, topic, rest) for path in paths)
    for first, row in chain(
        ((0, row) for row in summed.rows), ((summed.count, row) for row in chain.from_iterable(read))
    ):
        is_sampled |= row.is_cut
        if row.low is not None and _is_plottable(row):
            series, number = by_path.setdefault((row.path, row.kind in NUMERIC), {}), first + row.bin
            found_here = Extremes(row.low, row.high)
            series[number] = series[number] | found_here if number in series else found_here
    series_ = (Series(path, is_numeric, values) for (path, is_numeric), values in sorted(by_path.items()))
    return PlotData(tuple(series_), is_sampled)


def _is_plottable(row: BinRow) -> bool:
    return row.kind not in NUMERIC or (isfinite(row.low) and isfinite(row.high))


def _read_bins(snapshot: Snapshot, keys: LookupCache, path: RecordPath, topic: str, bins: Bins) -> Iterable[BinRow]:
    """Return what a topic has in each bin, found by SQL if the model says where its values are."""
    layout = path.source.model.layout
    if isinstance(layout, OwnColumns):
        return read_columns(snapshot, path, bins)
    if isinstance(layout, ValueRows) and len(path.details) == 1:
        if path.details[0].table.primary_key[:2] == (layout.path, "time"):
            return read_points(snapshot, keys, path, layout, topic, bins)
        return read_value_rows(snapshot, keys, path, layout, bins)
    return _read_records(snapshot, keys, path, bins)


def _read_records(snapshot: Snapshot, keys: LookupCache, path: RecordPath, bins: Bins) -> Iterator[BinRow]:
    """Yield what the records have: all of them if there are few, else the first ones of each bin."""
    whole = Selection(TopicFilter.exactly("#"), bins.start, bins.end)
    few = list(islice(walk(snapshot, keys, path, whole, 1000), _FEW + 1))
    if len(few) <= _FEW:
        yield from _rows_of(few, bins, most=DEPTH)
        return
    for low, high in bins.bounds:
        part = attrs.evolve(whole, low=low, high=high)
        yield from _rows_of(list(islice(walk(snapshot, keys, path, part, _SOME), _SOME)), bins, most=_SOME)


def _rows_of(records: Sequence[Record], bins: Bins, most: int) -> Iterator[BinRow]:
    """Yield a row for each value that can be plotted."""
    seen: Counter[int] = Counter()
    for record in records:
        number = bins.number_of(record.time_us)
        seen[number] += 1
        for path, (kind, value) in record.properties().items():
            if kind in PLOTTED and not path.startswith("{"):
                shown = float(value) if kind in NUMERIC else value
                yield BinRow(number, path, kind, shown, shown, is_cut=seen[number] >= most)
