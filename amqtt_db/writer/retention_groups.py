"""Where the records of all topics lie, and how long they are kept there: what retention goes through."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import CURRENT, Catalog
from amqtt_db.models.binding import BoundTable
from amqtt_db.models.spec import bound_model
from amqtt_db.routing.route import Route
from amqtt_db.routing.topics import first_match

PAGE: Final = 2000  # placements read in a step

Keep = timedelta | None
"""How long records are kept, None: for ever."""


@attrs.define
class RetentionGroup:
    """A table of envelopes, the tables of their values, and how long the records of each topic in it are kept.

    ``keeps`` has the topics that are now in a route of this writer; ``is_shared`` tells that there are others, about
    which some other writer may know better.
    """

    main: BoundTable
    values: dict[str, BoundTable] = attrs.field(factory=dict)
    keeps: dict[str, Keep] = attrs.field(factory=dict)
    is_shared: bool = False

    @property
    def tables(self) -> Mapping[str, BoundTable]:
        """All tables, that of the envelopes last."""
        return {**self.values, self.main.key: self.main}

    @property
    def longest(self) -> Keep:
        """How long there is a topic whose records must stay."""
        kept = [keep for keep in self.keeps.values() if keep is not None]
        return max(kept) if kept and len(kept) == len(self.keeps) and not self.is_shared else None

    def sweeps(self, policy: Keep) -> Iterator[tuple[str | None, timedelta]]:
        """Which topics' records are to be deleted, None: all, and after how long; the database sees to ``policy``."""
        are_alike = self.longest is not None and set(self.keeps.values()) == {self.longest}
        each = [(None, self.longest)] if are_alike else self.keeps.items()
        yield from ((topic, keep) for topic, keep in each if keep is not None and keep != policy)


def retention_groups(
    catalog: Catalog, database: sa.Engine, routes: Sequence[Route]
) -> Generator[int, None, tuple[Sequence[RetentionGroup], ValueError | None]]:
    """The homes of all topics that have ever been stored; yields 0 between the pages that it reads.

    A topic that the routes put elsewhere than it is now is not theirs.  Also returns why a model cannot be loaded, if
    one cannot: its records may lie in any of these tables, so that all are shared.
    """
    unknown: ValueError | None = None
    filters = [route.filter for route in routes]
    found: dict[str, RetentionGroup] = {}
    topics: dict[str, set[str]] = {}
    current: dict[str, Route] = {}
    last = ("", 0)
    while True:
        with database.begin() as connection:
            rows = catalog.assignments_after(connection, *last, PAGE)
        for row in rows:
            match = first_match(filters, row.topic) if row.state == CURRENT else None
            if match is not None and filters[match[0]].text == row.route:
                current[row.topic] = routes[match[0]]
            try:
                group = _group(row)
            except ValueError as error:
                unknown = error
                continue
            if group is not None:
                found.setdefault(group.main.key, group).values.update(group.values)
                topics.setdefault(group.main.key, set()).add(row.topic)
        if len(rows) < PAGE:
            break
        last = rows[-1].hash, rows[-1].sequence
        yield 0
    for key, group in found.items():
        group.keeps = {topic: current[topic].keep for topic in topics[key] if topic in current}
        group.is_shared = unknown is not None or len(group.keeps) < len(topics[key])
    return list(found.values()), unknown


def _group(row: Any) -> RetentionGroup | None:
    """The home of a placement, if its model tells the times of records.  Raises ValueError if it cannot be loaded."""
    main, *details = (table for table in bound_model(row.model, row.key, row.route).tables() if not table.replaces)
    return RetentionGroup(main, {table.key: table for table in details})
