"""Another decoder for each content type or value of a user property."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cbor2
import pytest

from tests.decode.vectors import mistakes
from tests.workbench import Sent, Workbench

ROUTE: dict[str, Any] = {"topic": "#", "model": {"wide": {"table": "t"}}}
BY: dict[str, Any] = {"by": "content_type", "application/json": "json", "Application/CBOR": "cbor"}
WRITTEN = cbor2.dumps({"v": 2})


def typed(topic: str, payload: bytes, content_type: str | None = None, **user: str) -> Sent:
    """Return a message with a content type and user properties."""
    properties: dict[str, Any] = {} if content_type is None else {"content_type": content_type}
    return Sent(topic, payload, properties={**properties, "user_properties": [*map(list, user.items())]})


def test_each_message_has_the_decoder_of_its_content_type(tmp_path: Path) -> None:
    """Neither letter case nor parameters count; what no decoder is named for becomes a dead letter that says so."""
    bench = Workbench(tmp_path, {**ROUTE, "decode": BY})
    bench.send(
        typed("t", b'{"v": 1}', "application/JSON; charset=utf-8"), typed("t", WRITTEN, "application/cbor"),
        typed("t", b"<v/>", "text/xml"), Sent("t", b'{"v": 3}'), typed("t", WRITTEN, "application/json"),
    )  # fmt: skip
    assert bench.sql("SELECT v FROM t ORDER BY id") == [(1,), (2,)]
    unknown, without, wrong = (letter.reason for letter in bench.dead())
    assert unknown == "`decode` has no decoder for this content type, only for application/json, application/cbor"
    assert without.startswith("`decode` has no decoder for a message without a content type, only for")
    assert wrong.startswith("not JSON")


def test_a_user_property_may_choose(tmp_path: Path) -> None:
    """Its first value counts, as it is written; `else` is for all others, and for messages without it."""
    by = {"by": {"user_property": "encoding"}, "cbor": "cbor", "else": ["gzip", "json"]}
    bench = Workbench(tmp_path, {**ROUTE, "decode": {**by, "else": "text"}})
    twice = Sent("t", WRITTEN, properties={"user_properties": [["encoding", "cbor"], ["encoding", "xml"]]})
    bench.send(twice, typed("t", b"7", encoding="CBOR"), typed("t", b"8", other="cbor"), Sent("t", b"9"))
    assert bench.sql("SELECT v, value FROM t ORDER BY id") == [(2, None), (None, "7"), (None, "8"), (None, "9")]


def test_what_is_decoded_so_may_be_reshaped(tmp_path: Path) -> None:
    """The other keys of the route mean what they always mean."""
    bench = Workbench(tmp_path, {**ROUTE, "decode": BY, "root": "data", "entity": {"v": "int"}})
    bench.send(typed("t", b'{"data": {"v": 1}}', "application/json"), typed("t", WRITTEN, "application/cbor"))
    assert bench.sql("SELECT v FROM t ORDER BY id") == [(1,), (2,)]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"by": "content_type"}, "decode: names no decoder; add one for each value, or `else`"),
        (
            {"by": {"user": "x"}, "a": "json"},
            "decode.by: expected a level of the topic such as '{format}', content_type or {user_property: name}, "
            "got {'user': 'x'}",
        ),
        (
            {"by": "content_type", "application/x": "sparkplug"},
            "decode.application/x: sparkplug remembers messages of a topic: give such topics a route of their own, or "
            "choose by a level of the topic",
        ),
    ],
)
def test_mistakes_have_their_path(spec: Any, said: str) -> None:
    """Each says what is expected."""
    assert mistakes(spec) == [said]
