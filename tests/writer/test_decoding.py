"""A batch's messages are typed together: whatever they are, they become what each becomes alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from amqtt_db.config import load_section
from amqtt_db.message import PUBLISH, Batch, flags
from amqtt_db.record import Record
from amqtt_db.writer.decoded import DecodedBatch
from amqtt_db.writer.decoding import decode_batch
from amqtt_db.writer.topic_router import TopicRouter

NESTED = {
    "n": "int",
    "t": "str",
    "at": {"type": "datetime", "format": "epoch_s"},
    "o": {"x": "float", "p": {"y": "int"}},
}
ENTITIES: Sequence[Mapping[str, Any] | None] = (
    None,
    NESTED,
    {"n": "float", "o": "dict"},
    {"o": {"x": "int"}, "w": "any"},
)
VALUES = st.one_of(
    st.none(), st.integers(-3, 3), st.just(2**64), st.just(0.5), st.just("7"), st.booleans(), st.just([1, {"a": None}])
)
OBJECTS = st.dictionaries(st.sampled_from(["x", "p", "q.r"]), VALUES | st.fixed_dictionaries({"y": VALUES}), max_size=2)
SOME = st.fixed_dictionaries({}, optional=dict.fromkeys(("n", "t", "at", "o", "w", "v"), VALUES | OBJECTS))
FORMS = st.lists(SOME, min_size=1, max_size=4)
NO_OBJECTS = st.sampled_from(
    [b"", b"on", b'{"n": 1', b"[7]", b"{}", b'{"n": NaN}', b'{"n": 1}\0', b'{"n": 18446744073709551616}']
)
TOPICS = st.sampled_from("ab")
MIXED = FORMS.flatmap(
    lambda forms: st.lists(st.tuples(TOPICS, st.sampled_from(forms) | SOME | NO_OBJECTS), max_size=24)
)
EVEN = st.sets(st.sampled_from(["n", "t", "at", "o", "w", "v"]), min_size=1, max_size=3).flatmap(
    lambda keys: st.lists(
        st.tuples(TOPICS, st.fixed_dictionaries(dict.fromkeys(keys, VALUES | OBJECTS)) | NO_OBJECTS),
        min_size=8,
        max_size=16,
    )
)
POLICIES = st.fixed_dictionaries(
    {"unknown": st.sampled_from(["add", "extra", "ignore", "reject"])},
    optional={"mismatch": st.sampled_from(["variant", "null", "reject"])},
)


def router_for(route: Mapping[str, Any], topics: Sequence[str]) -> TopicRouter:
    """A router that knows the topics; each has a destination of its own unless the route names a table."""
    router = TopicRouter(load_section({"routes": [dict(route)]}).routes)
    new = router.unassigned([topic.encode() for topic in topics])
    router.learn(new, router.assign(new, {}, {}))
    return router


def batch_of(messages: Sequence[tuple[str, bytes]], first: int = 1) -> Batch:
    """Messages as a journal's reader returns them."""
    count = len(messages)
    topics = [topic.encode() for topic, _ in messages]
    payloads = [payload for _, payload in messages]
    positions = range(first, first + count)
    entries = bytes([flags(PUBLISH, 1)]) * count
    times = [1_700_000_000_000_000 + position for position in positions]
    return Batch("a", positions, times, entries, [0] * count, topics, payloads, first + count)


def found_in(decoded: Sequence[DecodedBatch]) -> tuple[list[Any], list[Any], Counter[tuple[str, str]]]:
    """What messages have become: records with their destinations, rejections, counts."""
    records: list[tuple[int, Any, Record]] = [
        (record.id, destination, record)
        for one in decoded
        for (destination, _), some in one.groups.items()
        for record in some
    ]
    told = [
        (id_, destination.key, record.time_us, record.topic, repr(sorted(record.properties().items())))
        for id_, destination, record in sorted(records, key=lambda found: found[0])
    ]
    rejected = sorted((one.message.position, one.step, one.reason) for batch in decoded for one in batch.rejected)
    counts: Counter[tuple[str, str]] = Counter()
    for batch in decoded:
        for filter_, some in batch.counts.items():
            counts.update({(filter_, name): count for name, count in some.items()})
    return told, rejected, +counts


@given(st.sampled_from(ENTITIES), POLICIES, st.booleans(), MIXED | EVEN)
def test_messages_together_become_what_each_becomes_alone(
    entity: Mapping[str, Any] | None,
    policies: Mapping[str, str],
    own_tables: bool,
    sent: list[tuple[str, dict[str, Any] | bytes]],
) -> None:
    """Records, dead letters and counts are equal, whatever the entity, the policies and the destinations."""
    route: dict[str, Any] = {"topic": "+", "model": "wide" if own_tables else {"wide": {"table": "t"}}}
    if entity is not None:
        route |= {"entity": entity, **policies} | ({"time": "at"} if "at" in entity else {})
    messages = [(topic, data if isinstance(data, bytes) else json.dumps(data).encode()) for topic, data in sent]
    router = router_for(route, ["a", "b"])
    together = decode_batch(1, batch_of(messages), router)
    alone = [decode_batch(1, batch_of([one], position), router) for position, one in enumerate(messages, 1)]
    assert found_in([together]) == found_in(alone)
