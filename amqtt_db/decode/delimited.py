"""CSV and TSV: each row is a record, a column that is empty is absent, and what is written like a number is one."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import StringIO
from typing import Annotated, Any, Final

from amqtt_db.decode.checks import Decoder, as_records, as_text, decode_utf8, names_problems, number_reader
from amqtt_db.errors import DecodeError

_IN_HEADER: Final[list[str]] = []

Names = Annotated[list[str], "The names of the columns, if the payload has no header."]
Comma = Annotated[bool, "Numbers have a decimal comma."]
Numbers = Annotated[bool, "What is written like a number is one; with false everything is text.  Default: true."]
Encoding = Annotated[str, "The encoding of the text.  Default: utf-8."]


def csv_format(
    *,
    names: Names = _IN_HEADER,
    delimiter: Annotated[str, "The character between the columns.  Default: a comma, with `comma` a semicolon."] = "",
    comma: Comma = False,
    numbers: Numbers = True,
    encoding: Encoding = "utf-8",
) -> Decoder:
    """Return a decoder of CSV: each row is a record.

    Raises ValueError, with every mistake as an argument.
    """
    read = number_reader(comma=comma) if numbers else as_text
    problems = _delimiter_problems(delimiter, comma)
    return _make_delimited("CSV", names, delimiter or (";" if comma else ","), encoding, read, problems)


def tsv_format(
    *, names: Names = _IN_HEADER, comma: Comma = False, numbers: Numbers = True, encoding: Encoding = "utf-8"
) -> Decoder:
    """Return a decoder of CSV with tabs between the columns."""
    read = number_reader(comma=comma) if numbers else as_text
    return _make_delimited("TSV", names, "\t", encoding, read, ())


def _delimiter_problems(delimiter: str, comma: bool) -> Iterator[str]:
    if len(delimiter) > 1 or (delimiter and (delimiter in '\r\n" ' or delimiter.isalnum())):
        yield f"delimiter: expected one character such as ';' or '|', got {delimiter!r}"
    if comma and delimiter == ",":
        yield "delimiter: a comma cannot separate the columns while numbers have a decimal comma"


def _make_delimited(
    what: str,
    names: Sequence[str],
    delimiter: str,
    encoding: str,
    read: Callable[[str], Any],
    delimiter_problems: Iterable[str],
) -> Decoder:
    problems = [*names_problems(names), *delimiter_problems]
    try:
        "".encode(encoding)
    except (LookupError, ValueError):
        problems.append(f"encoding: Python does not know {encoding!r}")
    if problems:
        raise ValueError(*problems)

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
