"""Notes on records that change, for the rollups of their topics: a row in the transaction that changes them.

A note names topics with their intervals, and for new records the range of their ids.  Nothing is summed up here: that
is done later, between batches.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Final

import attrs
import orjson
import sqlalchemy as sa

from amqtt_db.database.catalog import Catalog, key_hash
from amqtt_db.database.rollup_tables import SECOND
from amqtt_db.models.rollup import Span, merge_spans
from amqtt_db.record import Record, RecordBatch, RecordSlice
from amqtt_db.routing.route import Route
from amqtt_db.routing.topics import first_match
from amqtt_db.writer.decoded import RecordGroups

TopicSpans = Mapping[str, Sequence[Span]]
"""The intervals of topics."""


@attrs.frozen
class RollupRule:
    """The steps of a route, the shortest first: the length of the intervals in microseconds, and how long to keep."""

    route: str
    steps: Mapping[int, timedelta | None]

    @property
    def shortest(self) -> int:
        """The length of the shortest intervals."""
        return min(self.steps)

    @property
    def longest(self) -> int:
        """The length of the longest intervals, a multiple of all others."""
        return max(self.steps)

    @property
    def longer(self) -> Sequence[int]:
        """The lengths of all but the shortest intervals."""
        return sorted(self.steps)[1:]


RollupRules = Mapping[str, RollupRule]
"""The rules by the topic filters of their routes."""

_Columns = tuple[Sequence[int], Sequence[int], Sequence[str]]
"""The ids, times and topics of records."""

_ID_RUNS: Final = ""  # beside the topics of a note, which are never empty
_ALL_IDS: Final = Span(0, 2**63 - 1)


@attrs.frozen
class RollupNote:
    """A note on topics of a route, named by its topic filter: their intervals, and the ids if the records are new.

    The ids, from the first to the one behind the last, may have gaps only where no other record has one of them.
    """

    route: str
    spans: TopicSpans
    ids: Sequence[Span] = ()

    def has_new(self, id_: int) -> bool:
        """Return True if a record is among the new ones."""
        return any(span.start <= id_ < span.end for span in self.ids)


def find_rollup_rules(routes: Iterable[Route]) -> RollupRules:
    """Return the rules of those routes that have any; the first route with a filter counts."""
    rules: dict[str, RollupRule] = {}
    for route in reversed(list(routes)):
        rules.pop(route.filter.text, None)
        if route.rollup and route.stores:
            steps = {round(step.every.total_seconds()) * SECOND: step.keep for step in route.rollup}
            rules[route.filter.text] = RollupRule(route.filter.text, steps)
    return rules


def note_new_records(connection: sa.Connection, catalog: Catalog, rules: RollupRules, groups: RecordGroups) -> None:
    """Note the records of a batch, with the ids from its first to its last: no others are stored between them yet."""
    by_route: dict[str, list[_Columns]] = {}
    for (destination, _), records in groups.items() if rules else ():
        if destination.route in rules and len(records):
            by_route.setdefault(destination.route, []).append(_columns_of(records))
    for route, columns in by_route.items():
        ids = [id_ for own, _, _ in columns for id_ in own]
        note = RollupNote(route, _find_spans(rules[route], columns), [Span(min(ids), max(ids) + 1)])
        write_rollup_note(connection, catalog, note)


def note_changed_records(
    connection: sa.Connection, catalog: Catalog, routes: Sequence[Route], records: Iterable[Record], *, are_new: bool
) -> None:
    """Note records that are new, or replaced by others or by none."""
    rules = find_rollup_rules(routes)
    for route, columns in _divide_by_route(routes, records).items() if rules else ():
        if route in rules:
            ids = merge_spans(Span(id_, id_ + 1) for own, _, _ in columns for id_ in own) if are_new else []
            write_rollup_note(connection, catalog, RollupNote(route, _find_spans(rules[route], columns), ids))


def _divide_by_route(routes: Sequence[Route], records: Iterable[Record]) -> Mapping[str, Sequence[_Columns]]:
    """Return the columns of records by the topic filter of the route that stores their topic."""
    filters, by_topic = [route.filter for route in routes], defaultdict[str, list[Record]](list)
    for record in records:
        by_topic[record.topic].append(record)
    by_route: dict[str, list[_Columns]] = {}
    for topic, some in by_topic.items():
        match = first_match(filters, topic)
        if match is not None:
            by_route.setdefault(filters[match[0]].text, []).append(_columns_of(some))
    return by_route


def read_rollup_notes(
    connection: sa.Connection, catalog: Catalog, rules: RollupRules, count: int
) -> dict[int, RollupNote]:
    """Return the oldest notes on topics of some routes by their ids."""
    table, by_hash = catalog.rollup_note, {key_hash(route): route for route in rules}
    query = sa.select(table).where(table.c.route.in_(list(by_hash))).order_by(table.c.id).limit(count)
    return {row["id"]: _parse_note(by_hash[row["route"]], row) for row in connection.execute(query).mappings()}


def read_notes_on_new(
    connection: sa.Connection, catalog: Catalog, after: int = 0, ids: Span = _ALL_IDS
) -> Iterator[RollupNote]:
    """Yield the notes behind another one that are on new records, some of them with these ids, without their routes."""
    table = catalog.rollup_note
    query = sa.select(table).where(table.c.id > after, table.c.first < ids.end, table.c.last >= ids.start)
    for row in connection.execute(query.order_by(table.c.id)).mappings():
        yield _parse_note("", row)


def delete_rollup_notes(connection: sa.Connection, catalog: Catalog, ids: Collection[int]) -> None:
    """Delete notes."""
    table = catalog.rollup_note
    connection.execute(table.delete().where(table.c.id.in_(list(ids))))


def write_rollup_note(connection: sa.Connection, catalog: Catalog, note: RollupNote) -> None:
    """Write a note."""
    spans = {topic: _to_pairs(some) for topic, some in note.spans.items()}
    if len(note.ids) > 1:
        spans[_ID_RUNS] = _to_pairs(note.ids)
    first, last = (note.ids[0].start, note.ids[-1].end - 1) if note.ids else (None, None)
    row = {"route": key_hash(note.route), "first": first, "last": last, "spans": orjson.dumps(spans).decode()}
    connection.execute(catalog.rollup_note.insert(), row)


def _to_pairs(spans: Iterable[Span]) -> list[list[int]]:
    return [[span.start, span.end] for span in spans]


def _columns_of(records: Sequence[Record]) -> _Columns:
    if isinstance(records, RecordBatch):
        return records.ids, records.times, records.topics
    if isinstance(records, RecordSlice):
        return _columns_of(records.whole.at(records.indexes))
    return [one.id for one in records], [one.time_us for one in records], [one.topic for one in records]


def _find_spans(rule: RollupRule, columns: Iterable[_Columns]) -> TopicSpans:
    """Return the shortest intervals of each topic."""
    every, starts = rule.shortest, defaultdict[str, set[int]](set)
    for _, times, topics in columns:
        for topic, number in set(zip(topics, [time // every for time in times], strict=True)):
            starts[topic].add(number * every)
    return {topic: merge_spans(Span(start, start + every) for start in some) for topic, some in starts.items()}


def _parse_note(route: str, row: sa.RowMapping) -> RollupNote:
    spans = {topic: [Span(*pair) for pair in pairs] for topic, pairs in orjson.loads(row["spans"]).items()}
    whole = [] if row["first"] is None else [Span(row["first"], row["last"] + 1)]
    return RollupNote(route, spans, spans.pop(_ID_RUNS, whole))
