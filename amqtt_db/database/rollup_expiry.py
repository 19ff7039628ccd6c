"""Until when a topic's records, and its shortest intervals, may have been deleted because of their age."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import CURRENT, Catalog, key_hash
from amqtt_db.database.engines.base import batched
from amqtt_db.database.rollup_tables import FIRST_TIME, SECOND
from amqtt_db.models.rollup import floor_time

_NOTED_STEPS: Final = "rollup "  # before the hash of a route, in names of notes
_ENDED_STEPS: Final = "ended rollup "  # the same, for a route that no longer sums up


@attrs.frozen
class Expiry:
    """Times in microseconds: before them records, or the shortest intervals, may be gone.

    ``route`` is the hash of the topic filter of the route by whose steps the topic is summed up; it is empty while no
    route does that.
    """

    route: str = ""
    records: int = FIRST_TIME
    intervals: int = FIRST_TIME

    def first_of(self, every: int, shortest: int) -> int:
        """Return from when on intervals can still be summed up, from records or from the shortest intervals."""
        return _round_up(self.records if every == shortest else min(self.records, self.intervals), every)

    def of_whole_intervals(self, shortest: int, longest: int) -> Expiry:
        """Return the same for a route with other steps: an interval that is there only in part counts as gone."""
        records = self.records if self.records == FIRST_TIME else _round_up(self.records, shortest)
        intervals = self.intervals if self.intervals == FIRST_TIME else _round_up(self.intervals, longest)
        return attrs.evolve(self, records=records, intervals=intervals)


def _round_up(time: int, every: int) -> int:
    return floor_time(time, every) if time == FIRST_TIME else -(-time // every) * every


def read_expiry(connection: sa.Connection, catalog: Catalog, topics: Iterable[str]) -> dict[str, Expiry]:
    """Return the expiry of each topic, that of a new one with an empty route."""
    by_hash = {key_hash(topic): topic for topic in topics}
    table, found = catalog.rollup_expired, dict.fromkeys(by_hash.values(), Expiry())
    for hashes in batched(by_hash):
        for row in connection.execute(sa.select(table).where(table.c.hash.in_(hashes))):
            found[by_hash[row.hash]] = Expiry(row.route, row.records, row.intervals)
    return found


def write_expiry(connection: sa.Connection, catalog: Catalog, topic: str, expiry: Expiry) -> None:
    """Note the expiry of a topic."""
    table, hash_ = catalog.rollup_expired, key_hash(topic)
    connection.execute(table.delete().where(table.c.hash == hash_))
    connection.execute(table.insert(), {"hash": hash_, **attrs.asdict(expiry)})


def read_steps(connection: sa.Connection, catalog: Catalog) -> dict[str, Sequence[int]]:
    """Return the steps by which routes sum up, in microseconds, by the hash of each route's topic filter."""
    return _read_noted_steps(connection, catalog, _NOTED_STEPS)


def find_summed_topics(connection: sa.Connection, catalog: Catalog, routes: Iterable[str]) -> dict[str, int]:
    """Return the topics of some routes that have been summed up, by any route, each with its shortest step."""
    steps = {
        **_read_noted_steps(connection, catalog, _ENDED_STEPS),
        **_read_noted_steps(connection, catalog, _NOTED_STEPS),
    }
    series, assigned = catalog.rollup_series, catalog.assignment
    found: dict[str, int] = {}
    for some in batched(routes) if steps else ():
        query = sa.select(series.c.topic, series.c.route).join(assigned, assigned.c.hash == series.c.topic_hash)
        here = (assigned.c.state == CURRENT) & assigned.c.route.in_(some)
        for topic, route in connection.execute(query.where(here).distinct()):
            found[topic] = steps.get(key_hash(route), (SECOND,))[0]
    return found


def _read_noted_steps(connection: sa.Connection, catalog: Catalog, prefix: str) -> dict[str, Sequence[int]]:
    columns = catalog.meta.c
    noted = connection.execute(sa.select(columns.name, columns.value).where(columns.name.startswith(prefix)))
    return {row.name.removeprefix(prefix): [int(seconds) * SECOND for seconds in row.value.split(",")] for row in noted}


def write_steps(connection: sa.Connection, catalog: Catalog, route: str, steps: Iterable[int]) -> None:
    """Note the steps by which a route sums up."""
    meta, hash_ = catalog.meta, key_hash(route)
    names = [f"{_NOTED_STEPS}{hash_}", f"{_ENDED_STEPS}{hash_}"]
    connection.execute(meta.delete().where(meta.c.name.in_(names)))
    text = ",".join(str(every // SECOND) for every in sorted(steps))
    connection.execute(meta.insert(), {"name": names[0], "value": text})


def end_rollups(connection: sa.Connection, catalog: Catalog, routes: Iterable[str]) -> None:
    """Note that some routes do not sum up their topics; if they do so later, everything is summed up again."""
    table, meta = catalog.rollup_expired, catalog.meta
    for hashes in batched(map(key_hash, routes)):
        here = table.c.route.in_(hashes)
        # Asked first, because most starts have nothing to write, and a standby takes no writes.
        if connection.scalar(sa.select(table.c.route).where(here).limit(1)) is not None:
            connection.execute(table.update().where(here).values(route=""))
        ended = {f"{_NOTED_STEPS}{hash_}": f"{_ENDED_STEPS}{hash_}" for hash_ in hashes}
        for name in connection.scalars(sa.select(meta.c.name).where(meta.c.name.in_(ended))).all():
            connection.execute(meta.update().where(meta.c.name == name).values(name=ended[name]))
