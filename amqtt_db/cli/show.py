"""Render results for a terminal: routes, previews, status, dead letters, tables.

Text from messages is untrusted: characters that could control a terminal are escaped.
"""

from __future__ import annotations

import re
import shlex
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from amqtt_db import tagged
from amqtt_db.config import Settings
from amqtt_db.database.naming import SYSTEM_TABLES
from amqtt_db.entity.duration import format_duration
from amqtt_db.entity.timestamp import event_time
from amqtt_db.errors import format_count
from amqtt_db.journal.inspection import JournalInfo, readable_bytes
from amqtt_db.models.base import ENVELOPE
from amqtt_db.record import EXACT, Record
from amqtt_db.routing.records import time_paths
from amqtt_db.routing.route import Route

if TYPE_CHECKING:  # these need SQLAlchemy, which the broker's process does without
    from amqtt_db.database.dead_letters import DeadLetter
    from amqtt_db.reader.latest import DeviceState
    from amqtt_db.reader.topics import StoredTopic
    from amqtt_db.writer.disagreements import RouteChange
    from amqtt_db.writer.preview import Preview

_WIDEST = 200  # characters of a value in a table
_FEW_COLUMNS = 3  # which can be read however narrow the terminal is


def escape_text(text: str | bytes) -> str:
    """Return text with everything unprintable escaped: no colours, cursor movements or reversed writing."""
    decoded = text.decode("utf-8", "backslashreplace") if isinstance(text, bytes) else text
    return "".join(letter if letter.isprintable() else _escape_letter(letter) for letter in decoded)


def _escape_letter(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def render_routes(settings: Settings) -> RenderableType:
    """Return a table of the routes, in the order in which they are tried."""
    rows = (
        (
            route.filter.text,
            _format_model(route.model) if route.stores else "not stored",
            "—" if route.entity is None else format_count(len(route.entity.declared), "property", "properties"),
            route.time or "arrival",
            route.unknown,
            route.mismatch,
            ("always" if route.keep is None else format_duration(route.keep)) if route.stores else "—",
        )
        for route in settings.routes
    )
    header = ("topic", "model", "entity", "time", "unknown", "mismatch", "kept")
    return make_table(header, rows, "Routes: the first match applies")


def describe_keys(routes: Iterable[Route]) -> Iterator[str]:
    """Yield lines about what the table of routes does not show: what else a route does with its messages."""
    for route in routes:
        told = list(_describe_extras(route)) if route.stores else []
        if told:
            yield f"{route.filter.text}:"
            yield from (f"  {line}" for line in told)


def _describe_extras(route: Route) -> Iterator[str]:
    naming, latest, only = route.reshaping.property, route.latest, route.only
    device = "device" if naming or (latest is not None and latest.paths) else "topic"
    if route.format != "auto":
        yield f"decode: {route.format}"
    if naming:
        yield f"property: {naming} names the value; a device is a topic without these levels"
    if latest is not None:
        paths = ", ".join(latest.paths)
        yield f"latest: a row for each {paths or device} keeps the newest value of each property"
    if only is not None:
        widths = "".join(f", {path} by more than {width:g}" for path, width in only.deadband.items())
        pause = only.at_least_every
        limit = "" if pause is None else f", and one after {format_duration(pause)} in any case"
        yield f"only: stores messages that change a value{widths}{limit}"
    if route.gather is not None:
        yield f"gather: the view has a row for each {device} and {format_duration(route.gather)}"
    if route.indexes:
        yield f"indexes: {'; '.join(', '.join(columns) for columns in route.indexes)}"
    if route.raw:
        yield "raw: payloads are also kept as they came"
    if route.properties:
        yield "properties: each record has the MQTT 5 properties of its message"


def describe_changes(changes: Iterable[RouteChange]) -> Iterator[str]:
    """Yield lines about what is stored otherwise than its route declares."""
    for change in changes:
        where = f"{escape_text(change.filter)}, {format_count(change.topics, 'stored topic')}"
        for one in change.columns:
            column = escape_text(f"{one.table}.{one.column}")
            yield (
                f"{where}: column {column} holds {one.stored}, and {one.declared} is declared; `amqtt-db remodel` "
                "rewrites the values that fit exactly"
            )
        for level in change.levels:
            yield f"{where}: level {level} is not stored yet; `amqtt-db remodel` takes it from the stored topics"
        if change.time is not None:
            time = escape_text(change.time)
            yield f"{where}: `amqtt-db remodel` gives each record the time in its stored {time}, if it has another one"


def _format_model(model: Any) -> str:
    """Return a model's class, with the options that are not at their defaults."""
    options = (
        f"{field.name}={getattr(model, field.name)!r}"
        for field in attrs.fields(type(model))
        if getattr(model, field.name) != field.default
    )
    return f"{type(model).__name__}({', '.join(options)})"


def render_preview(result: Preview) -> RenderableType:
    """Describe what a sample would become."""
    if result.route is None:
        return Text("no route covers this topic: the message would be counted as ignored")
    parts: list[RenderableType] = [Text(f"route {escape_text(result.route.filter.text)}")]
    if not result.route.stores:
        return Group(*parts, Text("it has `store: false`: the message would be counted as ignored"))
    if result.is_empty:
        return Group(*parts, Text("an empty payload makes no record: the message would be counted as empty"))
    if result.reason is not None:
        return Group(*parts, Text(f"the message would become a dead letter: {escape_text(result.reason)}"))
    if not result.records:
        parts.append(Text("the message makes no record"))
    for record in result.records:
        rows = [(path, kind, value) for path, (kind, value) in record.properties().items()]
        title = f"Record {record.part} of {escape_text(record.topic)}{_describe_time(result.route, record)}"
        parts.append(make_table(("property", "kind", "value"), rows, title))
    parts.append(Text("\nIt would run:\n" if result.ddl else "\nNo table would change."))
    return Group(*parts, *(Text(f"{escape_lines(statement)};") for statement in result.ddl))


def _describe_time(route: Route, record: Record) -> str:
    """Return the time of a sample's record and where it was found."""
    if route.time is None:
        return "; its time is that of its arrival"
    for path in time_paths(route.time, route.each):
        if event_time(record.get(path)) is not None:
            return f", {record.time:%Y-%m-%d %H:%M:%S.%f} UTC by {escape_text(path)}"
    return f"; {escape_text(route.time)} is missing or not a time, so the arrival time is used"


def escape_lines(text: str) -> str:
    """Return what :func:`escape_text` makes of each line."""
    return "\n".join(escape_text(line.expandtabs(4)).rstrip() for line in text.strip().splitlines())


def render_topics(found: Iterable[StoredTopic]) -> RenderableType:
    """Return two lines for each topic."""
    return Text("\n".join(map(_describe_topic, found)))


def _describe_topic(one: StoredTopic) -> str:
    times = " to ".join(f"{time:%Y-%m-%d %H:%M:%S}" for time in (one.first, one.last) if time is not None)
    tables = ", ".join(one.tables) or "no table yet, because no message has become a record"
    where = f"route {one.route}, {', '.join(one.models)}: {tables}"
    read_from = f"; read from {', '.join(one.read_from)}" if one.read_from else ""
    extent = f"{format_count(one.rows, 'row')}{times and f', {times} UTC'}"
    return f"{escape_text(one.topic)}  {extent}\n    {escape_text(where + read_from)}"


def format_record(found: Record) -> str:
    """Return a record as one line: its time (UTC), its topic, and its data as JSON."""
    return escape_text(f"{found.time:%Y-%m-%d %H:%M:%S.%f}  {found.topic}  {tagged.dumps(found.data())}")


def render_states(states: Iterable[DeviceState]) -> RenderableType:
    """Return a line for each device, and one for each of its properties with the time (UTC) that it is from."""
    return Text("\n".join(line for state in states for line in _describe_state(state)))


def _describe_state(state: DeviceState) -> Iterator[str]:
    yield escape_text(state.device)
    for path, value in state.values.items():
        yield escape_text(f"    {state.times[path]:%Y-%m-%d %H:%M:%S}  {path} = {tagged.dumps(value)}")


def states_as_json(states: Iterable[DeviceState]) -> str:
    """Return the newest values of devices as a JSON list; what JSON has no type for is tagged."""
    return tagged.dumps(
        [
            {
                "device": state.device,
                "topic": state.topic,
                "time": state.time.isoformat(timespec="microseconds"),
                "levels": dict(state.levels),
                "values": state.values,
                "times": {path: time.isoformat(timespec="microseconds") for path, time in state.times.items()},
            }
            for state in states
        ]
    )


def render_dead_letters(letters: Sequence[DeadLetter]) -> RenderableType:
    """Return two lines for each message that could not be stored."""
    if not letters:
        return Text("There are no dead letters.")
    lines = (
        f"{letter.id}  {_format_time(letter)}  {escape_text(letter.topic)}"
        f"  (route {letter.filter or 'none'}, {format_count(letter.size, 'byte')})"
        f"\n    {letter.step}: {escape_text(letter.reason)}"
        for letter in letters
    )
    return Text("\n".join(lines))


def exact_id(number: int) -> object:
    """Return a message's id for JSON, tagged as in JSON Lines if many programs would round it."""
    return number if number <= EXACT else {"$int": str(number)}


def to_json(letter: DeadLetter) -> dict[str, Any]:
    """Return a dead letter for JSON; bytes are text if they are UTF-8, else base64."""
    fields = attrs.asdict(letter, filter=lambda field, _: field.name not in {"topic", "client", "payload"})
    client = {"client": None} if letter.client is None else readable_bytes("client", letter.client)
    fields["id"] = exact_id(letter.id)
    return {**fields, **readable_bytes("topic", letter.topic), **client}


def render_journal(found: JournalInfo) -> RenderableType:
    """Describe what a journal holds, one line per generation."""
    lines = [
        f"generation {stretch.token}: {format_count(stretch.messages, 'message')},"
        f" positions {stretch.first} to {stretch.end - 1}, {format_count(stretch.bytes, 'byte')}"
        if stretch.entries
        else f"generation {stretch.token}: empty, everything is stored"
        for stretch in found.generations
    ]
    progress = found.progress
    stored = (
        "nothing"
        if progress is None
        else f"everything before position {progress.position} of generation {progress.token}"
    )
    return Text(
        "\n".join(
            (
                f"journal {escape_text(str(found.path))}: {format_count(found.messages, 'message')},"
                f" {format_count(found.bytes, 'byte')}",
                *lines,
                f"stored, according to its writer: {stored}",
                f"refused: {found.refused}",
            )
        )
    )


def render_dead_letter(letter: DeadLetter) -> RenderableType:
    """Describe a dead letter with its payload: as text if it is UTF-8, else in hexadecimal."""
    table = Table(show_header=False, box=None)
    fields = attrs.asdict(letter, filter=lambda field, _: field.name not in {"size", "payload"})
    fields |= {"time": _format_time(letter), "client": "unknown" if letter.client is None else letter.client}
    for name, value in fields.items():
        table.add_row(name, _render_cell(value))
    return Group(
        table, Text(f"payload ({format_count(letter.size, 'byte')}):"), Text(_format_payload(letter.payload or b""))
    )


def _format_payload(payload: bytes) -> str:
    try:
        return escape_lines(payload.decode())
    except UnicodeDecodeError:
        return payload.hex(" ")


def _format_time(letter: DeadLetter) -> str:
    return letter.time.strftime("%Y-%m-%d %H:%M:%S.%f")


@attrs.frozen
class Glimpse:
    """What the demo shows of a table: the number of rows, the columns, and the last rows of the interesting ones."""

    name: str
    count: int
    columns: tuple[str, ...]
    shown: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def read_glimpses(path: Path, last: int = 3) -> Iterator[Glimpse]:
    """Yield the tables of an SQLite file, apart from the project's own, with their ``last`` rows."""
    if not path.exists():
        return
    with closing(sqlite3.connect(path)) as database:
        query = (
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY 1"
        )
        for (name,) in database.execute(query).fetchall():
            if name not in SYSTEM_TABLES:
                yield _read_glimpse(database, name, last)


def _read_glimpse(database: sqlite3.Connection, name: str, last: int) -> Glimpse:
    table = _quote_always(name)
    columns = tuple(row[1] for row in database.execute(f"PRAGMA table_info({table})"))
    hidden = {column.name for column in ENVELOPE if column.name != "time"} | {"extra"}
    shown = tuple(column for column in columns if column not in hidden)
    select = f"SELECT {', '.join(map(_quote_always, shown))} FROM {table} ORDER BY id DESC, part DESC LIMIT ?"  # noqa: S608
    rows = tuple(reversed(database.execute(select, (last,)).fetchall()))
    (count,) = database.execute(f"SELECT COUNT(*) FROM {table}").fetchone()  # noqa: S608 - the name is quoted
    return Glimpse(name, count, columns, shown, rows)


def _quote_always(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def render_glimpse(table: Glimpse) -> RenderableType:
    """Return a table's last rows under its name, and the names of the hidden columns."""
    title = f"{escape_text(table.name)} · {format_count(table.count, 'row')}"
    hidden = ", ".join(column for column in table.columns if column not in table.shown)
    return Group(
        make_table(table.shown, table.rows, title), Text(f" every row also has: {escape_text(hidden)}", style="dim")
    )


def make_query(path: Path, table: Glimpse) -> str:
    """Return a command that queries the table's last rows, ready to paste into a shell."""
    names = ", ".join(map(_quote_if_needed, table.shown))
    query = f"SELECT {names} FROM {_quote_if_needed(table.name)} ORDER BY time DESC LIMIT 5"  # noqa: S608 - names are quoted
    return shlex.join(["sqlite3", "-box", str(path), query])


def _quote_if_needed(name: str) -> str:
    """Return a name as SQL, quoted if necessary."""
    return name if re.fullmatch("[a-z_][a-z0-9_]*", name) else _quote_always(name)


@attrs.frozen
class FittingTable:
    """A table if the terminal is wide enough for it, else the rows one below the other, a line for each value."""

    header: tuple[str, ...]
    rows: tuple[tuple[Text, ...], ...]
    title: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = self._make()
        if len(self.header) < _FEW_COLUMNS or table.__rich_measure__(console, options).maximum <= options.max_width:
            yield table
        else:
            yield from self._make_list()

    def _make(self) -> Table:
        table = Table(title=Text(self.title, style="bold"), title_justify="left")
        for name in self.header:
            table.add_column(Text(escape_text(name)), overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        return table

    def _make_list(self) -> Iterator[Text]:
        if self.title:
            yield Text(self.title, style="bold")
        for row in self.rows:
            for index, (name, cell) in enumerate(zip(self.header, row, strict=True)):
                if cell.plain:
                    yield Text(f"{'  ' if index else ''}{escape_text(name)}: ").append_text(cell)


def make_table(header: Iterable[str], rows: Iterable[Iterable[object]], title: str) -> FittingTable:
    """Return a table whose cells are escaped, and cut if they are long."""
    return FittingTable(tuple(header), tuple(tuple(map(_render_cell, row)) for row in rows), title)


def _render_cell(value: object) -> Text:
    text = escape_text(value if isinstance(value, str | bytes) else "" if value is None else str(value))
    return Text(text if len(text) <= _WIDEST else f"{text[:_WIDEST]}…")
