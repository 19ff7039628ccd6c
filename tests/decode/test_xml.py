"""XML → plain data."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest
import xmltodict
from hypothesis import given
from hypothesis import strategies as st

from amqtt_db.decode.checks import MAX_DEPTH
from tests.decode.vectors import check_any, decoded, mistakes, plain_decoder, refusal

BOMB = (
    b'<!DOCTYPE a [<!ENTITY b "ha">'
    + b"".join(b'<!ENTITY b%d "&b%d;&b%d;">' % (number + 1, number, number) for number in range(40))
    + b"]><a>&b40;</a>"
)


@pytest.mark.parametrize(
    ("payload", "data"),
    [
        ("<a><t>21.5</t><n>5</n><s>ON</s></a>", {"t": 21.5, "n": 5, "s": "ON"}),
        ('<a x="1" y="z"><b/></a>', {"@x": 1, "@y": "z", "b": None}),
        ('<a><t unit="C">21.5</t></a>', {"t": {"@unit": "C", "#text": 21.5}}),
        ("<a><b>1</b><c/><b>2</b><b/></a>", {"b": [1, 2, None], "c": None}),
        ("<a><b><c>1</c></b><b><c>2</c></b></a>", {"b": [{"c": 1}, {"c": 2}]}),
        ("<a>\n  text <b>1</b> more\n</a>", {"b": 1, "#text": "text  more"}),
        ("<a>21.5</a>", 21.5),
        ("<a/>", None),
        ("<a><b><![CDATA[<x>&]]></b><!-- no --><?no no?></a>", {"b": "<x>&"}),
        ("<a><b>&lt;&#228;&amp;</b></a>", {"b": "<ä&"}),
        ('<x:a xmlns:x="http://x" xmlns="http://y"><x:t>1</x:t></x:a>', {"x:t": 1}),
        ("<a><b>007</b><c> 1 </c><d>1e999</d></a>", {"b": "007", "c": 1, "d": "1e999"}),
    ],
)
def test_elements_and_attributes_are_properties(payload: str, data: Any) -> None:
    """Text, objects and lists, without the outermost element's name."""
    found = decoded("xml", payload.encode())
    assert found == data
    assert repr(found) == repr(data)


def test_numbers_may_stay_text() -> None:
    """For identifiers that look like numbers."""
    spec = {"xml": {"numbers": False}}
    assert decoded(spec, b'<a n="1"><b>21.5</b><c/></a>') == {"@n": "1", "b": "21.5", "c": None}
    assert "expected bool" in mistakes({"xml": {"numbers": 1}})[0]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1", "cp1252"])
def test_the_payload_says_its_encoding(encoding: str) -> None:
    """Or has a byte order mark."""
    payload = f'<?xml version="1.0" encoding="{encoding}"?><a><b>ä</b></a>'.encode(encoding)
    assert decoded("xml", payload) == {"b": "ä"}


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"", "empty payload"),
        (b"kept-dark", "not XML: line 1, column 1: syntax error"),
        (b"<a>\n<b>kept-dark</a>", "not XML: line 2, column "),
        (b"<a>kept-dark", "not XML: line 1, column 13: no element found"),
        (b"<a/><b/>", "junk after document element"),
        (b'<a x="1" x="2"/>', "duplicate attribute"),
        (b"<a>&kept;</a>", "undefined entity"),
        (b"<a>\xff</a>", "not XML: line 1, column 4: not well-formed"),
        (b'<?xml version="1.0" encoding="kept-dark"?><a/>', "not XML: its encoding cannot be read"),
        (b'<?xml version="1.0" encoding="utf-7"?><a/>', "not XML: its encoding cannot be read"),
        (b'<?xml version="1.0" encoding="shift_jis"?><a/>', "not XML: its encoding cannot be read"),
        (BOMB, "XML with a document type is not supported"),
        (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "XML with a document type is not supported"),
        (b"<a>" * (MAX_DEPTH + 1), "nested deeper than 200 levels"),
    ],
)
def test_what_is_not_xml_has_a_reason(payload: bytes, says: str) -> None:
    """The reason says where and repeats nothing; bombs are not even read."""
    told = refusal("xml", payload)
    assert says in told
    assert "kept-dark" not in told


def test_deep_elements_are_read() -> None:
    """As deep as all data may be nested."""
    assert decoded("xml", b"<a>" * MAX_DEPTH + b"</a>" * MAX_DEPTH)


names = st.from_regex(r"[a-z]{1,3}", fullmatch=True)
texts = st.text(st.characters(codec="utf-8", exclude_categories=["C"]))


@st.composite
def elements(draw: Any, depth: int = 3) -> ElementTree.Element:
    """Draw an element with text, attributes and other elements."""
    element = ElementTree.Element(draw(names), draw(st.dictionaries(names, texts, max_size=2)))
    element.text = draw(texts)
    for _ in range(draw(st.integers(0, 3)) if depth else 0):
        element.append(draw(elements(depth - 1)))
    return element


@given(elements())
def test_it_is_read_as_by_another_library(element: ElementTree.Element) -> None:
    """What the standard library writes, this and another library read alike."""
    payload = ElementTree.tostring(element, encoding="utf-8")
    expected = xmltodict.parse(payload)[element.tag]
    assert decoded({"xml": {"numbers": False}}, payload) == _without_empty(expected)


def _without_empty(data: Any) -> Any:
    """Return what the other library reads, without the difference between no text and empty text."""
    if isinstance(data, dict):
        return {name: _without_empty(value) for name, value in data.items()}
    return [_without_empty(item) for item in data] if isinstance(data, list) else data or None


@given(st.text(st.sampled_from('<>a/="&;!?[]- x1\n')), st.binary(max_size=20))
def test_any_payload_is_decoded_or_refused(text: str, payload: bytes) -> None:
    """Whatever is sent, the result is plain data within the bounds, or an error with a reason."""
    for one in (text.encode(), b"<a>" + text.encode() + b"</a>", payload, b"<a>" + payload):
        check_any(plain_decoder("xml"), one)
