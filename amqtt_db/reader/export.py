"""Records as files for other programs: JSON Lines and Parquet, which keep every type, and CSV."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import date, datetime, time
from itertools import groupby
from typing import Any, Final, Literal, TypeVar

import orjson

from amqtt_db import tagged
from amqtt_db.config import Settings
from amqtt_db.database.snapshot import open_snapshot
from amqtt_db.decode.libraries import import_library
from amqtt_db.errors import UnreadableRecords
from amqtt_db.models.base import ENVELOPE
from amqtt_db.reader import Selection, read_records, url_of
from amqtt_db.record import EXACT, KINDS, PROPERTIES_PATH, Kind, Record

Format = Literal["jsonl", "csv", "parquet"]

Line = TypeVar("Line")

_QUOTED: Final = re.compile('[",\r\n]|^ | $')
_LINES: Final = 500  # written at a time
_ENVELOPE: Final = tuple(column.name for column in ENVELOPE)
_PROPERTIES_HEADER: Final = "properties"


def export(
    database: str | Settings,
    write: Callable[[bytes], object],
    form: Format = "jsonl",
    topic: str = "#",
    *,
    since: datetime | str | None = None,
    until: datetime | str | None = None,
    limit: int | None = None,
    newest: bool = False,
) -> int:
    """Pass the records of :func:`amqtt_db.read` to ``write``, some at a time; return their number.

    Raises what :func:`amqtt_db.read` raises, and ValueError for Parquet without pyarrow.
    """
    parquet = import_library("arrow", "pyarrow", "amqtt_db.reader.parquet") if form == "parquet" else None
    wanted = Selection.of(topic, since, until, limit, newest=newest)
    written = 0
    with open_snapshot(url_of(database)) as snapshot:

        def read() -> Iterator[Record]:
            return read_records(snapshot, wanted)

        if parquet is not None:
            return int(parquet.write_parquet(read, write))
        lines = json_lines(read()) if form == "jsonl" else csv_lines(read)
        for chunk in batch_until_error(lines, _LINES):
            written += len(chunk)
            write("".join(chunk).encode("utf-8", "backslashreplace"))
    return written - (form == "csv")


def batch_until_error(items: Iterable[Line], size: int) -> Iterator[list[Line]]:
    """Yield many items at a time; before an error, yield those that precede it."""
    chunk: list[Line] = []
    try:
        for item in items:
            chunk.append(item)
            if len(chunk) == size:
                yield chunk
                chunk = []
    except UnreadableRecords:
        yield chunk
        raise
    yield chunk


def json_lines(found: Iterable[Record]) -> Iterator[str]:
    """Yield a line for each record, see :func:`format_line`."""
    for record in found:
        yield f"{format_line(record)}\n"


def format_line(record: Record) -> str:
    """Return a record as JSON: an object with the envelope, ``levels`` and ``data``, nested as it came.

    MQTT properties that were kept are in ``properties``.

    What JSON has no type for is tagged, as :mod:`amqtt_db.tagged` describes; ``kinds`` has the kinds, by path, that
    values do not tell by themselves.  The line is printable: characters that
    could command a terminal are escapes of JSON.
    """
    is_exact = max(record.id, record.session or 0) <= EXACT  # beyond, many programs would round it
    envelope = orjson.dumps(_make_envelope(record)).decode() if is_exact else tagged.dumps(_make_envelope(record))
    kinds = find_untold_kinds(record)
    told = f',"kinds":{tagged.dumps(kinds)}' if kinds else ""
    kept = f',"properties":{tagged.dumps(record.mqtt_properties())}' if record.mqtt_properties() else ""
    line = (
        f'{envelope[:-1]},"levels":{tagged.dumps(record.levels())}{kept},"data":{tagged.dumps(record.data())}{told}}}'
    )
    return line if line.isprintable() else _make_printable(line)


def find_untold_kinds(record: Record) -> dict[str, Kind]:
    """Return by path the kinds of values that would be read back from a line of JSON with another kind."""
    if _ALWAYS_TOLD.issuperset(record.shape.kinds):
        return {}
    found = {path: kind for path, (kind, value) in record.properties().items() if not _is_told(kind, value)}
    found.pop(PROPERTIES_PATH, None)  # they are always JSON
    return found


_ALWAYS_TOLD: Final[frozenset[Kind]] = frozenset(KINDS) - {"bigint", "json"}


def _is_told(kind: Kind, value: Any) -> bool:
    if kind == "bigint":
        return not -(2**63) <= value < 2**63
    return kind != "json" or isinstance(value, list) or value == {}


def _make_envelope(record: Record) -> dict[str, Any]:
    return record.envelope() | {"time": format_time(record)}


def format_time(record: Record) -> str:
    """Return a record's time in ISO 8601, with microseconds: ``2026-01-31T12:00:00.000000+00:00``."""
    return record.time.isoformat(timespec="microseconds")


def _make_printable(line: str) -> str:
    return "".join(letter if letter.isprintable() else _escape_as_json(letter) for letter in line)


def _escape_as_json(letter: str) -> str:
    units = letter.encode("utf-16-be")
    return "".join(f"\\u{units[index : index + 2].hex()}" for index in range(0, len(units), 2))


def csv_lines(read: Callable[[], Iterable[Record]]) -> Iterator[str]:
    """Yield a header, and a line for each record from ``read``: the envelope, and a column for each property.

    ``read`` is called twice, first to find the columns, and must return the same records both times.  A property is
    named by its path, or, if that is the name of an envelope column, by a name such as ``data.time``.  An absent
    property is an empty field; empty text is ``""``.
    """
    paths = sorted(_find_paths(read()))
    yield _csv_line([*_ENVELOPE, *map(header_of, paths)])
    for record in read():
        texts = {path: _CSV_TEXT[kind](value) for path, (kind, value) in record.properties().items()}
        envelope = [_csv_text(value) for value in _make_envelope(record).values()]
        yield _csv_line([*envelope, *map(texts.get, paths)])


def _find_paths(found: Iterable[Record]) -> set[str]:
    paths: set[str] = set()
    with suppress(UnreadableRecords):  # raised when the records are written
        for shape, _ in groupby(record.shape for record in found):
            paths.update(shape.paths)
    return paths


def header_of(path: str) -> str:
    """Return the name of a property's column: its path, with ``data.`` before the name of a column beside the data.

    These are the envelope's columns, and ``properties`` for the MQTT properties.
    """
    if path == PROPERTIES_PATH:
        return _PROPERTIES_HEADER
    return f"data.{path}" if re.sub(r"^(data\.)+", "", path) in {*_ENVELOPE, _PROPERTIES_HEADER} else path


def _csv_line(fields: Iterable[str | None]) -> str:
    return ",".join(map(_csv_field, fields)) + "\r\n"


def _csv_field(text: str | None) -> str:
    if text is None:
        return ""
    return '"' + text.replace('"', '""') + '"' if not text or _QUOTED.search(text) else text


def _csv_text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None else str(value)


_CSV_TEXT: Final[Mapping[Kind, Callable[[Any], str]]] = {
    "bool": lambda value: "true" if value else "false",
    "number": lambda value: repr(float(value)),
    "int64": str,
    "bigint": str,
    "text": str,
    "bytes": lambda value: base64.b64encode(value).decode(),
    "datetime": datetime.isoformat,
    "date": date.isoformat,
    "time": time.isoformat,
    "decimal": str,
    "uuid": str,
    "json": tagged.dumps,
}
