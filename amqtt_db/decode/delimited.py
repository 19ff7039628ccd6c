"""CSV and TSV: each row is a record, a column that is empty is absent, and what is written like a number is one."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from io import StringIO
from typing import Any, Final

from amqtt_db.decode.checks import Decoder, as_records, decode_utf8, names_problems
from amqtt_db.errors import DecodeError

_LONGEST_CELL: Final = 64  # characters; more digits are rather an identifier, as are those that begin with 0
_IN_HEADER: Final[list[str]] = []
_NUMBER_IN_CELL: Final = r"[+-]?(?:0|[1-9]\d*)({point}\d+)?([eE][+-]?\d+)?"


def csv_format(
    *,
    names: list[str] = _IN_HEADER,
    delimiter: str = "",
    comma: bool = False,
    encoding: str = "utf-8",
) -> Decoder:
    """Return a decoder of CSV.

    ``names`` are those of the columns if the payload has no header.  With ``comma``, numbers have a decimal comma, and
    columns are separated by semicolons unless there is another ``delimiter``.

    Raises ValueError, with every mistake as an argument.
    """
    return _make_delimited("CSV", names, delimiter or (";" if comma else ","), comma, encoding)


def tsv_format(*, names: list[str] = _IN_HEADER, comma: bool = False, encoding: str = "utf-8") -> Decoder:
    """Return a decoder of CSV with tabs between the columns, see :func:`csv_format`."""
    return _make_delimited("TSV", names, "\t", comma, encoding)


def _make_delimited(what: str, names: Sequence[str], delimiter: str, comma: bool, encoding: str) -> Decoder:
    problems = names_problems(names)
    if len(delimiter) != 1 or delimiter in '\r\n" ' or delimiter.isalnum():
        problems.append(f"delimiter: expected one character such as ';' or '|', got {delimiter!r}")
    if comma and delimiter == ",":
        problems.append("delimiter: a comma cannot separate the columns while numbers have a decimal comma")
    try:
        "".encode(encoding)
    except (LookupError, ValueError):
        problems.append(f"encoding: Python does not know {encoding!r}")
    if problems:
        raise ValueError(*problems)
    read = _cell_reader(comma)

    def decode_delimited(payload: bytes) -> Any:
        text = decode_utf8(payload, what, encoding).rstrip("\0")
        rows = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
        return as_records(_read_rows(rows, names, read, what))

    return decode_delimited


def _read_rows(rows: Any, names: Sequence[str], read: Any, what: str) -> Iterator[dict[str, Any]]:
    try:
        header = names or _check_header(next(rows, []), what)
        for row in rows:
            if len(row) == len(header):
                yield {name: value for name, cell in zip(header, row, strict=True) if (value := read(cell)) is not None}
            elif row:
                raise DecodeError(f"not {what}: line {rows.line_num} has {len(row)} columns, expected {len(header)}")
    except csv.Error as error:
        raise DecodeError(f"not {what}: line {rows.line_num}: {error}") from None


def _check_header(header: Sequence[str], what: str) -> Sequence[str]:
    stripped = [name.strip() for name in header]
    if not all(stripped):
        raise DecodeError(f"not {what}: column {stripped.index('') + 1} of the header has no name")
    if len(set(stripped)) < len(stripped):
        raise DecodeError(f"not {what}: two columns of the header have the same name")
    if not stripped:
        raise DecodeError(f"not {what}: there is no header")
    return stripped


def _cell_reader(comma: bool) -> Any:
    match = re.compile(_NUMBER_IN_CELL.format(point="," if comma else r"\."), re.ASCII).fullmatch

    def read_cell(cell: str) -> Any:
        found = match(cell.strip(" ")) if len(cell) <= _LONGEST_CELL else None
        if found is None:
            return cell or None
        if found.lastindex is None:
            return int(found[0])
        number = float(found[0].replace(",", "."))
        return cell if number - number else number  # infinite

    return read_cell
