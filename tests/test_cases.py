"""What users of comparable systems have reported, on every model and every engine: what is sent, what reads back.

One database for each model on each engine takes all the messages; each case has topics and routes of its own.  Tests
of their own have: two writers and four (25: ``engines/test_many_writers.py``), everything about brokers and journals
(31 to 37: there is no model in it).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import groupby
from typing import Any, Final

import attrs
import pytest
import sqlalchemy as sa

from amqtt_db.message import POSITION_BITS
from amqtt_db.record import unflatten
from amqtt_db.testing.servers import Servers
from amqtt_db.testing.strategies import NASTY_NAMES, NASTY_TOPICS
from tests.database.engines.servers import Site, make_site
from tests.values import NASTY_NUMBERS, NASTY_TEXT, same
from tests.workbench import Sent, Workbench

MODELS: Final = ("wide", "eav", "document", "narrow")
ENGINES: Final = ("sqlite", "postgresql", "mysql", "timescaledb")

Data = Mapping[str, Any]


@attrs.frozen
class Turn:
    """A message, and the records that it becomes; none if it is a dead letter whose reason has the words ``dead``."""

    topic: str
    payload: Any
    records: tuple[Data, ...] = ()
    dead: tuple[str, ...] = ()


def stored(topic: str, payload: Any, *records: Data) -> Turn:
    """A message that becomes records."""
    return Turn(topic, payload, records)


def plain(topic: str, *payloads: Any) -> list[Turn]:
    """Messages that read back unchanged, except that JSON numbers are doubles and null is absent."""
    return [stored(topic, payload, _meant(payload)) for payload in payloads]


def lost(topic: str, payload: Any, *words: str) -> Turn:
    """A message that becomes a dead letter."""
    return Turn(topic, payload, dead=words or ("",))


def _meant(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _meant(item) for key, item in value.items() if item is not None}
    return float(value) if type(value) is int and abs(value) <= 2**53 else value


@attrs.frozen
class Case:
    """Messages of one kind, and the route for them, if it is another than ``#`` below the case's first topic level."""

    says: str
    turns: Sequence[Turn]
    route: Mapping[str, Any] = {}

    def entry(self, model: str) -> dict[str, Any]:
        """The route as the YAML has it."""
        return {"topic": f"{self.turns[0].topic.partition('/')[0]}/#", "model": model, **self.route}


LONG: Final = "long/" + "x" * 194
INT: Final[Mapping[str, Any]] = {"entity": {"n": "int"}}
CONTRACT: Final[Mapping[str, Any]] = {"entity": {"a": "float"}}

CASES: Final = [
    Case(
        "1: a level is text",
        [stored("levels/123/t", {"v": 1}, {"v": 1.0, "{device}": "123", "{kind}": "t"})],
        {"topic": "levels/{device}/{kind}"},
    ),
    Case(
        "1: a level is an int where it is declared as one",
        [
            stored("typed/123", {"v": 1}, {"v": 1.0, "device": 123}),
            stored("typed/x", {"v": 2}, {"v": 2.0, "{device}": "x"}),
        ],
        {"topic": "typed/{device}", "entity": {"device": "int", "v": "float"}},
    ),
    Case(
        "2: empty levels align",
        [
            stored("/empty/x/y", {"v": 1}, {"v": 1.0, "{a}": "", "{b}": "x", "{c}": "y"}),
            stored("z/empty//y", {"v": 2}, {"v": 2.0, "{a}": "z", "{b}": "", "{c}": "y"}),
        ],
        {"topic": "{a}/empty/{b}/{c}"},
    ),
    Case(
        "4: topics that clean to the same name",
        [*plain("same/a/b", {"n": 1}), *plain("same/a_b", {"n": 2}), *plain("same/A/B", {"n": 3})],
    ),
    Case("5: long topics that differ at their end", [*plain(LONG + "a", {"n": 1}), *plain(LONG + "b", {"n": 2})]),
    Case(
        "6: topics in every script, and with what SQL has a meaning for",
        [turn for topic in NASTY_TOPICS for turn in plain(f"nasty/{topic}", {"v": topic})],
    ),
    Case(
        "7: new properties leave old rows alone",
        plain("grow", {"author": "A", "title": "B"}, {"author": "C", "title": "D", "year": 1, "review": {"of": "it"}}),
    ),
    Case("8: a property that stops coming", plain("stop", {"a": 1, "b": 2}, {"a": 3}, {"a": 4, "b": None})),
    Case("9: names that differ in case", plain("case", {"AaA": 1, "aaa": "x"}, {"aaa": 2}, {"AaA": True})),
    Case("10: names that no database likes", plain("names", dict.fromkeys(NASTY_NAMES, 1.5))),
    Case(
        "10: a dot in a name beside nesting", plain("dots", {"a.b": 1, "a": {"b": 2}}, {"a": {"b": {"c": 3}, "d.e": 4}})
    ),
    Case("11: U+0000 and lone surrogates", plain("odd", *({"v": text, text: 1.5, "l": [text]} for text in NASTY_TEXT))),
    Case(
        "12: bytes as they are", [stored("raw", bytes(range(256)), {"value": bytes(range(256))})], {"decode": "bytes"}
    ),
    Case("13: numbers of every size", plain("numbers", *({"v": number, "l": [number]} for number in NASTY_NUMBERS))),
    Case(
        "14: what is no int goes to the variant column",
        [
            stored("ints", {"n": 762162.0}, {"n": 762162}),
            *(stored("ints", {"n": value}, {"n": value}) for value in (762162.1, "0xff", " 12 ", "now", True)),
        ],
        INT,
    ),
    Case("15: text where a number was", plain("clash", {"id": 1}, {"id": "idx-nr-456"}, {"id": 2})),
    Case("16: true is not 1", plain("bools", {"v": True}, {"v": 1}, {"v": False}, {"v": 0})),
    Case(
        "17: nesting and empty things", plain("nest", {"f!3": {"f4": "a"}, "o": {}, "l": [], "n": {"o": {"p": [{}]}}})
    ),
    Case(
        "18: records of one message",
        [
            stored(
                "each",
                {"d": "x", "all": [{"v": 1}, {"v": "y"}]},
                {"d": "x", "all": {"v": 1.0}},
                {"d": "x", "all": {"v": "y"}},
            ),
            stored("each", {"d": "x", "all": []}),
            stored("each", {"d": "x"}, {"d": "x"}),
        ],
        {"each": "all"},
    ),
    Case(
        "19: what is not JSON",
        [
            *plain("broken", {"v": 1}),
            *(
                lost("broken", payload)
                for payload in (b"{not json", b'{"a": 1', b"", b"[" * 10_000 + b"]" * 10_000, b"\xff\xfe\x00")
            ),
            *plain("broken", {"v": 2}),
        ],
        {"decode": "json"},
    ),
    Case(
        "19: odd JSON",
        [
            stored("oddly", b'{"v": 1, "v": 2}', {"v": 2.0}),
            stored("oddly", b'\xef\xbb\xbf{"v": 3}', {"v": 3.0}),
            stored("oddly", '{"v": 4}'.encode("utf-16"), {"v": 4.0}),
        ],
    ),
    Case("19: a text of a megabyte", plain("large", {"v": "x" * 1_000_000}, {"v": 1})),
    Case(
        "20: text alone",
        [stored("alone", text.encode(), {"value": text}) for text in ("23.4", "ON", "true", "")],
        {"decode": "text"},
    ),
    Case(
        "20: JSON scalars alone",
        [stored("scalar", value, {"value": _meant(value)}) for value in (23.5, True, [1], 7)]
        + [stored("scalar", None, {})],
    ),
    Case("21: unknown: add", plain("add", {"a": 1, "b": 2}), {**CONTRACT, "unknown": "add"}),
    Case("21: unknown: extra", plain("extra", {"a": 1, "b": 2, "c": {"d": [1]}}, {"a": 1}), CONTRACT),
    Case("21: unknown: ignore", [stored("ignore", {"a": 1, "b": 2}, {"a": 1.0})], {**CONTRACT, "unknown": "ignore"}),
    Case("21: mismatch: null", [stored("null", {"a": "hot"}, {})], {**CONTRACT, "mismatch": "null"}),
    Case("21: mismatch: variant", plain("variant", {"a": "hot"}, {"a": 1}), CONTRACT),
    Case(
        "21: mismatch: reject",
        [*plain("reject", {"a": 1}), lost("reject", {"a": "hot"}, "'a' is not float but str")],
        {**CONTRACT, "mismatch": "reject"},
    ),
    Case(
        "22: a frozen contract",
        [*plain("frozen", {"a": 1}), lost("frozen", {"a": 1, "z": 2}, "frozen/#", "'z'", "reject")],
        {**CONTRACT, "unknown": "reject"},
    ),
    Case("23: a bad message between good ones", [*plain("bad", {"v": 1}), lost("bad", b"{"), *plain("bad", {"v": 2})]),
    Case(
        "24: shapes that change within a batch",
        plain("drift", *({f"p{n % 7}": n, "v": n if n % 3 else str(n)} for n in range(40))),
    ),
    Case(
        "27: many rows of many columns", plain("many", *({f"c{n}": n + row for n in range(100)} for row in range(60)))
    ),
    Case(
        "28: more properties than columns", plain("spill", {f"p{n}": n for n in range(2100)}, {"p7": 1}, {"p2000": "x"})
    ),
    Case("29: messages that are the same", plain("twin", {"v": 1}, {"v": 1}, {"v": 1})),
]

IGNORED: Final = ("nowhere", "levels/too/many/levels", "typed")


@attrs.frozen
class Told:
    """What a database says about the messages, by their positions in the journal."""

    topics: Mapping[int, str]
    records: Mapping[int, list[Data]]
    dead: Mapping[int, str]
    ignored: int


@pytest.fixture(scope="module", params=[(engine, model) for engine in ENGINES for model in MODELS], ids="-".join)
def told(request: pytest.FixtureRequest, servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """All messages of all cases, in batches that mix them, in one database."""
    engine, model = request.param
    with ExitStack() as stack:
        site = stack.enter_context(make_site(servers, engine, tmp_path_factory.mktemp("cases")))
        bench = Workbench(site, *(case.entry(model) for case in CASES))
        turns = [turn for case in CASES for turn in case.turns]
        sent = [Sent(turn.topic, turn.payload) for turn in turns] + [Sent(topic, {"v": 1}) for topic in IGNORED]
        for start in range(0, len(sent), 97):
            bench.send(*sent[start : start + 97])
        yield _told(bench)


def _position(id_: int) -> int:
    return id_ % (1 << POSITION_BITS)


def _told(bench: Workbench) -> Told:
    topics: dict[int, str] = {}
    records: dict[int, list[Data]] = {}
    for position, group in groupby(bench.records(), key=lambda record: _position(record.id)):
        found = list(group)
        topics[position] = found[0].topic
        records[position] = [
            unflatten((path, value) for path, (_, value) in record.properties().items()) for record in found
        ]
    dead = {_position(letter.id): letter.reason for letter in bench.dead()}
    return Told(topics, records, dead, bench.counts()[""]["ignored"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.says)
def test_what_is_sent_reads_back(case: Case, told: Told) -> None:
    """Each message of the case as its records, in order, or as a dead letter that says why."""
    first = 1 + sum(len(before.turns) for before in CASES[: CASES.index(case)])
    for position, turn in enumerate(case.turns, start=first):
        found = told.records.get(position, [])
        assert told.topics.get(position, turn.topic) == turn.topic
        assert same(found, list(turn.records)), (turn.topic, told.dead.get(position), _short(found))
        assert (position in told.dead) == bool(turn.dead)
        assert all(word in told.dead[position] for word in turn.dead)


def _short(found: Any) -> str:
    return json.dumps(found, default=repr)[:500]


def test_what_has_no_route_is_counted(told: Told) -> None:
    """3: shorter or longer than every template."""
    assert told.ignored == len(IGNORED)


@pytest.mark.parametrize("model", MODELS)
def test_a_dropped_table_is_made_again(model: str, site: Site) -> None:
    """26: a DROP by hand loses the table's contents, but no later message."""
    bench = Workbench(site, {"topic": "#", "model": model})
    bench.send(("t", {"v": 1, "s": "x"}))
    for (table,) in bench.sql("SELECT name FROM mqtt_table WHERE substr(mqtt_table.key, 1, 7) <> '$lookup'"):
        for (view,) in bench.sql("SELECT name FROM mqtt_view"):
            bench.sql(f"DROP VIEW IF EXISTS {view}")
        bench.sql(f"DROP TABLE {table}")
        batch = bench.batch(Sent("t", {"v": 2, "s": "y"}))
        with pytest.raises(sa.exc.DBAPIError):
            bench.store(batch)
        assert bench.writer.repair(batch)
        bench.store(batch)
        assert bench.data()[-1] == {"v": 2.0, "s": "y"}
    assert bench.dead() == []


@pytest.mark.parametrize("model", MODELS)
def test_the_warm_path_takes_a_constant_number_of_statements(model: str, site: Site) -> None:
    """30: a batch of known shapes, a thousand messages or ten."""
    bench = Workbench(site, {"topic": "#", "model": model})
    bench.send(("t", {"v": 1, "s": "x"}))
    few, many = _statements(bench, 10), _statements(bench, 1000)
    assert few == many
    assert len(few) <= 6


def _statements(bench: Workbench, count: int) -> list[str]:
    statements: list[str] = []

    def note(_: object, __: object, statement: str, *___: object) -> None:
        statements.append(statement)

    sa.event.listen(bench.writer._database, "before_cursor_execute", note)
    bench.send(*(("t", {"v": index, "s": str(index)}) for index in range(count)))
    sa.event.remove(bench.writer._database, "before_cursor_execute", note)
    return statements
