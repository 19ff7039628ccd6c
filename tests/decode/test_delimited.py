"""CSV and TSV → records."""

from __future__ import annotations

import csv
from io import StringIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.decode.vectors import check_any, decoded, mistakes, plain_decoder, refusal

NAMES = {"names": ["temp", "humidity"]}


@pytest.mark.parametrize(
    ("spec", "payload", "data"),
    [
        ("csv", b"temp,humidity\n21.5,46\n", {"temp": 21.5, "humidity": 46}),
        ("csv", b"temp,humidity\r\n1,2\r\n\r\n3,4", [{"temp": 1, "humidity": 2}, {"temp": 3, "humidity": 4}]),
        ("csv", b'\xef\xbb\xbf"temp, inside", x \n1,2', {"temp, inside": 1, "x": 2}),
        ("csv", b"a,b,c\n,x,\n", {"b": "x"}),
        ("csv", b'a\n"two\nlines"\n"say ""hi"""', [{"a": "two\nlines"}, {"a": 'say "hi"'}]),
        ({"csv": NAMES}, b"21.5,46", {"temp": 21.5, "humidity": 46}),
        ({"csv": {**NAMES, "delimiter": "|"}}, b"-1.5e3| 46 ", {"temp": -1500.0, "humidity": 46}),
        ({"csv": {**NAMES, "comma": True}}, b"21,5;46", {"temp": 21.5, "humidity": 46}),
        ({"csv": {**NAMES, "comma": True, "delimiter": "|"}}, b"21,5|1.5", {"temp": 21.5, "humidity": "1.5"}),
        ({"csv": {**NAMES, "encoding": "latin-1"}}, b"\xe4,1\0\0", {"temp": "ä", "humidity": 1}),
        ({"csv": {**NAMES, "numbers": False}}, b"21.5,", {"temp": "21.5"}),
        ({"tsv": {**NAMES, "numbers": False}}, b"21.5\t46", {"temp": "21.5", "humidity": "46"}),
        ("tsv", b"temp\thumidity\n21.5\t46", {"temp": 21.5, "humidity": 46}),
        ({"tsv": {**NAMES, "comma": True}}, b"21,5\t46", {"temp": 21.5, "humidity": 46}),
    ],
)
def test_each_row_is_a_record(spec: Any, payload: bytes, data: Any) -> None:
    """With a header or with names from the configuration; an empty cell is absent."""
    found = decoded(spec, payload)
    assert found == data
    assert repr(found) == repr(data)


@pytest.mark.parametrize(
    "cell", ["007", "1.", "1.5.2", "1.५", ".5", "1 000", "1_000", "0x10", "NaN", "ON", "true", "1e999", "1" * 65, "१"]
)
def test_what_is_not_written_like_a_number_is_text(cell: str) -> None:
    """Identifiers keep their zeros, and nothing is guessed."""
    assert decoded("csv", f"a,b\n{cell},x".encode())["a"] == cell


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"", "empty payload"),
        (b"\n", "there is no header"),
        (b"21.5,46\n", "there is only a header; if it has values, name the columns in `names`"),
        (b"a,,c\n1,2,3", "column 2 of the header has no name"),
        (b"a,b,a\n1,2,3", "two columns of the header have the same name"),
        (b"a,b\n1,2\n1,2,kept-dark", "not CSV: line 3 has 3 columns, expected 2; `delimiter` is ','"),
        (b"a,b\n1", "not CSV: line 2 has 1 column, expected 2; `delimiter` is ','"),
        (b'a,b\n"x"kept-dark,2', "not CSV: line 2: "),
        (b'a,b\n"kept-dark,2', "not CSV: line 2: "),
        (b"a\n" + b"x" * 200_000, "not CSV: line "),
        (b"a,b\n\xff,2", "not CSV: not utf-8 text at byte 4"),
    ],
)
def test_what_is_not_csv_has_a_reason(payload: bytes, says: str) -> None:
    """The reason names the line and repeats nothing of it."""
    told = refusal("csv", payload)
    assert says in told
    assert "kept-dark" not in told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"delimiter": "::"}, ["decode.csv: delimiter: expected one character such as ';' or '|', got '::'"]),
        ({"delimiter": ",", "comma": True}, ["a comma cannot separate the columns while numbers have a decimal comma"]),
        ({"names": ["a", "a", True]}, ["True is not a name", "'a' appears more than once"]),
        ({"encoding": "utf-9"}, ["Python does not know 'utf-9'"]),
        ({"header": True}, ["decode.csv.header: is not an option of this decoder"]),
    ],
)
def test_mistakes_in_the_options_are_told(options: dict[str, Any], told: list[str]) -> None:
    """All at once, each with its path."""
    found = mistakes({"csv": options})
    assert len(found) == len(told)
    assert all(part in problem for part, problem in zip(told, found, strict=True))


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0")).filter(
    lambda text: not text.startswith("\ufeff")
)


@given(st.lists(st.lists(cells, min_size=2, max_size=2), min_size=1, max_size=5))
def test_what_the_standard_library_writes_is_read(rows: list[list[str]]) -> None:
    """Each cell comes back as it is, as a number if it is written like one, or not at all if it is empty."""
    out = StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows(rows)
    found = decoded({"csv": {"names": ["a", "b"]}}, out.getvalue().encode())
    for record, row in zip(found if isinstance(found, list) else [found], rows, strict=True):
        for name, cell in zip("ab", row, strict=True):
            value = record.get(name, "")
            assert value == cell if isinstance(value, str) else value == float(cell)


@given(st.text(st.sampled_from('a,;"\n\r\t1.é'), min_size=1))
def test_any_text_is_decoded_or_refused(text: str) -> None:
    """Whatever is sent, the result is plain data within the bounds, or an error with a reason."""
    for spec in ("csv", "tsv", {"csv": {"names": ["a"], "comma": True}}):
        check_any(plain_decoder(spec), text.encode(), dict)
