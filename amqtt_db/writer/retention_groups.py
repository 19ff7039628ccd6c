"""Find the groups of tables to delete old records from, and how long the records of each topic are kept."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import CURRENT, Catalog
from amqtt_db.database.rollup_expiry import find_summed_topics
from amqtt_db.errors import Rejected
from amqtt_db.models.binding import BoundTable
from amqtt_db.models.calls import Watch, asking
from amqtt_db.models.spec import bound_model
from amqtt_db.routing.route import Route
from amqtt_db.routing.topics import first_match
from amqtt_db.writer.rollup_notes import RollupRule, RollupRules, find_rollup_rules

ASSIGNMENTS_AT_ONCE: Final = 2000  # read per step

Keep = timedelta | None
"""How long records are kept; None means forever."""


@attrs.define
class RetentionGroup:
    """A table of envelopes, the tables of their values, and how long the records of each topic in it are kept.

    ``keeps`` has the topics that now belong to a route of this writer; ``is_shared`` is true if there are others, which
    may belong to another writer.  ``newest`` are the tables in which a newer row replaces an older one, whatever its
    age.  ``rules`` has the topics that have rollups, which must be up to date before records are deleted.

    ``intervals`` has the topics with sums, perhaps of an earlier route.  Their records are deleted by whole intervals,
    of this length in microseconds, so that no interval is ever summed up again from a part of its records.
    """

    main: BoundTable
    values: dict[str, BoundTable] = attrs.field(factory=dict)
    keeps: dict[str, Keep] = attrs.field(factory=dict)
    newest: dict[str, BoundTable] = attrs.field(factory=dict)
    rules: dict[str, RollupRule] = attrs.field(factory=dict)
    intervals: dict[str, int] = attrs.field(factory=dict)
    is_shared: bool = False

    @property
    def tables(self) -> Mapping[str, BoundTable]:
        """All tables of records, the one with the envelopes last."""
        return {**self.values, self.main.key: self.main}

    @property
    def all_tables(self) -> Sequence[BoundTable]:
        """Those, and the ones from which nothing is deleted."""
        return [*self.tables.values(), *self.newest.values()]

    @property
    def longest(self) -> Keep:
        """The longest retention of any topic here, by which the database may delete on its own.

        None if some topic is, or may be, kept forever, or has sums.
        """
        if self.intervals:
            return None
        kept = [keep for keep in self.keeps.values() if keep is not None]
        return max(kept) if kept and len(kept) == len(self.keeps) and not self.is_shared else None

    def sweeps(self, policy: Keep) -> Iterator[tuple[str | None, timedelta]]:
        """Yield topics (None means all), and after how long to delete their records unless ``policy`` does."""
        are_alike = self.longest is not None and set(self.keeps.values()) == {self.longest}
        each = [(None, self.longest)] if are_alike else self.keeps.items()
        yield from ((topic, keep) for topic, keep in each if keep is not None and keep != policy)


def retention_groups(
    catalog: Catalog, database: sa.Engine, routes: Sequence[Route], watch: Watch
) -> Generator[int, None, tuple[Sequence[RetentionGroup], Rejected | None]]:
    """Return the groups of all topics that have ever been stored; yield 0 after each page that is read.

    A topic whose assignment differs from the routes does not belong to them.  If a model cannot be called, also return
    why: its records may be in any of these tables, so all count as shared.
    """
    fault: Rejected | None = None
    found: dict[str, RetentionGroup] = {}
    topics: dict[str, set[str]] = {}
    current: dict[str, Route] = {}
    rules = find_rollup_rules(routes)
    for number, rows in enumerate(_pages(catalog, database)):
        if number:
            yield 0
        current.update(_current_routes(rows, routes))
        for spec, some in groupby(sorted(rows, key=attrgetter("model")), key=attrgetter("model")):
            try:
                with asking(spec, watch):
                    groups = [(row.topic, _group(row)) for row in some]
            except Rejected as error:
                fault = error
                continue
            for topic, group in groups:
                known = found.setdefault(group.main.key, group)
                known.values.update(group.values)
                known.newest.update(group.newest)
                topics.setdefault(group.main.key, set()).add(topic)
    summed = _find_summed_topics(catalog, database, routes, rules)
    for key, group in found.items():
        group.keeps = {topic: current[topic].keep for topic in topics[key] if topic in current}
        own = {topic: current[topic].filter.text for topic in group.keeps}
        group.rules = {topic: rules[text] for topic, text in own.items() if text in rules}
        group.intervals = {topic: summed[topic] for topic in group.keeps if topic in summed}
        group.intervals |= {topic: rule.shortest for topic, rule in group.rules.items()}
        group.is_shared = fault is not None or len(group.keeps) < len(topics[key])
    return list(found.values()), fault


def _find_summed_topics(
    catalog: Catalog, database: sa.Engine, routes: Sequence[Route], rules: RollupRules
) -> Mapping[str, int]:
    """Return the topics with sums whose route no longer sums up, each with its shortest interval."""
    names = {route.filter.text for route in routes if route.keep is not None} - rules.keys()
    with database.begin() as connection:
        return find_summed_topics(connection, catalog, names) if names else {}


def _pages(catalog: Catalog, database: sa.Engine) -> Iterator[Sequence[Any]]:
    """Yield all assignments, a few thousand at a time."""
    last = ("", 0)
    while True:
        with database.begin() as connection:
            rows = catalog.assignments_after(connection, *last, ASSIGNMENTS_AT_ONCE)
        yield rows
        if len(rows) < ASSIGNMENTS_AT_ONCE:
            return
        last = rows[-1].hash, rows[-1].sequence


def _current_routes(rows: Iterable[Any], routes: Sequence[Route]) -> Iterator[tuple[str, Route]]:
    """Yield the topics whose assignment matches a route of this writer, each with its route."""
    filters = [route.filter for route in routes]
    for row in rows:
        match = first_match(filters, row.topic) if row.state == CURRENT else None
        if match is not None and filters[match[0]].text == row.route:
            yield row.topic, routes[match[0]]


def _group(row: Any) -> RetentionGroup:
    """Return the group of tables that an assignment means."""
    main, *others = bound_model(row.model, row.key, row.route).tables()
    by_kind: dict[bool, dict[str, BoundTable]] = {True: {}, False: {}}
    for table in others:
        by_kind[table.replaces][table.key] = table
    return RetentionGroup(main, by_kind[False], newest=by_kind[True])
