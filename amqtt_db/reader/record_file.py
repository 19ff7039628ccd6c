"""Records from a file that `export` wrote: JSON Lines or Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from json import JSONDecodeError
from pathlib import Path
from typing import Any, Final

from amqtt_db import tagged
from amqtt_db.decode.libraries import import_library
from amqtt_db.errors import AmqttDbError
from amqtt_db.record import (
    ENVELOPE_NAMES,
    KIND_OF_TYPE,
    PROPERTIES_PATH,
    Kind,
    Pair,
    Record,
    Shape,
    flatten,
    level_path,
    restored,
    to_micros,
)

_PARQUET: Final = b"PAR1"
_REQUIRED: Final = frozenset({*ENVELOPE_NAMES, "levels", "data"})
_CSV: Final = ",".join(ENVELOPE_NAMES).encode()


class RecordFileError(AmqttDbError):
    """A file is not what `export` writes; the message says where."""


def read_file_records(path: Path) -> Iterator[Record]:
    """Yield the records of a file.  Raises RecordFileError, and OSError if it cannot be read."""
    with path.open("rb") as file:
        is_parquet = file.read(len(_PARQUET)) == _PARQUET
    if not is_parquet:
        yield from _read_lines(path)
        return
    try:
        parquet = import_library("arrow", "pyarrow", "amqtt_db.reader.parquet")
    except ValueError as error:
        raise RecordFileError(f"{path}: {error}") from None
    yield from parquet.read_parquet(path)


def _read_lines(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1 and line.startswith(_CSV):
                raise RecordFileError(
                    f"{path}: this is CSV, which does not say the types of its values; export with "
                    "`--format jsonl` or `--format parquet` to import it"
                )
            if line.strip():
                try:
                    yield record_of_line(line)
                except (AttributeError, LookupError, TypeError, ValueError, OverflowError) as error:
                    raise RecordFileError(
                        f"{path}, line {number}: it is not a record as `amqtt-db export` writes it: {_explain(error)}"
                    ) from error


def _explain(error: Exception) -> str:
    """Return what is wrong with a line, without any value in it."""
    if isinstance(error, JSONDecodeError):
        return "it is not JSON, or is cut off"
    if isinstance(error, KeyError) and error.args[0] in _REQUIRED:
        return f"the key {error.args[0]!r} is missing"
    return type(error).__name__


def record_of_line(line: str | bytes) -> Record:
    """Return the record of a line of JSON: the inverse of :func:`amqtt_db.reader.export.format_line`.

    Raises ValueError, or one of Python's own errors, for any other line.
    """
    told: Mapping[str, Any] = tagged.loads(line)
    kinds: Mapping[str, Kind] = told.get("kinds", {})
    pairs = [_read_member(path, value, kinds) for path, value in flatten(told["data"], kinds).items()]
    pairs += [_read_member(level_path(name), value, kinds) for name, value in told["levels"].items()]
    pairs += [((PROPERTIES_PATH, "json"), told["properties"])] if "properties" in told else []
    moment = datetime.fromisoformat(told["time"])
    envelope = {**{name: told[name] for name in ENVELOPE_NAMES}, "time": to_micros(moment)}
    return checked_record(envelope, dict(pairs))


def checked_record(envelope: Mapping[str, Any], values: Mapping[Pair, Any]) -> Record:
    """Return a record.  Raises ValueError if a part of its envelope cannot be."""
    id_, part, time_us, topic, session, qos, retain = (envelope[name] for name in ENVELOPE_NAMES)
    are_whole = all(type(number) is int for number in (id_, part, qos, session or 0))
    if not (are_whole and type(retain) is bool and isinstance(topic, str) and topic):
        raise ValueError("the envelope has a value of another type")
    if not (0 < id_ < 2**63 and 0 <= part < 2**63 and 0 <= (session or 0) < 2**63 and 0 <= qos <= 2):
        raise ValueError("the envelope has a number out of range")
    return Record(id_, part, time_us, topic, session, qos, retain, (), Shape(())).with_values(values)


def _read_member(path: str, value: Any, kinds: Mapping[str, Kind]) -> tuple[Pair, Any]:
    if path in kinds:
        return (path, _checked_kind(path, kinds[path], value)), value
    if type(value) is int:
        return (path, "int64" if -(2**63) <= value < 2**63 else "bigint"), value
    return restored(path, value)


def _checked_kind(path: str, kind: Kind, value: Any) -> Kind:
    """Return the kind that the file says a value has.  Raises ValueError if a value of its type cannot have it."""
    natural = KIND_OF_TYPE.get(type(value))
    allowed = {"int64", "bigint", "number"} if type(value) is int else {natural}
    if kind not in allowed | {"json"} or (kind == "int64" and not -(2**63) <= value < 2**63):
        raise ValueError(f"the value at {path!r} is not of the kind that `kinds` names")
    return kind
