"""The life of a database with rollups, beside a plain list of the messages that they must equal."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from itertools import groupby, islice
from math import fsum
from typing import Any

from hypothesis import strategies as st

from amqtt_db.reader.rollup import RollupInterval, read_rollup
from amqtt_db.writer.copying import Copier
from amqtt_db.writer.deletion import Deleter
from amqtt_db.writer.renaming import Renamer
from amqtt_db.writer.workshop import RewriteError, Workshop
from tests.database.engines.servers import Site
from tests.workbench import ARRIVAL, Workbench, routes

MINUTE, HOUR = 60, 3600
SHORTEST = 5 * MINUTE
START = ARRIVAL // 1_000_000 // HOUR * HOUR
"""The hour of the first arrival, in seconds since 1970."""

MODELS = ("wide", "eav", "narrow", "document")

Said = tuple[str, dict[str, Any]]
"""A topic and a message's data."""


def make_route(model: Any = "wide", **more: Any) -> dict[str, Any]:
    """Return a route with two steps."""
    return {"topic": "t/#", "model": model, "time": "at", "rollup": [{"every": "5 min"}, {"every": "1 h"}], **more}


def to_time(seconds: float) -> datetime:
    """Return a time from seconds since 1970."""
    return datetime.fromtimestamp(seconds, timezone.utc)


def aggregate(sent: list[Said], every: int) -> Iterator[RollupInterval]:
    """Yield the intervals that messages amount to, each computed in the plainest way.

    The sum of a longer one is that of the shortest ones' sums, as the documentation says.
    """
    for topic, path in sorted({(topic, path) for topic, data in sent for path in data if path != "at"}):
        values = sorted(
            ((data["at"], number, data[path]) for number, (of, data) in enumerate(sent) if of == topic and path in data)
        )
        if not values:
            continue
        if isinstance(values[0][2], str):
            yield from _states(topic, path, values, every)
            continue
        for start in sorted({at // every * every for at, _, _ in values}):
            said = [(at, float(value)) for at, _, value in values if start <= at < start + every]
            here = [value for _, value in said]
            total = fsum(fsum(value for _, value in some) for _, some in groupby(said, lambda one: one[0] // SHORTEST))
            yield RollupInterval(topic, path, to_time(start), len(here), here[0], here[-1], total, min(here), max(here))


def _states(topic: str, path: str, values: list[tuple[float, int, str]], every: int) -> Iterator[RollupInterval]:
    """Yield how long each state held; in an interval without a message nothing is said."""
    for start in sorted({at // every * every for at, _, _ in values}):
        here = [(at, value) for at, _, value in values if start <= at < start + every]
        before = [(start, value) for at, _, value in values if at < start][-1:]
        lengths: dict[str, float] = {}
        for (at, value), (until, _) in zip([*before, *here], [*before, *here, (start + every, "")][1:], strict=True):
            lengths[value] = lengths.get(value, 0) + until - at
        seconds = {value: length for value, length in sorted(lengths.items()) if length}
        yield RollupInterval(topic, path, to_time(start), len(here), here[0][1], here[-1][1], seconds=seconds)


def require_exact(url: str, sent: list[Said], *steps: int) -> None:
    """Compare rollups with what the messages amount to."""
    for every in steps or (5 * MINUTE, HOUR):
        found = [one for one in read_rollup(url, every=timedelta(seconds=every)) if one.path != "at"]
        assert found == list(aggregate(sent, every))


class Life:
    """A database with rollups, whose records are kept for two hours, with two writers."""

    def __init__(self, site: Site, **more: Any) -> None:
        self.site = site
        self.route = make_route(keep="2 h", **more)
        self.bench = Workbench(site, self.route)
        self.other = Workbench(site, self.route, token="b")
        self.sent: list[Said] = []
        self.copies = 0

    def send(self, topic: str, minutes: list[int], writer: str) -> None:
        """Store a message for each of some minutes, no two at the same time.

        Numbers are whole, so that no sum is rounded: a record that comes late may round it once more.
        States come in time, because a state that is said late may only count.
        """
        said: list[Said] = []
        for minute in minutes:
            at = START + minute * 60 + (len(self.sent) + len(said) + 1) / 64
            said.append((topic, {"at": at, "temp": float(minute % 7 - 3), "load": minute}))
            if at >= self.bench.now - 2 * HOUR and topic == "t/a":
                said[-1][1]["door"] = ("open", "shut", "ajar")[minute % 3]
        getattr(self, writer).send(*said)
        self.sent += said

    def settle(self, hours: int) -> None:
        """Let time pass, delete records that are too old, and compare."""
        self.bench.now = max(self.bench.now, START + hours * HOUR)
        self.check()

    def restart(self, steps: int) -> None:
        """Let a writer die after some steps of its upkeep; a new one starts."""
        with self.bench.writer._engine.maintenance(self.bench.writer._database) as is_mine:
            assert is_mine
            deque(islice(self.bench.writer.retention._round(everything=True), steps), 0)
        self.bench.restart()

    def delete(self, topic: str, hours: int | None) -> None:
        """Delete a topic, or what is older than a time."""
        with_before = None if hours is None else to_time(START + hours * HOUR)
        end = float("inf") if hours is None else START + hours * HOUR
        with self.workshop() as shop:
            list(Deleter(shop, topic, with_before).delete(topic))
        self.sent = [one for one in self.sent if one[0] != topic or one[1]["at"] >= end]
        self.check()

    def rename(self, _: int) -> None:
        """Give what is stored of one topic the name of the other."""
        if any(topic == "t/a" for topic, _ in self.sent):
            with self.workshop() as shop:
                try:
                    list(Renamer(shop).rename("t/a", "t/b"))
                except RewriteError:  # nothing is left of it but what it amounts to
                    return
            self.sent = [("t/b", data) for _, data in self.sent]
            self.check()

    def copy(self, steps: int) -> None:
        """Go on in a copy of the database, made while some of what is due is not done yet."""
        if not self.sent:
            return
        self.restart(steps)
        self.close()
        self.copies += 1
        old, new = self.bench.url, f"sqlite:///{self.site.path / f'copy{self.copies}.db'}"
        copier = Copier(old, new, routes(self.route, url=new))
        list(copier.copy())
        copier.close()
        for bench in (self.bench, self.other):
            bench.url = new
            bench.open()
        self.check()

    @contextmanager
    def workshop(self) -> Iterator[Workshop]:
        """Open the database to rewrite what it has; the writer stops meanwhile."""
        self.close()
        shop = Workshop(self.bench.url, routes(self.route, url=self.bench.url))
        try:
            yield shop
        finally:
            shop.close()
            self.bench.open()
            self.other.open()

    def close(self) -> None:
        """Stop both writers."""
        self.bench.close()
        self.other.close()

    def check(self) -> None:
        """Compare, when everything that is due is done."""
        self.bench.writer.retention.finish()
        require_exact(self.bench.url, self.sent)


_TOPIC = st.sampled_from(["t/a", "t/b"])
EVENTS = st.lists(
    st.one_of(
        st.tuples(
            st.just("send"),
            _TOPIC,
            st.lists(st.integers(-60, 360), min_size=1, max_size=6),
            st.sampled_from(["bench", "other"]),
        ),
        st.tuples(st.just("settle"), st.integers(0, 8)),
        st.tuples(st.just("restart"), st.integers(0, 12)),
        st.tuples(st.just("delete"), _TOPIC, st.none() | st.integers(0, 4)),
        st.tuples(st.just("rename"), st.just(0)),
        st.tuples(st.just("copy"), st.integers(0, 12)),
    ),
    min_size=2,
    max_size=8,
)
"""What may happen: the name of a method of :class:`Life`, with its arguments."""
