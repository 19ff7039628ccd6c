"""Tagged JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtt_db import tagged
from amqtt_db.models.base import Row, TableName
from amqtt_db.models.document import Document
from amqtt_db.record import Record, TaggedValue, tag
from amqtt_db.tagged import EncodedJson
from tests.database.engines.servers import Site
from tests.values import same, values
from tests.workbench import Workbench


@given(values)
def test_every_value_comes_back_with_its_type(value: Any) -> None:
    """loads(dumps(x)) is x: type, sign of zero and NaN included."""
    assert same(tagged.loads(tagged.dumps(value)), value)


@given(values)
def test_the_text_is_clean_json(value: Any) -> None:
    """The stored JSON fits every database: no U+0000, no lone surrogate."""
    text = tagged.dumps(value)
    assert tagged.is_clean(text)
    assert "\\u0000" not in text.replace("\\\\", "")
    orjson.loads(text)


def test_plain_json_stays_as_it_reads() -> None:
    """A list of plain values is stored as plain JSON."""
    assert tagged.dumps([1, 21.5, "a", None, True, {"b": []}]) == '[1,21.5,"a",null,true,{"b":[]}]'


def test_keys_that_look_like_tags_are_told_apart() -> None:
    """Data with a single key that begins with a dollar sign is not taken as a tag."""
    lookalikes: list[dict[str, object]] = [{"$int": "5"}, {"$$int": "5"}, {"$": 1}, {"$object": []}]
    for data in lookalikes:
        assert tagged.loads(tagged.dumps(data)) == data


def test_a_kind_that_the_value_does_not_tell_is_kept() -> None:
    """A declared int64 of 5 comes back as int64; a number has no tag."""
    assert tag("number", 5) == 5
    assert tagged.loads(tagged.dumps({"a": tag("int64", 5)})) == {"a": TaggedValue("int64", 5)}


def test_a_foreign_type_is_refused_by_name() -> None:
    """The error names a type that is not the project's, also for a key."""
    with pytest.raises(TypeError, match="complex"):
        tagged.dumps([1j])
    with pytest.raises(TypeError, match="key"):
        tagged.dumps({1: 2})


@given(st.lists(st.none() | values | values.map(lambda value: EncodedJson(tagged.dumps(value)))))
def test_what_is_written_already_stays_as_it_is(column: list[Any]) -> None:
    """Next to values that are not encoded yet, and alone."""
    texts = [value if value is None or isinstance(value, EncodedJson) else tagged.dumps(value) for value in column]
    found = tagged.dumps_all(column)
    assert found == texts
    assert {type(text) for text in found} <= {str, type(None)}


def test_what_is_written_in_lines_stays_one_text() -> None:
    """JSON may have line breaks between its values."""
    pretty = EncodedJson("[\n1\n]")
    assert tagged.dumps_all([pretty, pretty]) == [pretty, pretty]


@attrs.frozen
class HalfWritten(Document):
    """Every other document is its text already."""

    def write(self, record: Record) -> Iterator[tuple[TableName, Row]]:
        """Those of the built-in model."""
        for key, row in super().write(record):
            yield key, {**row, "data": EncodedJson(tagged.dumps(row["data"]))} if record.id % 2 else row


def test_a_model_may_write_some_of_its_cells(site: Site) -> None:
    """Of the same batch, on every engine."""
    bench = Workbench(site, {"topic": "t", "model": {"tests.test_tagged.HalfWritten": {"prefix": "mine"}}})
    bench.send(*(("t", {"n": number, "null": None}) for number in range(4)))
    assert not bench.dead()
    assert bench.data() == [{"n": number} for number in range(4)]
