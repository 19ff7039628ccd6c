"""How things look in a terminal: routes, previews, status, dead letters, tables.

Text from messages is untrusted; whatever could command a terminal is shown as an escape.
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
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from amqtt_db import tagged
from amqtt_db.config import Settings
from amqtt_db.database.naming import SYSTEM_TABLES
from amqtt_db.errors import format_count
from amqtt_db.journal.inspection import JournalInfo, readable_bytes
from amqtt_db.models.base import ENVELOPE
from amqtt_db.record import Record
from amqtt_db.routing.route import format_duration

if TYPE_CHECKING:  # these need SQLAlchemy, which the broker's process does without
    from amqtt_db.database.dead_letters import DeadLetter
    from amqtt_db.reader.inventory import StoredTopic
    from amqtt_db.reader.status import Status
    from amqtt_db.writer.preview import Preview

_WIDEST = 200  # characters of a value in a table


def visible(text: str | bytes) -> str:
    """Text with everything that is not printable as an escape: no colours, no cursor moves, no reversed writing."""
    decoded = text.decode("utf-8", "backslashreplace") if isinstance(text, bytes) else text
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in decoded)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def routes(settings: Settings) -> RenderableType:
    """The routes in the order in which they are tried."""
    rows = (
        (
            route.filter.text,
            _model(route.model),
            "—" if route.entity is None else format_count(len(route.entity.declared), "property", "properties"),
            route.time or "arrival",
            route.unknown,
            route.mismatch,
            "for ever" if route.keep is None else format_duration(route.keep),
        )
        for route in settings.routes
    )
    header = ("topic", "model", "entity", "time", "unknown", "mismatch", "kept")
    return _table(header, rows, "Routes, the first that fits")


def _model(model: Any) -> str:
    """A model's class, with the options that are not at their defaults."""
    options = (
        f"{field.name}={getattr(model, field.name)!r}"
        for field in attrs.fields(type(model))
        if getattr(model, field.name) != field.default
    )
    return f"{type(model).__name__}({', '.join(options)})"


def preview(result: Preview) -> RenderableType:
    """What a sample would become."""
    if result.route is None:
        return Text("no route covers this topic: the message would be counted as ignored")
    parts: list[RenderableType] = [Text(f"route {visible(result.route.filter.text)}")]
    if result.reason is not None:
        return Group(*parts, Text(f"the message would become a dead letter: {visible(result.reason)}"))
    for record in result.records:
        rows = [(path, kind, value) for path, (kind, value) in record.properties().items()]
        parts.append(_table(("property", "kind", "value"), rows, f"Record {record.part} of {visible(record.topic)}"))
    parts.append(Text("\nIt would cause:\n" if result.ddl else "\nNo table would change."))
    return Group(*parts, *(Text(f"{visible_lines(statement)};") for statement in result.ddl))


def visible_lines(text: str) -> str:
    """Like :func:`visible`, but keeps line ends."""
    return "\n".join(visible(line.expandtabs(4)).rstrip() for line in text.strip().splitlines())


def status(result: Status) -> RenderableType:
    """Where every message is."""
    names = ("filter", "stored", "dead", "ignored", "records", "dropped", "nulled")
    rows = [
        (counts.filter or "(no route)", *(getattr(counts, name) for name in names[1:])) for counts in result.counters
    ]
    journals = [(journal.number or "new", journal.position, journal.pending) for journal in result.journals]
    return Group(
        _table(("topic filter", *names[1:]), rows, "Messages") if rows else "No message is stored yet.",
        _table(("opening", "stored up to", "pending"), journals, "Journal") if journals else "The journal is empty.",
        Text(f"refused: {result.refused}   pending: {result.pending}"),
        *(Text(f"warning: {visible(warning)}", style="yellow") for warning in result.warnings),
    )


def topics(found: Iterable[StoredTopic]) -> RenderableType:
    """What is stored of each topic, two lines each, which stay lines however narrow the terminal is."""
    return Text("\n".join(map(_stored, found)))


def _stored(one: StoredTopic) -> str:
    times = " to ".join(f"{time:%Y-%m-%d %H:%M:%S}" for time in (one.first, one.last) if time is not None)
    where = f"route {one.route}, {', '.join(one.models)}: {', '.join(one.tables)}"
    extent = f"{format_count(one.rows, 'row')}{times and f', {times} UTC'}"
    return f"{visible(one.topic)}  {extent}\n    {visible(where)}"


def record(found: Record) -> str:
    """A record as one line: its time (UTC), its topic, and its data as JSON."""
    return visible(f"{found.time:%Y-%m-%d %H:%M:%S.%f}  {found.topic}  {tagged.dumps(found.data())}")


def dead_letters(letters: Sequence[DeadLetter]) -> RenderableType:
    """Messages that could not be stored, two lines each, which stay lines however narrow the terminal is."""
    if not letters:
        return Text("There are no dead letters.")
    lines = (
        f"{letter.id}  {_moment(letter)}  {visible(letter.topic)}"
        f"  (route {letter.filter or 'none'}, {format_count(letter.size, 'byte')})"
        f"\n    {letter.step}: {visible(letter.reason)}"
        for letter in letters
    )
    return Text("\n".join(lines))


def plain(letter: DeadLetter) -> dict[str, Any]:
    """A message that could not be stored, for JSON; bytes as text where they are some, else in base 64."""
    fields = attrs.asdict(letter, filter=lambda field, _: field.name not in {"topic", "client", "payload"})
    client = {"client": None} if letter.client is None else readable_bytes("client", letter.client)
    return {**fields, **readable_bytes("topic", letter.topic), **client}


def journal(found: JournalInfo) -> RenderableType:
    """What a journal holds, an opening a line."""
    lines = [
        f"opening {stretch.token}: {format_count(stretch.messages, 'message')},"
        f" positions {stretch.first} to {stretch.end - 1}, {format_count(stretch.bytes, 'byte')}"
        if stretch.entries
        else f"opening {stretch.token}: everything is stored and deleted"
        for stretch in found.generations
    ]
    progress = found.progress
    told = "nothing" if progress is None else f"all before position {progress.position} of opening {progress.token}"
    return Text(
        "\n".join(
            (
                f"journal {visible(str(found.path))}: {format_count(found.messages, 'message')},"
                f" {format_count(found.bytes, 'byte')}",
                *lines,
                f"stored, as its writer says: {told}",
                f"refused: {found.refused}",
            )
        )
    )


def dead_letter(letter: DeadLetter) -> RenderableType:
    """One message that could not be stored, with its payload: as text where it is some, else in hexadecimal."""
    table = Table(show_header=False, box=None)
    fields = attrs.asdict(letter, filter=lambda field, _: field.name not in {"size", "payload"})
    fields |= {"time": _moment(letter), "client": "unknown" if letter.client is None else letter.client}
    for name, value in fields.items():
        table.add_row(name, _cell(value))
    return Group(table, Text(f"payload ({format_count(letter.size, 'byte')}):"), Text(_payload(letter.payload or b"")))


def _payload(payload: bytes) -> str:
    try:
        return visible_lines(payload.decode())
    except UnicodeDecodeError:
        return payload.hex(" ")


def _moment(letter: DeadLetter) -> str:
    return letter.time.strftime("%Y-%m-%d %H:%M:%S.%f")


@attrs.frozen
class Glimpse:
    """A table as a newcomer sees it: how many rows, which columns, and the last rows of those that matter."""

    name: str
    count: int
    columns: tuple[str, ...]
    shown: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def glimpses(path: Path, last: int = 3) -> Iterator[Glimpse]:
    """The tables of an SQLite file, apart from the project's own, with their ``last`` rows."""
    with closing(sqlite3.connect(path)) as database:
        query = (
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY 1"
        )
        for (name,) in database.execute(query).fetchall():
            if name not in SYSTEM_TABLES:
                yield _glimpse(database, name, last)


def _glimpse(database: sqlite3.Connection, name: str, last: int) -> Glimpse:
    table = _quoted(name)
    columns = tuple(row[1] for row in database.execute(f"PRAGMA table_info({table})"))
    hidden = {column.name for column in ENVELOPE if column.name != "time"} | {"extra"}
    shown = tuple(column for column in columns if column not in hidden)
    select = f"SELECT {', '.join(map(_quoted, shown))} FROM {table} ORDER BY id DESC, part DESC LIMIT ?"  # noqa: S608
    rows = tuple(reversed(database.execute(select, (last,)).fetchall()))
    (count,) = database.execute(f"SELECT COUNT(*) FROM {table}").fetchone()  # noqa: S608 - the name is quoted
    return Glimpse(name, count, columns, shown, rows)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def glimpse(table: Glimpse) -> RenderableType:
    """A table's last rows under its name, and the columns that there was no room for."""
    title = f"{visible(table.name)} · {format_count(table.count, 'row')}"
    hidden = ", ".join(column for column in table.columns if column not in table.shown)
    return Group(_table(table.shown, table.rows, title), Text(f" every row also has: {visible(hidden)}", style="dim"))


def question(path: Path, table: Glimpse) -> str:
    """A command that asks the table for its last rows, ready to be pasted into a shell."""
    names = ", ".join(map(_plain, table.shown))
    query = f"SELECT {names} FROM {_plain(table.name)} ORDER BY time DESC LIMIT 5"  # noqa: S608 - names are quoted
    return shlex.join(["sqlite3", "-box", str(path), query])


def _plain(name: str) -> str:
    """A name as SQL, without quotes where it needs none."""
    return name if re.fullmatch("[a-z_][a-z0-9_]*", name) else _quoted(name)


def _table(header: Iterable[str], rows: Iterable[Iterable[object]], title: str) -> Table:
    table = Table(title=Text(title, style="bold"), title_justify="left")
    for name in header:
        table.add_column(Text(visible(name)), overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row))
    return table


def _cell(value: object) -> Text:
    text = visible(value if isinstance(value, str | bytes) else "" if value is None else str(value))
    return Text(text if len(text) <= _WIDEST else f"{text[:_WIDEST]}…")


def console() -> Console:
    """Where results go; escape sequences only where there is a terminal."""
    return Console(highlight=False)
