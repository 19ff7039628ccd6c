"""Payloads → plain data."""

from __future__ import annotations

import builtins
import gzip
import json
import math
import re
import struct
import sys
import zlib
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from types import GeneratorType
from typing import Any
from uuid import UUID

import cbor2
import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from amqtt_db.decode import resolve
from amqtt_db.decode.checks import MAX_DEPTH
from amqtt_db.decode.formats import FORMATS
from amqtt_db.errors import DecodeError
from amqtt_db.registry import SpecError, install_hint
from tests.decode.vectors import check_any, plain_decoder

ME = "tests.decode.test_decode"
UNTOLD = "kept-dark"
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
trees = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10)


def decode(spec: Any, payload: bytes) -> Any:
    return plain_decoder(spec)(payload)


def reason(spec: Any, payload: bytes) -> str:
    with pytest.raises(DecodeError) as error:
        decode(spec, payload)
    return str(error.value)


def nested(levels: int, data: Any) -> Any:
    return nested(levels - 1, [data]) if levels else data


def problems(spec: Any) -> list[str]:
    with pytest.raises(SpecError) as error:
        resolve(spec, where="decode")
    return [str(problem) for problem in error.value.problems]


# --- JSON


@given(trees)
def test_json_comes_back_exactly(data: Any) -> None:
    """Whatever Python's json writes is read back the same, integers of any size and signs of zero included."""
    read = decode("json", json.dumps(data).encode())
    assert repr(read) == repr(data)


@given(st.integers(-(2**70), 2**70), st.sampled_from(["%d", '{"a":%d}', "[1.5,%d]", " %d ", '{"n": [0, %d]}']))
@example(-(2**63) - 1, "[1.5,%d]")
@example(2**64, '{"a":%d}')
def test_integers_are_exact(number: int, frame: str) -> None:
    """Integers are exact wherever they stand, also beyond 64 bits."""
    payload = (frame % number).encode()
    read = decode("json", payload)
    assert read == json.loads(payload)
    assert type(_last(read)) is int


def _last(data: Any) -> Any:
    while isinstance(data, (list, dict)):
        data = list(data.values() if isinstance(data, dict) else data)[-1]
    return data


@pytest.mark.parametrize(
    ("payload", "data"),
    [
        (b'"a 20-digit text: 12345678901234567890123"', "a 20-digit text: 12345678901234567890123"),
        (b"0.12345678901234567890123", 0.12345678901234568),
        (b'"\\ud800"', "\ud800"),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        ('{"ä": 1}'.encode("utf-16"), {"ä": 1}),
        ('{"ä": 1}'.encode("utf-16-le"), {"ä": 1}),
        ('{"ä": 1}'.encode("utf-32"), {"ä": 1}),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b"[Infinity, -Infinity]", [math.inf, -math.inf]),
        (b"23.4", 23.4),
        (b" null ", None),
        (b'"a\\u0000b"', "a\0b"),
    ],
)
def test_json_as_devices_send_it(payload: bytes, data: Any) -> None:
    """Forms that the standard forbids but devices send are read."""
    assert decode("json", payload) == data


def test_nan_is_read() -> None:
    """A sensor without a reading says NaN."""
    assert math.isnan(decode("json", b'{"t": NaN}')["t"])


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"", "empty payload"),
        (b"   ", "not JSON: "),
        (b'{"password": "kept-dark', "not JSON: "),
        (b'{"password": kept-dark}', "not JSON: "),
        (b"\xff\x00kept-dark", "not JSON: "),
        (b'"kept-dark\xff"', "not JSON: "),
        (b'"12345678901234567890 kept-dark\xff"', "not UTF-8 at byte 31: invalid start byte"),
        (b"1e400", "beyond the range of a double"),
        (b"[NaN, -1e999]", "beyond the range of a double"),
        (b"9" * 5000, "not JSON: Exceeds the limit"),
        (b"[" * 10_000 + b"]" * 10_000, "nested deeper than 200 levels"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "nested deeper than 200 levels"),
    ],
)
def test_what_is_not_json_has_a_reason_that_repeats_nothing(payload: bytes, says: str) -> None:
    """The reason tells what is wrong and where, never what the payload holds."""
    told = reason("json", payload)
    assert says in told
    assert UNTOLD not in told


@pytest.mark.parametrize("payload", [b"ON", b"21.5 C", "größer".encode()])
def test_plain_text_has_a_hint(payload: bytes) -> None:
    """The hint names the right decoder for a user who never chose one."""
    assert reason("json", payload).endswith(
        "; if this topic sends plain text, set `decode: auto` or `decode: text` on its route"
    )


@pytest.mark.parametrize("payload", [b'{"a": ON}', b" [1,", b'"ON', b"   ", b"", b"\xff\xfe\x01"])
def test_a_hint_is_there_only_where_it_fits(payload: bytes) -> None:
    """A payload that begins like JSON is called broken JSON, and bytes are not called text."""
    assert "text`" not in reason("json", payload)


@pytest.mark.parametrize(
    ("inner", "levels"),
    [
        (1, 0),
        ("x" * 3000, 0),
        (math.nan, 0),
        (b"\xff", 0),
        ([{}] * 500, 2),
        ([{"raw": b"\xff"}] * 500, 2),
        (["]" * 500, '{"[' * 500], 1),
    ],
)
def test_the_depth_is_bounded_whatever_reads_it(inner: Any, levels: int) -> None:
    """Small or large, with values of JSON or others: a payload may have so many levels, and not one more."""
    writers = {"msgpack": msgpack.packb, "cbor": cbor2.dumps}
    if b"raw" not in cbor2.dumps(inner) and inner != b"\xff":
        writers["json"] = lambda data: json.dumps(data).encode()
    for spec, write in writers.items():
        data = nested(MAX_DEPTH - levels, inner)
        assert repr(decode(spec, write(data))) == repr(data)
        assert reason(spec, write([data])) == "nested deeper than 200 levels"
    assert reason("json", b"[" * 10_000)


@given(st.binary(max_size=60))
@example(b"\xfe\xff\xd8")
def test_any_bytes_are_decoded_or_refused(payload: bytes) -> None:
    """Whatever a decoder gets, the result is plain data within the bounds, or an error with a reason."""
    without_options = FORMATS.keys() - {"struct", "avro", "protobuf", "sparkplug"}
    for spec in (*without_options, {"struct": {"format": "<I", "names": ["a"]}}):
        check_any(plain_decoder(spec), payload)


@given(trees, st.data())
def test_damaged_payloads_are_decoded_or_refused(data: Any, draw: st.DataObject) -> None:
    """The same holds for a payload with a missing or wrong part."""
    for spec, write in (("json", lambda tree: json.dumps(tree).encode()), ("cbor", cbor2.dumps)):
        payload = bytearray(write(data))
        payload[draw.draw(st.integers(0, len(payload) - 1))] = draw.draw(st.integers(0, 255))
        check_any(plain_decoder(spec), bytes(payload))


# --- text, bytes, struct


@pytest.mark.parametrize("payload", ["23.4", "ON", "true", "", " 東京\n", "a\0b"])
def test_text_is_taken_as_it_is(payload: str) -> None:
    """Nothing is stripped and nothing is guessed."""
    assert decode("text", payload.encode()) == payload


def test_text_has_an_encoding() -> None:
    """UTF-8 unless another is named; other bytes are refused, and the message does not repeat them."""
    assert decode({"text": {"encoding": "latin-1"}}, b"\xe4") == "ä"
    assert reason("text", b"ab\xe4") == "not utf-8 text at byte 2: unexpected end of data"
    assert reason({"text": {"encoding": "ascii"}}, b"\xe4") == "not ascii text at byte 0: ordinal not in range(128)"
    assert problems({"text": {"encoding": "utf-9"}}) == ["decode.text: encoding: Python does not know 'utf-9'"]
    for other in ("hex", "x\ud800", "x\0"):
        assert "Python does not know" in problems({"text": {"encoding": other}})[0]
    assert reason({"text": {"encoding": "utf-16-le"}}, b"\xe4").startswith("not utf-16-le text at byte 0")


def test_bytes_are_verbatim() -> None:
    """Every byte value passes."""
    assert decode("bytes", bytes(range(256))) == bytes(range(256))


def test_a_struct_has_names() -> None:
    """Pad bytes have no name, a repeat count has several, a text field has one."""
    spec = {"struct": {"format": "<h2x2B4s?", "names": ["t", "a", "b", "tag", "ok"]}}
    payload = struct.pack("<h2x2B4s?", -5, 1, 2, b"ab", True)
    assert decode(spec, payload) == {"t": -5, "a": 1, "b": 2, "tag": b"ab\0\0", "ok": True}


@pytest.mark.parametrize("times", [0, 2, 3])
def test_a_struct_has_one_length(times: int) -> None:
    """Another length is refused, naming both."""
    spec = {"struct": {"format": "<hf", "names": ["a", "b"]}}
    assert reason(spec, b"\0" * 6 * times) == f"expected 6 bytes for '<hf', got {6 * times}"


codes = st.tuples(st.sampled_from(["", "0", "1", "3", "10"]), st.sampled_from("xcbB?hHiIlLqQefdsp")).map("".join)


@given(st.sampled_from(["", "<", ">", "!", "=", "@"]), st.lists(codes, max_size=6), st.sampled_from(["", " "]))
def test_struct_formats_are_counted_as_python_does(order: str, parts: list[str], gap: str) -> None:
    """The number of names that a format needs is the number of values that it gives."""
    layout = order + gap.join(part for part in parts if part != "0p")
    count = len(struct.unpack(layout, bytes(struct.calcsize(layout))))
    names = [f"n{index}" for index in range(count)]
    assert list(decode({"struct": {"format": layout, "names": names}}, bytes(struct.calcsize(layout)))) == names
    assert problems({"struct": {"format": layout, "names": [*names, "more"]}}) == [
        f"decode.struct: names: {layout!r} holds {count} values, but there are {count + 1} names"
    ]


def test_a_pascal_string_of_no_bytes_is_refused() -> None:
    """Python accepts the format and then fails to unpack it."""
    assert "'0p' cannot be read" in problems({"struct": {"format": "<h0p", "names": ["a", "b"]}})[0]


def test_all_mistakes_of_a_struct_are_named_at_once() -> None:
    """A wrong format does not hide a wrong name."""
    told = problems({"struct": {"format": "<hz", "names": ["a", True, "a"]}})
    assert len(told) == 3
    assert "'<hz' is not a format of Python's struct" in told[0]
    assert "True is not a name; quote" in told[1]
    assert "'a' appears more than once" in told[2]


# --- MessagePack and CBOR


def test_msgpack_keeps_types() -> None:
    """Text, bytes and times in UTC stay apart."""
    moment = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=timezone.utc)
    data = {"a": 1, "b": [1.5, None, True], "t": "ä", "raw": b"\xff", "at": moment, "big": 2**64 - 1}
    assert decode("msgpack", msgpack.packb(data, datetime=True)) == data


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"", "empty payload"),
        (msgpack.packb({1: 2}), "a key of an object is a int, not text"),
        (msgpack.packb({b"kept-dark": 2}), "a key of an object is a bytes, not text"),
        (msgpack.packb(msgpack.ExtType(5, b"kept-dark")), "MessagePack extension type 5 is unknown"),
        (msgpack.packb(1) + b"\1", "not MessagePack: unexpected bytes at its end"),
        (b"\xa1\xff", "not MessagePack: text that is not UTF-8 at byte 0: invalid start byte"),
        (b"\x92\x01", "not MessagePack: "),
        (b"\x91" * 10_000 + b"\x01", "not MessagePack: nested too deeply"),
        (b"\x81\x80\x01", "not"),
    ],
)
def test_what_is_not_msgpack_has_a_reason(payload: bytes, says: str) -> None:
    """Unknown extensions and keys that are not text are rejected, too."""
    told = reason("msgpack", payload)
    assert says in told
    assert UNTOLD not in told


values = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.datetimes(timezones=st.just(timezone.utc)).map(lambda moment: moment.replace(fold=0))
)


@given(st.recursive(values, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10))
@example([{"n": 1.5, "t": "x"}] * 500)
@example([{"n": 1.5, "raw": b"\xd8\x1d"}] * 500)
def test_what_the_libraries_write_is_read(data: Any) -> None:
    """Every value comes back with its type, whether JSON has it or not."""
    assert repr(decode("msgpack", msgpack.packb(data, datetime=True))) == repr(data)
    assert repr(decode("cbor", cbor2.dumps(data))) == repr(data)


def test_cbor_keeps_types() -> None:
    """Tags become Python's types, times are in UTC, undefined is nothing."""
    moment = datetime(2026, 1, 31, 12, tzinfo=timezone(timedelta(hours=2)))
    data = {"at": moment, "d": Decimal("1.50"), "u": UUID(int=5), "big": 2**80, "raw": b"\xff", "l": [1.5, {"x": None}]}
    read = decode("cbor", cbor2.dumps(data))
    assert read == data
    assert read["at"].tzinfo is timezone.utc
    assert decode("cbor", cbor2.dumps({"a": cbor2.undefined})) == {"a": None}
    assert decode("cbor", b"\xd9\x03\xec\x6a2013-03-21") == date(2013, 3, 21)


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"", "empty payload"),
        (b"\xd9\x30\x39\x01", "CBOR tag 12345 cannot be stored"),
        (b"\xf0", "CBOR simple value 16 cannot"),
        (b"\xa1\x01\x02", "a key of an object is a int, not text"),
        (b"\x01\x02", "not CBOR: unexpected bytes at its end"),
        (b"\x81" * 10_000 + b"\x01", "not CBOR: "),
        (b"\x82\x01", "not CBOR: "),
        (b"\x61\xff", "not CBOR: "),
        (b"\xd8\x1c\x81\xd8\x1d\x00", "shared references"),
        (b"\xd9\x01\x02\x82\x01\x02", "CBOR set cannot"),
        (b"\xd8\x1e\x82\x01\x03", "CBOR Fraction cannot"),
    ],
)
def test_what_is_not_cbor_has_a_reason(payload: bytes, says: str) -> None:
    """Unknown tags, simple values and keys that are not text are rejected, too."""
    assert says in reason("cbor", payload)


def test_shared_references_do_not_unfold() -> None:
    """A few bytes that mean 2⁴⁰ items are rejected at once."""
    bomb: list[Any] = [1]
    for _ in range(40):
        bomb = [bomb, bomb]
    payload = cbor2.dumps(bomb, value_sharing=True)
    for short, long in ((b"", b""), (b"\xd8", b"\xd9\0"), (b"\xd8", b"\xda\0\0\0"), (b"\xd8", b"\xdb" + bytes(7))):
        assert "shared references" in reason("cbor", payload.replace(short, long))


@pytest.mark.parametrize(("name", "library"), [("msgpack", "msgpack"), ("cbor", "cbor2"), ("bson", "bson")])
def test_a_missing_library_is_a_mistake_of_the_configuration(
    name: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is reported before any message becomes a dead letter because of it."""
    monkeypatch.setitem(sys.modules, library, None)
    assert problems(["gzip", name]) == [f"decode[1].{name}: needs the library {library}: {install_hint(name)}"]


@pytest.mark.parametrize(("name", "library"), [("msgpack", "msgpack"), ("cbor", "cbor2"), ("bson", "bson")])
def test_a_library_that_does_not_import_is_named_by_each_message(
    name: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer still starts, and a dead letter says what to install."""
    real = builtins.__import__

    def without(wanted: str, *args: Any, **kwargs: Any) -> Any:
        if wanted == library:
            raise ModuleNotFoundError(f"No module named {wanted!r}", name=wanted)
        return real(wanted, *args, **kwargs)

    monkeypatch.delitem(sys.modules, f"amqtt_db.decode.{name}", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    decoder = plain_decoder(name)
    for _ in range(2):
        with pytest.raises(DecodeError, match=re.escape(install_hint(name))):
            decoder(b"\1")


# --- compression


def _raw_deflate(data: bytes) -> bytes:
    return zlib.compress(data)[2:-4]


COMPRESS = [("gzip", gzip.compress), ("zlib", zlib.compress), ("deflate", _raw_deflate)]


@pytest.mark.parametrize(("name", "compress"), COMPRESS)
def test_compressed_payloads_are_opened(name: str, compress: Any) -> None:
    """Alone they give bytes, in front of another decoder they feed it."""
    assert decode(name, compress(b"")) == b""
    assert decode(name, compress(b"abc" * 1000)) == b"abc" * 1000
    assert decode([name, "json"], compress(b'{"a": 1}')) == {"a": 1}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "compress"), COMPRESS)
def test_a_bomb_is_stopped_at_its_limit(name: str, compress: Any) -> None:
    """Exactly the limit passes, one byte more does not."""
    spec = {name: {"max_size": 1000}}
    assert len(decode(spec, compress(b"\0" * 1000))) == 1000
    assert reason(spec, compress(b"\0" * 1001)) == "more than 1000 bytes when decompressed"
    assert "more than 67108864 bytes" in reason(name, compress(b"\0" * (2**26 + 1)))


@pytest.mark.parametrize(("name", "compress"), COMPRESS)
def test_damaged_streams_are_refused(name: str, compress: Any) -> None:
    """Cut off, followed by something else, empty, or nothing of the kind."""
    whole = compress(b"some text that is long enough")
    assert reason(name, b"") == "empty payload"
    assert "ends too early" in reason(name, whole[:-6])
    assert "not " + name in reason(name, whole + b"kept-dark")
    assert UNTOLD not in reason(name, whole + b"kept-dark")
    assert "not " + name in reason(name, b"\xffkept-dark")


def test_gzip_joins_members_and_bounds_their_sum() -> None:
    """A file of several members is one file; zero bytes behind it are padding."""
    assert decode("gzip", gzip.compress(b"a") + gzip.compress(b"b") + b"\0\0") == b"ab"
    assert "more than 3" in reason({"gzip": {"max_size": 3}}, gzip.compress(b"aa") + gzip.compress(b"bb"))


def test_a_limit_is_a_number_of_bytes() -> None:
    """Anything else is a mistake in the configuration."""
    assert "max_size: expected a number of bytes above 0, got 0" in problems({"gzip": {"max_size": 0}})[0]
    assert "expected int, got str '1 MB'" in problems({"gzip": {"max_size": "1 MB"}})[0]


# --- the user's own


def shout(payload: bytes, mark: str = "!") -> dict[str, str]:
    return {"text": payload.decode().upper() + mark}


def lines(payload: bytes) -> Iterator[bytes]:
    yield from payload.splitlines()


def broken(payload: bytes) -> Any:
    raise KeyError("x" * 500)


def leaving(payload: bytes) -> Any:
    sys.exit(3)


def broken_later(payload: bytes) -> Iterator[int]:
    yield 1
    raise RuntimeError("later")


def refusing(payload: bytes) -> Any:
    raise DecodeError("in the user's own words")


def doubled(data: dict[str, int]) -> dict[str, int]:
    return {key: value * 2 for key, value in data.items()}


async def asynchronous(payload: bytes) -> Any:
    return payload


class Scaled:
    """A decoder with an option."""

    def __init__(self, factor: int = 2) -> None:
        if factor == 0:
            raise ValueError("factor must not be 0")
        self.factor = factor

    def __call__(self, payload: bytes) -> int:
        return int(payload) * self.factor


NO_DECODER = 5


@pytest.mark.parametrize(
    ("spec", "payload", "data"),
    [
        (f"{ME}.shout", b"a", {"text": "A!"}),
        (f"{ME}:shout", b"a", {"text": "A!"}),
        ({f"{ME}.shout": {"mark": "?"}}, b"a", {"text": "A?"}),
        (f"{ME}.Scaled", b"4", 8),
        ({f"{ME}.Scaled": {"factor": 3}}, b"4", 12),
        ({f"{ME}.Scaled": None}, b"4", 8),
        ("builtins.float", b"23.5", 23.5),
        (["gzip", f"{ME}.shout"], gzip.compress(b"a", mtime=0), {"text": "A!"}),
        (["json", f"{ME}.doubled"], b'{"a": 4}', {"a": 8}),
        (["json"], b"1", 1),
    ],
)
def test_a_users_callable_decodes(spec: Any, payload: bytes, data: Any) -> None:
    """Functions and classes, with and without options, alone and in a pipeline."""
    assert decode(spec, payload) == data


def test_a_generator_makes_several_records() -> None:
    """Each value it yields is one record's data, which later stages decode."""
    made = decode([f"{ME}.lines", "json"], b'{"a": 1}\n{"a": 2}')
    assert isinstance(made, GeneratorType)
    assert list(made) == [{"a": 1}, {"a": 2}]
    assert list(decode(["gzip", f"{ME}.lines", f"{ME}.lines"], gzip.compress(b"a\nb"))) == [b"a", b"b"]


def test_failures_of_a_users_decoder_are_decode_errors() -> None:
    """Its class and the beginning of its text; its own DecodeError stays; a generator fails while it runs."""
    told = reason(f"{ME}.broken", b"")
    assert re.fullmatch(rf"{ME}\.broken fails with KeyError: 'x{{199}} \(test_decode\.py, line \d+\)", told)
    assert reason(f"{ME}.refusing", b"") == "in the user's own words"
    assert reason(f"{ME}.leaving", b"").startswith(f"{ME}.leaving fails with SystemExit: 3 (test_decode.py, line ")
    parts = decode(f"{ME}.broken_later", b"")
    assert next(parts) == 1
    with pytest.raises(DecodeError, match="broken_later fails with RuntimeError: later"):
        next(parts)


def test_a_built_in_behind_a_users_stage_takes_bytes_only() -> None:
    """Anything but bytes is refused, not guessed."""
    assert "json decodes bytes, but the stage before it returned a dict" in reason([f"{ME}.shout", "json"], b"a")


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("jsn", ["decode: 'jsn' is unknown and not a dotted path; did you mean 'json'?"]),
        (5, ["decode: expected a decoder's name or a mapping of one name to its options, got int 5"]),
        ([], ["decode: the pipeline is empty; name at least one decoder"]),
        ({"json": {}, "text": {}}, ["decode: expected a decoder's name"]),
        ({"json": 5}, ["decode.json: expected a mapping of the decoder's options"]),
        ({"json": {"strict": True}}, ["decode.json.strict: is not an option of this decoder; there are none"]),
        (
            {"text": {"encodin": "x"}},
            ["decode.text.encodin: is not an option of this decoder; did you mean 'encoding'?"],
        ),
        ({"struct": {"names": "ab"}}, ["decode.struct.names: expected list", "needs the option 'format'"]),
        (["jsn", "txt"], ["decode[0]: 'jsn' is unknown", "decode[1]: 'txt' is unknown"]),
        (["json", "gzip"], ["decode[1]: gzip decodes bytes, but json before it does not return bytes"]),
        ([["json"]], ["decode[0]: expected a decoder's name"]),
        (f"{ME}.shot", [f"decode: '{ME}.shot' cannot be found: {ME} has no 'shot'; did you mean 'shout'?"]),
        (f"{ME}.NO_DECODER", ["is a int, which cannot be called with a payload"]),
        (f"{ME}.asynchronous", ["is asynchronous; a decoder must be a plain function of the payload"]),
        ({f"{ME}.shout": {"mork": 1}}, ["cannot be made with these options: TypeError: got an unexpected keyword"]),
        ({f"{ME}.Scaled": {"factor": 0}}, ["cannot be made with these options: ValueError: factor must not be 0"]),
        ({"fractions.Fraction": {"numerator": 1}}, ["its instances cannot be called with a payload"]),
    ],
)
def test_every_mistake_in_a_spec_is_told(spec: Any, told: list[str]) -> None:
    """Each with its path and what would be right."""
    found = problems(spec)
    assert len(found) == len(told)
    for part, problem in zip(told, found, strict=True):
        assert part in problem


def test_a_package_can_offer_decoders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an entry point of the group amqtt_db.decoders."""
    info = tmp_path / "offer-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: offer\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[amqtt_db.decoders]\nloud = {ME}:shout\n")
    monkeypatch.syspath_prepend(tmp_path)
    decoder = plain_decoder({"loud": {"mark": "."}})
    assert decoder(b"a") == {"text": "A."}
