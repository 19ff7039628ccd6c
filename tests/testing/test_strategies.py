"""The generators make what may arrive, and what is rare does arrive."""

from __future__ import annotations

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from amqtt_db.record import KIND_OF_TYPE, Kind, Record, Shape, split_path
from amqtt_db.routing.topics import TopicFilter
from amqtt_db.testing import strategies
from amqtt_db.testing.answer import expected, leaves
from amqtt_db.testing.history import History, decode_sent


@given(strategies.topics())
def test_topics_are_those_that_a_publisher_may_use(topic: str) -> None:
    """Text without wildcards and U+0000, covered by ``#``."""
    assert 0 < len(topic.encode()) <= 65535
    assert not set(topic) & set("+#\x00")
    assert TopicFilter.parse("#").match(topic) is not None


@given(strategies.kinds(), st.data())
def test_values_are_of_the_kind_that_was_asked_for(kind: Kind, data: st.DataObject) -> None:
    """A kind's values have its type; a double of another type would prove nothing."""
    value = data.draw(strategies.values(kind))
    same: dict[str, set[Kind]] = {"int64": {"number"}, "bigint": {"number"}, "json": set(KIND_OF_TYPE.values())}
    assert KIND_OF_TYPE[type(value)] in same.get(kind, {kind})


@given(strategies.shapes())
def test_no_path_of_a_shape_lies_within_another(shape: Shape) -> None:
    """Such a shape would be that of no payload; named levels of the topic are apart."""
    keys = [split_path(path) for path in shape.paths if not path.startswith("{")]
    assert len(set(keys)) == len(keys)
    assert not any(one != other and other[: len(one)] == one for one in keys for other in keys)


@given(strategies.records())
def test_records_are_whole(record: Record) -> None:
    """As many values as pairs, and an id that a database can hold."""
    assert len(record.values) == len(record.shape.properties)
    assert 0 < record.id < 2**63
    assert strategies.EARLIEST <= record.time_us <= strategies.LATEST
    assert record.time.year in range(1, 10_000)


@given(strategies.histories())
def test_what_is_sent_is_decoded_again(history: History) -> None:
    """The payload's bytes hold all parts, and every part is expected to become a record."""
    for sent in history.messages:
        parts = tuple(decode_sent(sent.payload()))
        assert repr(parts) == repr(sent.parts)
        assert len(expected(sent, 1, 1, history.setting)) == len(parts)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Generating overly large repr")  # of what is found, which nobody reads
def test_drift_and_late_data_do_arrive() -> None:
    """A property that changes its kind, a message that is earlier than the one before, one of several parts."""

    def has_everything(history: History) -> bool:
        kinds: dict[tuple[str, ...], set[type]] = {}
        for sent in history.messages:
            for keys, value in (leaf for part in sent.parts for leaf in leaves(part)):
                kinds.setdefault(keys, set()).add(type(value))
        times = [sent.time for sent in history.messages]
        several = any(len(sent.parts) > 1 for sent in history.messages)
        return times != sorted(times) and several and any(len(types) > 1 for types in kinds.values())

    find(strategies.histories(), has_everything, settings=settings(max_examples=2000, phases=[Phase.generate]))


def test_the_worst_histories_leave_nothing_out() -> None:
    """All names, topics and values that are known to be nasty are in them."""
    messages = [sent for history in strategies.nasty_histories() for sent in history.messages]
    told = repr([sent.parts for sent in messages])
    assert {sent.topic for sent in messages} >= set(strategies.NASTY_TOPICS)
    nasty = (*strategies.NASTY_NAMES, *strategies.NASTY_INTEGERS, *strategies.NASTY_FLOATS, *strategies.NASTY_TEXTS)
    more = (*strategies.NASTY_DECIMALS, *strategies.NASTY_MOMENTS, *strategies.NASTY_ODD_MOMENTS)
    assert [one for one in (*nasty, *more) if repr(one) not in told] == []
