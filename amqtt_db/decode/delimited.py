"""CSV and TSV: each row is a record, an empty column is absent, and what is written like a number is a number."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from io import StringIO
from typing import Annotated, Any, Final

from amqtt_db.decode.checks import Decoder, as_records, as_text, decode_utf8, names_problems, number_reader
from amqtt_db.errors import DecodeError, format_count

_IN_HEADER: Final[list[str]] = []
_LONGEST_CELL: Final = csv.field_size_limit()  # characters

Names = Annotated[list[str], "The names of the columns, if the payload has no header."]
Comma = Annotated[bool, "Numbers have a decimal comma."]
Numbers = Annotated[bool, "What is written like a number is a number; with false everything is text.  Default: true."]
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

    separated = "a tab separates columns" if delimiter == "\t" else f"`delimiter` is {delimiter!r}"

    def decode_delimited(payload: bytes) -> Any:
        text = decode_utf8(payload, what, encoding).rstrip("\0")
        return as_records(_read_rows(_split_rows(text, delimiter, what), names, read, what, separated))

    return decode_delimited


def _split_rows(text: str, delimiter: str, what: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each row that is not empty, and the number of its last line."""
    if '"' not in text and "\r" not in text:  # a tenth of the time
        for number, line in enumerate(text.split("\n"), start=1):
            if len(line) > _LONGEST_CELL and max(map(len, line.split(delimiter))) > _LONGEST_CELL:
                raise DecodeError(f"not {what}: line {number}: a cell has more than {_LONGEST_CELL} characters")
            if line:
                yield number, line.split(delimiter)
        return
    rows = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for row in rows:
            if row:
                yield rows.line_num, row
    except csv.Error as error:
        raise DecodeError(f"not {what}: line {rows.line_num}: {error}") from None


def _read_rows(
    rows: Iterator[tuple[int, list[str]]], names: Sequence[str], read: Callable[[str], Any], what: str, separated: str
) -> Iterator[dict[str, Any]]:
    header = names or _check_header(tuple(next(rows, (0, []))[1]), what)
    number = 0
    for number, row in rows:
        if len(row) != len(header):
            count = format_count(len(row), "column")
            raise DecodeError(f"not {what}: line {number} has {count}, expected {len(header)}; {separated}")
        yield {name: value for name, cell in zip(header, row, strict=True) if (value := read(cell)) is not None}
    if not names and not number:
        raise DecodeError(f"not {what}: there is only a header; if it has values, name the columns in `names`")


@lru_cache(256)
def _check_header(header: tuple[str, ...], what: str) -> Sequence[str]:
    stripped = [name.strip() for name in header]
    if not all(stripped):
        raise DecodeError(f"not {what}: column {stripped.index('') + 1} of the header has no name")
    if len(set(stripped)) < len(stripped):
        raise DecodeError(f"not {what}: two columns of the header have the same name")
    if not stripped:
        raise DecodeError(f"not {what}: there is no header")
    return stripped
