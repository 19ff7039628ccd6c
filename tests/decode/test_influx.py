"""Line protocol → records."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from influxdb_client import Point

from amqtt_db.decode.influx import PRECISIONS
from amqtt_db.decode.influx_json import read_plain_line
from tests.decode.vectors import check_any, decoded, mistakes, plain_decoder, refusal

SECOND = 1_700_000_000
MOMENT = datetime(2023, 11, 14, 22, 13, 20, tzinfo=timezone.utc)


def read(line: str) -> Any:
    return decoded("influx", line.encode())


@pytest.mark.parametrize(
    ("line", "record"),
    [
        ("m a=1", {"measurement": "m", "a": 1.0}),
        ("m a=-1.5e-3,b=.5,c=5.,d=1E+2", {"measurement": "m", "a": -0.0015, "b": 0.5, "c": 5.0, "d": 100.0}),
        ("m a=-9223372036854775808i", {"measurement": "m", "a": -(2**63)}),
        ("m a=18446744073709551615u", {"measurement": "m", "a": 2**64 - 1}),
        ("m a=t,b=T,c=true,d=True,e=TRUE", {"measurement": "m", **dict.fromkeys("abcde", True)}),
        ("m a=f,b=F,c=false,d=False,e=FALSE", {"measurement": "m", **dict.fromkeys("abcde", False)}),
        ('m a="",b="t",c="1"', {"measurement": "m", "a": "", "b": "t", "c": "1"}),
        (r'm a="say \"hi\"",b="c:\\x\y"', {"measurement": "m", "a": 'say "hi"', "b": r"c:\x\y"}),
        ('m a="two\nlines, and = more"', {"measurement": "m", "a": "two\nlines, and = more"}),
        (r"my\ m\,x,t\ a\=g=v\,1 f\ =1", {"measurement": "my m,x", "t a=g": "v,1", "f ": 1.0}),
        (r"m=\=,t=\n a=1", {"measurement": r"m=\=", "t": r"\n", "a": 1.0}),
        ('m,t="q" a=1', {"measurement": "m", "t": '"q"', "a": 1.0}),
        ("größe,ort=köln maß=1.5", {"measurement": "größe", "ort": "köln", "maß": 1.5}),
        ("  m   a=1   1700000000000000000  \r\n", {"measurement": "m", "a": 1.0, "time": MOMENT}),
        ("m a=1 -1000", {"measurement": "m", "a": 1.0, "time": MOMENT - timedelta(seconds=SECOND, microseconds=1)}),
    ],
)
def test_a_line_is_a_record(line: str, record: dict[str, Any]) -> None:
    """Names with escapes, numbers, integers of 64 bits, true and false, text and time."""
    found = read(line)
    assert found == record
    assert list(map(type, found.values())) == list(map(type, record.values()))


def test_nanoseconds_are_kept() -> None:
    """The time has microseconds; what is finer is beside it."""
    assert read(f"m a=1 {SECOND}123456789") == {
        "measurement": "m",
        "a": 1.0,
        "time": MOMENT + timedelta(microseconds=123_456),
        "nanoseconds": 789,
    }


@pytest.mark.parametrize(("unit", "nanoseconds"), PRECISIONS.items())
def test_times_have_a_unit(unit: str, nanoseconds: int) -> None:
    """Nanoseconds unless another is named; an unknown one is a mistake of the configuration."""
    line = f"m a=1 {SECOND * 10**9 // nanoseconds}".encode()
    assert decoded({"influx": {"precision": unit}}, line)["time"] == MOMENT
    assert mistakes({"influx": {"precision": "h"}}) == [
        "decode.influx: precision: expected one of ns, us, ms, s, got 'h'"
    ]


def test_each_line_is_a_record() -> None:
    """Without empty lines and comments, also if a text has line breaks."""
    plain = b"\n# a comment, \nm a=1\n\nm a=2\r\n  # m a=4\nm a=3\n\n"
    assert [record["a"] for record in decoded("influx", plain)] == [1, 2, 3]
    assert [record["a"] for record in decoded("influx", b'm a="x\n# y"\n#\nm a=2')] == ["x\n# y", 2]
    assert decoded("influx", b"# nothing\n") == []


def test_names_that_clash_stay_apart() -> None:
    """A field keeps its name, a tag of the same name goes below ``tag``, and so on."""
    assert read("m,a=x,time=y a=1,time=2,tag=3,measurement=4") == {
        "measurement": "m",
        "a": 1.0,
        "tag": {"a": "x", "time": "y"},
        "field": {"time": 2.0, "tag": 3.0, "measurement": 4.0},
    }


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"", "empty payload"),
        (b"m", "line 1: a field with a name and a value is missing"),
        (b"m a=1\nm", "line 2: a field with a name and a value is missing"),
        (b'm a="x\ny"\n\nm', "line 4: a field with a name and a value is missing"),
        (b"m a=", "a field with a name and a value is missing"),
        (b"m a=1,", "a field with a name and a value is missing after the field 'a'"),
        (b"m a=97,5 17", "a field with a name and a value is missing after the field 'a'"),
        (b'm a="x', "a field with a name and a value is missing"),
        (b",a=b c=1", "no measurement"),
        (b"m,a= c=1", "tags has no name or no value"),
        (b"m,=b c=1", "tags has no name or no value"),
        (b"m,a=b=c c=1", "tags has no name or no value"),
        (b"m,a=bc=1 123", "a field with a name and a value is missing"),
        (b'm,a=bcd="x" 5', "a field with a name and a value is missing"),
        (b"m,a=1,a=2 b=1", "a tag twice"),
        (b"m a=1,a=2", "a field twice"),
        (b'm a="x"y', "more than a time"),
        (b"m a=1 1 1", "more than a time"),
        (b"m a=1 1.5", "not written in digits"),
        (b"m a=1 1_0", "not written in digits"),
        (b"m a=1 9223372036854775808", "does not fit 64 bits"),
        (b"m a=9223372036854775808i", "does not fit 64 bits"),
        (b"m a=-1u", "does not fit 64 bits"),
        (b"m a=1.5i", "not written in digits"),
        (b"m a=nan", "not a number, true, false or text"),
        (b"m a=1_0", "not a number, true, false or text"),
        (b"m a=1e", "not a number, true, false or text"),
        (b"m a=-", "not a number, true, false or text"),
        (b"m a=.", "not a number, true, false or text"),
        ("m a=١".encode(), "not a number, true, false or text"),
        (b"m a=kept-dark", "not a number, true, false or text"),
        (b"m a=1e999", "beyond the range of a double"),
        (b"m a=\xff", "not utf-8 text at byte 4"),
    ],
)
def test_what_is_not_line_protocol_has_a_reason(payload: bytes, says: str) -> None:
    """The reason names the line and repeats nothing of it."""
    told = refusal("influx", payload)
    assert says in told
    assert "kept-dark" not in told


names = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters='\\"#'), min_size=1).map(
    lambda name: f"n{name}"
)
field_values = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"))
)


@given(names, st.dictionaries(names, names), st.dictionaries(names, field_values, min_size=1), st.integers(0, 2**62))
def test_what_another_library_writes_is_read(
    measurement: str, tags: dict[str, str], fields: dict[str, Any], time: int
) -> None:
    """InfluxDB's own client writes a line, and all of it comes back."""
    point = Point(measurement).time(time)
    for name, tag in tags.items():
        point.tag(name, tag)
    for name, value in fields.items():
        point.field(name, value)
    record = read(point.to_line_protocol())
    apart = {name: tag for name, tag in tags.items() if name in fields}
    found = {name: record[name] for name in fields}
    assert found == fields
    assert [type(value) for value in found.values()] == [type(value) for value in fields.values()]
    assert record.get("tag", {}) == apart
    assert {name: record[name] for name in tags.keys() - apart.keys()} == {
        name: tag for name, tag in tags.items() if name not in apart
    }
    assert record["measurement"] == measurement
    micros = (record["time"] - MOMENT) // timedelta(microseconds=1) + SECOND * 10**6
    assert micros * 1000 + record.get("nanoseconds", 0) == time


@given(st.text(st.sampled_from('m,= "\\\n#a1.ite-\r\t_')))
def test_any_text_is_decoded_or_refused(text: str) -> None:
    """Whatever is sent, the result is plain data within the bounds, or an error with a reason."""
    check_any(plain_decoder("influx"), text.encode(), dict)


PIECES = [
    *'m,= "\\\0#1.ieutE-a:{}[]é',
    "m",
    ",t=x",
    " a=1",
    ",b=2i",
    ',c="x y"',
    "true",
    "null",
    "e0",
    "ie0",
    '":',
    ',"',
]
PIECES += [" 1700000000000000000", "9223372036854775807i", "9223372036854775808i", "1e999", "time", "\ufeff", "\x7f"]


pieces = st.lists(st.sampled_from(PIECES), max_size=5).map("".join)


@given(pieces, pieces)
@example("", ',:":1,"e0a=2')
@example("", ',b=\0,c=1"x"')
@example("", ',b="\\n"')
def test_plain_lines_are_read_as_all_others(tags: str, fields: str) -> None:
    """Plain lines are read as JSON, but not if a space is before them; both ways give the same record."""
    line = f"m{tags} a=1{fields}"
    plain = read_plain_line(line.encode(), 1)
    assert plain is None or repr(plain) == repr(read(f" {line}"))


@pytest.mark.parametrize("text", ["", ',c="",d="a=b, c"', ",é=1", ",c=T,d=False,e=7u", ",c=1e0i"])
def test_which_lines_are_plain(text: str) -> None:
    """Those that most senders write: numbers, true, false and texts, without escapes."""
    plain = read_plain_line(f"m,t=x a=1.5,b=-2i,ok=true{text} 17".encode(), 1)
    assert (plain is None) == text.endswith("e0i")
