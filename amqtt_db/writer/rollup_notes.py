"""Notes on records that change, for the rollups of their topics: a row in the transaction that changes them.

A note names topics with their intervals, and for new records the range of their ids.  Nothing is summed up here: that
is done later, between batches.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta

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


@attrs.frozen
class RollupNote:
    """A note on topics of a route, named by its topic filter: their intervals, and the ids if the records are new."""

    route: str
    spans: TopicSpans
    first: int | None = None
    last: int | None = None


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
    """Note the records of a batch."""
    by_route: dict[str, list[Sequence[Record]]] = {}
    for (destination, _), records in groups.items() if rules else ():
        if destination.route in rules and len(records):
            by_route.setdefault(destination.route, []).append(records)
    _note_records(connection, catalog, rules, by_route, are_new=True)


def note_changed_records(
    connection: sa.Connection, catalog: Catalog, routes: Sequence[Route], records: Iterable[Record], *, are_new: bool
) -> None:
    """Note records that are new, or replaced by others or by none."""
    rules = find_rollup_rules(routes)
    if rules:
        _note_records(connection, catalog, rules, _divide_by_route(routes, records), are_new=are_new)


def _divide_by_route(routes: Sequence[Route], records: Iterable[Record]) -> Mapping[str, Sequence[Sequence[Record]]]:
    """Return records by the topic filter of the route that stores their topic."""
    filters, by_topic = [route.filter for route in routes], defaultdict[str, list[Record]](list)
    for record in records:
        by_topic[record.topic].append(record)
    by_route: dict[str, list[Sequence[Record]]] = {}
    for topic, some in by_topic.items():
        match = first_match(filters, topic)
        if match is not None:
            by_route.setdefault(filters[match[0]].text, []).append(some)
    return by_route


def _note_records(
    connection: sa.Connection,
    catalog: Catalog,
    rules: RollupRules,
    by_route: Mapping[str, Sequence[Sequence[Record]]],
    *,
    are_new: bool,
) -> None:
    """Write a note for each route that has a rule."""
    for route, some in by_route.items():
        if route in rules:
            columns = list(map(_columns_of, some))
            ids = [id_ for own, _, _ in columns for id_ in own] if are_new else []
            note = RollupNote(route, _find_spans(rules[route], columns), min(ids, default=None), max(ids, default=None))
            write_rollup_note(connection, catalog, note)


def read_rollup_notes(
    connection: sa.Connection, catalog: Catalog, rules: RollupRules, count: int
) -> dict[int, RollupNote]:
    """Return the oldest notes on topics of some routes by their ids."""
    table, by_hash = catalog.rollup_note, {key_hash(route): route for route in rules}
    query = sa.select(table).where(table.c.route.in_(list(by_hash))).order_by(table.c.id).limit(count)
    return {
        row["id"]: RollupNote(by_hash[row["route"]], _parse_spans(row["spans"]), row["first"], row["last"])
        for row in connection.execute(query).mappings()
    }


def read_topic_notes(connection: sa.Connection, catalog: Catalog, topic: str, before: int) -> Iterator[RollupNote]:
    """Yield the notes on new records of a topic in the time before another, without their routes."""
    table = catalog.rollup_note
    for row in connection.execute(sa.select(table).where(table.c.first.is_not(None))).mappings():
        spans = _parse_spans(row["spans"]).get(topic, ())
        late = [Span(span.start, min(span.end, before)) for span in spans if span.start < before]
        if late:
            yield RollupNote("", {topic: late}, row["first"], row["last"])


def delete_rollup_notes(connection: sa.Connection, catalog: Catalog, ids: Collection[int]) -> None:
    """Delete notes."""
    table = catalog.rollup_note
    connection.execute(table.delete().where(table.c.id.in_(list(ids))))


def write_rollup_note(connection: sa.Connection, catalog: Catalog, note: RollupNote) -> None:
    """Write a note."""
    spans = {topic: [[span.start, span.end] for span in some] for topic, some in note.spans.items()}
    row = {"route": key_hash(note.route), "first": note.first, "last": note.last}
    connection.execute(catalog.rollup_note.insert(), {**row, "spans": orjson.dumps(spans).decode()})


_Columns = tuple[Sequence[int], Sequence[int], Sequence[str]]
"""The ids, times and topics of records."""


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


def _parse_spans(text: str) -> TopicSpans:
    return {topic: [Span(*span) for span in spans] for topic, spans in orjson.loads(text).items()}
