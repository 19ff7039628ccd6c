"""What each page shows, read from the database and the journal; the templates turn it into HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import islice, zip_longest
from typing import Any, Final
from urllib.parse import urlencode

import attrs
import orjson

from amqtt_db.config import Settings
from amqtt_db.database.dead_letters import letter, letters
from amqtt_db.database.snapshot import Snapshot, open_snapshot
from amqtt_db.entity.duration import format_duration
from amqtt_db.entity.timestamp import read_time
from amqtt_db.errors import DatabaseError, UnreadableRecords
from amqtt_db.models.rollup import Span
from amqtt_db.models.spec import to_spec
from amqtt_db.reader.dead_reasons import count_reasons
from amqtt_db.reader.latest import DeviceState, latest
from amqtt_db.reader.plot_bins import Bins
from amqtt_db.reader.plot_data import read_plot
from amqtt_db.reader.records import read_records
from amqtt_db.reader.rollup_bins import find_summed_time
from amqtt_db.reader.selection import NEWEST, Selection
from amqtt_db.reader.status import read_status
from amqtt_db.reader.storage import describe_storage
from amqtt_db.reader.topics import topic_names
from amqtt_db.record import EPOCH, Record, to_micros
from amqtt_db.routing.route import Route
from amqtt_db.routing.topics import TopicFilter, first_match
from amqtt_db.web.chart import Band, Curve, make_band, make_curve, make_sparkline, time_marks
from amqtt_db.web.pulse import BEATS, Pulse
from amqtt_db.web.topic_tree import find_topics, leaves_of, make_tree
from amqtt_db.writer.preview import preview

Parameters = Mapping[str, str]
"""The parameters of a request."""

Context = dict[str, Any]
"""What a template gets."""

PLOT_BINS: Final = 480
"""How many bins a plot has: as many as the eye can tell apart."""

MOST_ROWS: Final = 50
MOST_LETTERS: Final = 100
MOST_DEVICES: Final = 200
MOST_NODES: Final = 200
"""How many rows, dead letters, devices and nodes of the tree a page shows."""

RANGES: Final = {
    "10min": ("10 minutes", 600),
    "1h": ("1 hour", 3600),
    "6h": ("6 hours", 6 * 3600),
    "1d": ("1 day", 86_400),
    "7d": ("7 days", 7 * 86_400),
    "30d": ("30 days", 30 * 86_400),
    "1y": ("1 year", 365 * 86_400),
}
"""The spans of time that a plot offers: a name, and seconds."""

_SHORTEST: Final = 60_000_000  # microseconds that a plot covers at least, even of a single record
_LONGEST_UNASKED: Final = "1d"  # the range that a plot shows if nothing else is asked for
_MOST_TOPICS: Final = 12  # plotted on one page
_MOST_LATEST: Final = 60  # topics in the tree whose newest record is shown
_MOST_FIELDS: Final = 40  # columns of the table of rows


class NotFound(Exception):  # noqa: N818 - it reads as what is the case
    """There is nothing under this address; the text says what was looked for."""


def view_overview(settings: Settings, pulse: Pulse, _: Parameters) -> Context:
    """Return how messages fare: counts, rates, lag, the journal, outages and dead letters."""
    status = read_status(settings)
    try:
        with open_snapshot(settings.database) as snapshot:
            reasons = count_reasons(snapshot)
    except DatabaseError:  # which the status tells
        reasons = []
    return {
        "status": status,
        "stored": sum(one.stored for one in status.counters or ()),
        "reasons": reasons,
        "rate": pulse.rate,
        "most": max(pulse.rates, default=0.0),
        "sparkline": make_sparkline(pulse.rates, BEATS),
        "beats": BEATS,
        "max_size": settings.journal.max_size,
    }


def view_topics(settings: Settings, _: Pulse, query: Parameters) -> Context:
    """Return the tree of topics, or those that contain some words, with the newest record of each."""
    words, at, first = query.get("q", ""), query.get("at"), max(0, _read_number(query.get("first", "0")))
    with open_snapshot(settings.database) as snapshot:
        names = topic_names(snapshot)
        found = find_topics(names, words)
        tree = make_tree(found, at, MOST_NODES, first)
        newest = _read_newest(snapshot, islice(leaves_of(tree), _MOST_LATEST))
    above = [] if at is None else at.split("/")
    steps = [("/".join(above[: index + 1]), level) for index, level in enumerate(above)]
    return {"tree": tree, "newest": newest, "q": words, "at": at, "steps": steps, "first": first, "total": len(names)}


def _read_newest(snapshot: Snapshot, topics: Iterable[str]) -> dict[str, Record]:
    found = ((topic, _edge(snapshot, TopicFilter.exactly(topic), newest=True)) for topic in topics)
    return {topic: record for topic, record in found if record is not None}


def _edge(snapshot: Snapshot, topics: TopicFilter, *, newest: bool) -> Record | None:
    """Return the newest or the oldest record; None if there is none, or it cannot be read."""
    wanted = Selection(topics, limit=1)
    found = read_records(snapshot, attrs.evolve(wanted, order=NEWEST) if newest else wanted)
    try:
        return next(iter(found), None)
    except UnreadableRecords:
        return None


@attrs.frozen
class Panel:
    """The plots of a topic, and the values of its newest record by path, if the plots end there."""

    topic: str
    curves: tuple[Curve, ...]
    bands: tuple[Band, ...]
    last: Mapping[str, Any]
    is_sampled: bool


def view_topic(settings: Settings, _: Pulse, query: Parameters) -> Context:
    """Return the plots and the rows of a topic, or of the topics that a filter with wildcards covers.

    Raises NotFound if nothing is stored for it, ValueError for a wrong parameter.
    """
    name = query.get("name", "")
    is_one = not {"+", "#"} & set(name.split("/"))
    wanted = TopicFilter.exactly(name) if is_one else TopicFilter.parse(name)
    with open_snapshot(settings.database) as snapshot:
        topics = [topic for topic in topic_names(snapshot) if wanted.match(topic) is not None]
        if not topics:
            raise NotFound(f"Nothing is stored for {name}." if name else "Name a topic: /topic?name=…")
        newest = _edge(snapshot, wanted, newest=True)
        rows, following = _read_rows_before(snapshot, wanted, query.get("before"))
        context: Context = {"newest": newest, "panels": [], "marks": (), "bins": None}
        plotted = topics[:_MOST_TOPICS]
        time = _find_time(snapshot, wanted, plotted, newest)
        if time is not None:
            context |= _plot(snapshot, plotted, time.start, time.end, query)
        storage = describe_storage(snapshot, topics[0])
    return {
        **context,
        "name": name,
        "is_one": is_one,
        "topics": topics,
        "left_out": max(0, len(topics) - _MOST_TOPICS),
        "rows": rows,
        "fields": _find_fields(rows),
        "following": following,
        "is_live": not {"end", "before"} & set(query),
        "route": _route_of(settings, topics[0]),
        "storage": storage,
    }


def _find_time(snapshot: Snapshot, wanted: TopicFilter, topics: Sequence[str], newest: Record | None) -> Span | None:
    """Return when there is something to plot: until the newest record, or until the sums of those that are deleted."""
    oldest, summed = _edge(snapshot, wanted, newest=False), find_summed_time(snapshot, topics)
    if oldest is None or newest is None:
        return summed
    return Span(oldest.time_us if summed is None else min(summed.start, oldest.time_us), newest.time_us)


def _plot(snapshot: Snapshot, topics: Sequence[str], first: int, last: int, query: Parameters) -> Context:
    """Return the plots of topics; ``first`` and ``last`` are when there is something of them, in microseconds."""
    end = to_micros(read_time(query["end"])) if "end" in query else last
    choice = query.get("range") or _fitting(first, last)
    if choice not in RANGES and choice != "all":
        raise ValueError(f"range is {choice!r}; it is one of {', '.join(RANGES)} or all")
    start = min(first, end - _SHORTEST) if choice == "all" else end - RANGES[choice][1] * 1_000_000
    bins = Bins.between(min(start, end), end, PLOT_BINS)
    return {
        "panels": [_panel(snapshot, topic, bins, is_newest="end" not in query) for topic in topics],
        "bins": bins,
        "marks": time_marks(bins),
        "range": choice,
        "ranges": RANGES,
        "start": _to_moment(bins.start),
        "end": _to_moment(end),
        "earlier": _iso(start) if start > first and choice != "all" else None,
        "later": _iso(2 * end - start) if end < last and choice != "all" else None,
    }


def _panel(snapshot: Snapshot, topic: str, bins: Bins, *, is_newest: bool) -> Panel:
    found = read_plot(snapshot, topic, bins)
    record = _edge(snapshot, TopicFilter.exactly(topic), newest=True) if is_newest else None
    last = {} if record is None else {path: value for path, (_, value) in record.properties().items()}
    curves = tuple(make_curve(series) for series in found.series if series.is_numeric)
    bands = tuple(make_band(series) for series in found.series if not series.is_numeric)
    return Panel(topic, curves, bands, last, found.is_sampled)


def _fitting(first: int, last: int) -> str:
    """Return the range that shows everything, and no more than a day."""
    return "all" if last - first <= RANGES[_LONGEST_UNASKED][1] * 1_000_000 else _LONGEST_UNASKED


def _read_rows_before(snapshot: Snapshot, wanted: TopicFilter, before: str | None) -> tuple[list[Record], str | None]:
    """Return a page of records, newest first, and where the next page begins; None if there is none.

    A page begins at a time, after some records of that time that the page before has shown.
    """
    time, _, shown = (before or "").partition(".")
    high, skipped = (_read_number(time) + 1 if time else None), max(0, _read_number(shown or "0"))
    selection = Selection(wanted, high=high, limit=skipped + MOST_ROWS + 1, order=NEWEST)
    found: list[Record] = []
    with suppress(UnreadableRecords):  # all others are shown
        found.extend(read_records(snapshot, selection))
    page = found[skipped : skipped + MOST_ROWS]
    if len(found) <= skipped + MOST_ROWS:
        return page, None
    last = page[-1].time_us
    return page, f"{last}.{sum(record.time_us == last for record in found[: skipped + MOST_ROWS])}"


def _find_fields(rows: Iterable[Record]) -> list[str]:
    """Return the paths of the properties of some records."""
    paths = {path for record in rows for path in record.properties() if not path.startswith("{")}
    return sorted(paths)[:_MOST_FIELDS]


def _route_of(settings: Settings, topic: str) -> Context | None:
    """Return what the configuration says about a topic; None if no route covers it any more."""
    found = first_match([route.filter for route in settings.routes], topic)
    return None if found is None else describe_route(settings.routes[found[0]])


def describe_route(route: Route) -> Context:
    """Return what a route's settings say, in words."""
    return {
        "topic": route.filter.text,
        "model": name_model(to_spec(route.model, timed=route.timed)) if route.stores else None,
        "entity": () if route.entity is None else sorted(route.entity.declared),
        "time": route.time,
        "keep": None if route.keep is None else format_duration(route.keep),
        "has_latest": route.latest is not None,
    }


def name_model(spec: str) -> str:
    """Return a model as people write it: its name, and the options that are set."""
    ((name, options),) = orjson.loads(spec).items()
    return ", ".join([name, *(f"{key}: {value}" for key, value in options.items() if value is not None)])


def view_devices(settings: Settings, _: Pulse, query: Parameters) -> Context:
    """Return the newest values of devices, for the routes that keep them."""
    words = query.get("q", "")
    try:
        states = latest(settings)
        found = (state for state in states if find_topics([state.device], words))
        shown = list(islice(found, MOST_DEVICES))
    except DatabaseError as error:
        return {"states": [], "q": words, "reason": str(error), "devices": MOST_DEVICES}
    devices = [(state, topics_of_device(settings, state)) for state in shown]
    return {"states": devices, "q": words, "reason": None, "devices": MOST_DEVICES}


def topics_of_device(settings: Settings, state: DeviceState) -> str:
    """Return the filter for the topics of a device: the levels that do not name it may be anything."""
    found = first_match([route.filter for route in settings.routes], state.topic)
    kept = None if found is None else settings.routes[found[0]].latest
    if found is None or kept is None:
        return state.topic
    route = settings.routes[found[0]]
    if not kept.paths:
        return route.siblings_of(state.topic)
    parts = route.filter.text.split("/")
    levels = [
        "+" if part.startswith("{") and part not in kept.paths else part if part in {"+", "#"} else level
        for part, level in zip_longest(parts, state.topic.split("/")[: len(parts)], fillvalue="#")
    ]
    return "/".join(levels)


def view_dead(settings: Settings, _: Pulse, query: Parameters) -> Context:
    """Return the newest dead letters, or one with its payload.  Raises NotFound if there is no such letter."""
    if "id" not in query:
        return {"letters": letters(settings.database, MOST_LETTERS), "letter": None, "most": MOST_LETTERS}
    found = letter(settings.database, _read_number(query["id"]))
    if found is None:
        raise NotFound(f"There is no dead letter {query['id']}.")
    return {"letters": [], "letter": found, "most": MOST_LETTERS}


def view_routes(settings: Settings, _: Pulse, __: Parameters) -> Context:
    """Return the routes of the configuration, in the order in which they are tried."""
    return {"routes": list(map(describe_route, settings.routes))}


def blank_sample(topic: str) -> Context:
    """Return a sample that nobody has tried yet."""
    return {"topic": topic, "payload": "", "result": None, "problem": None}


def try_sample(settings: Settings, topic: str, payload: str) -> Context:
    """Return what a sample would become, or why that cannot be told."""
    context = blank_sample(topic) | {"payload": payload}
    if not topic or "+" in topic or "#" in topic:
        return context | {"problem": "Give a message's topic, without + and #."}
    try:
        return context | {"result": preview(settings, topic, payload.encode())}
    except DatabaseError as error:
        return context | {"problem": str(error)}


def link(page: str, **parameters: Any) -> str:
    """Return the address of a page; parameters that are None are left out."""
    given = {name: value for name, value in parameters.items() if value is not None}
    return f"/{page}?{urlencode(given)}" if given else f"/{page}"


def _read_number(text: str) -> int:
    """Return a number that any database accepts.  Raises ValueError."""
    if not (text.isascii() and text.removeprefix("-").isdigit() and abs(int(text)) < 2**62):
        raise ValueError(f"{text!r} is not a number")
    return int(text)


def _to_moment(time: int) -> datetime:
    return EPOCH + timedelta(microseconds=time)


def _iso(time: int) -> str:
    return _to_moment(time).isoformat().replace("+00:00", "Z")
