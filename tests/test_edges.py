"""What goes in comes out, at every limit: it is stored and can be exported and moved, or it is a dead letter."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import amqtt_db
from amqtt_db.decode.checks import MAX_DEPTH
from amqtt_db.models import BUILTIN
from amqtt_db.models.document import Document
from amqtt_db.models.eav import Eav
from amqtt_db.models.narrow import Narrow
from amqtt_db.models.wide import Wide
from amqtt_db.reader.export import export
from amqtt_db.reader.follow import Follower
from amqtt_db.reader.record_file import read_file_records
from amqtt_db.record import MAX_DIGITS, Record
from amqtt_db.routing.route import Route
from amqtt_db.testing import strategies
from amqtt_db.testing.answer import require_same, told
from amqtt_db.testing.bench import Bench
from amqtt_db.testing.contract import tries
from amqtt_db.testing.databases import DATABASES, Database
from amqtt_db.testing.history import History, Sent, Setting
from amqtt_db.writer.copying import Copier
from amqtt_db.writer.importing import Importer, Survey
from amqtt_db.writer.remodel import Remodel
from amqtt_db.writer.workshop import Workshop, create_database
from tests.database.engines.servers import Site
from tests.workbench import Workbench

SETTING: Final = Setting()
MODELS: Final = (Wide(), Wide(table="one"), Eav(), Document(), Narrow())
LENGTHS: Final = (51, 52, 55, 56, 62, 63, 64, 127, 128, 191, 192, 200, 201, 255, 256)
"""Around the limits of names, and of texts in an index, in characters or bytes."""
TEXTS: Final = tuple(letter * length for length in LENGTHS for letter in ("n", "ä", "🙂"))


def nested(levels: int, value: Any = 1) -> Any:
    """A value in so many lists."""
    for _ in range(levels):
        value = [value]
    return value


LARGEST: Final = 10**MAX_DIGITS - 1
VALUES: Final = (
    *(LARGEST, -LARGEST, [LARGEST], nested(MAX_DEPTH - 1), {"a": nested(MAX_DEPTH - 2)}, "x" * 70_000),
    *(Decimal("1E-400"), Decimal("9" * 5000), bytes(range(256)) * 300, "".join(map(chr, range(0x300)))),
    *([float("inf"), float("-inf"), -0.0, 2**64, 2**53 + 1], "0001-01-01", "9999-12-31T23:59:59.999999Z"),
)
"""Values at the limits of depth, digits and lengths; those of dates and numbers are among the strategies' own."""

NAMES: Final = st.sampled_from(TEXTS)
PLACES: Final = NAMES | st.builds("{}/{}".format, NAMES, NAMES) | strategies.topics()
EXTREMES: Final = st.builds(
    Sent,
    PLACES,
    st.tuples(st.dictionaries(NAMES | strategies.names(), st.sampled_from(VALUES) | strategies.values(), max_size=4)),
    strategies.times(),
)
HISTORIES: Final = st.builds(
    lambda history, batch: History(SETTING, (*history.batches, tuple(batch))),
    strategies.histories(st.just(SETTING)),
    st.lists(EXTREMES, max_size=4),
)
ALL_LIMITS: Final = History(
    SETTING,
    (
        (Sent("names", (dict.fromkeys(TEXTS, 1), {text + "_": "x" for text in TEXTS})),),
        tuple(Sent(f"{'t/' * (at % 2)}{text}", ({"v": 1.0},)) for at, text in enumerate(TEXTS[::2])),
        tuple(Sent("values", ({"v": value, "w": {"x": [value] if value != nested(MAX_DEPTH - 1) else 1}},))
              for value in VALUES if value not in VALUES[3:5]),
        (Sent("order", ({"v": [{"name": 1, "id": {"bb": 2, "a": 3}}]},)),),
        tuple(Sent("deep", ({"v": value},), time) for value in VALUES[3:5] for time in (strategies.EARLIEST, 0)),
    ),
)  # fmt: skip
"""Every length, as a topic and as a property's name, and every value."""


def require_read(wanted: Iterable[Record], found: Iterable[Record], *notes: str) -> None:
    """Require the same records, to the last bit."""
    require_same(list(map(told, wanted)), list(map(told, found)), notes)


def exported(url: str) -> bytes:
    """Return everything that is stored, as JSON Lines."""
    written: list[bytes] = []
    export(url, written.append)
    return b"".join(written)


def write_export(url: str, form: Any, path: Path) -> Path:
    """Export everything into a file."""
    with path.open("wb") as file:
        export(url, file.write, form)
    return path


def remodelled(url: str, route: Route) -> Iterator[Record]:
    """Move everything to another model, and read it there."""
    with closing(Remodel(url, (route,))) as moving:
        for move in moving.moves():
            list(moving.move(move))
    yield from amqtt_db.read(url)


def copied(url: str, other: str, route: Route) -> Iterator[Record]:
    """Copy everything to another database, and read it there."""
    with closing(Copier(url, other, (route,))) as copier:
        list(copier.copy())
    yield from amqtt_db.read(other)


def imported(file: Path, url: str, route: Route) -> Iterator[Record]:
    """Import a file into another database, and read it there."""
    create_database(url)
    with closing(Workshop(url, (route,))) as shop:
        importer = Importer(shop, lambda: read_file_records(file), Survey.of(read_file_records(file), (route,), None))
        importer.check()
        list(importer.store())
    yield from amqtt_db.read(url)


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@pytest.mark.parametrize("home", DATABASES[:3], ids=str)
def test_what_goes_in_comes_out_by_every_way(home: Database) -> None:
    """Stored, read, tailed, exported in each form, remodelled, copied to another engine, imported: always the same."""
    home.prepare()

    @given(HISTORIES, st.permutations(MODELS), st.sampled_from(DATABASES[:3]))
    @example(ALL_LIMITS, MODELS, DATABASES[1])
    @tries(10, home)
    def law(history: History, models: list[Any], other: Database) -> None:
        first, second, third, fourth = (SETTING.route(model) for model in models[:4])
        other.prepare()
        with ExitStack() as stack:
            directory = Path(stack.enter_context(TemporaryDirectory()))
            bench = stack.enter_context(Bench(home, first))
            follower: Follower | None = None
            for batch in history.batches:
                bench.feed().store(*batch)
                follower = follower or Follower(bench.url)
            bench.check(SETTING)
            records = bench.records()
            assert follower is not None
            require_read(records, follower.news(), "tail")
            lines, table = (write_export(bench.url, form, directory / form) for form in ("jsonl", "parquet"))
            require_read(records, read_file_records(lines), "JSON Lines")
            require_read(records, read_file_records(table), "Parquet")
            with write_export(bench.url, "csv", directory / "csv").open(encoding="utf-8", newline="") as file:
                csv.field_size_limit(2**31 - 1)
                without_nulls = (line.replace("\0", "") for line in file)  # which Python 3.10 cannot read
                assert [(int(row["id"]), row["topic"]) for row in csv.DictReader(without_nulls)] == [
                    (record.id, record.topic) for record in records
                ]
            require_read(records, remodelled(bench.url, second), "remodel")
            require_read(records, copied(bench.url, stack.enter_context(other.fresh()), third), "copy")
            require_read(records, imported(lines, f"sqlite:///{directory}/new.db", fourth), "import")

    law()


def edge(payload: bytes) -> Any:
    """A decoder of the user's own: Python makes the value."""
    return eval(payload, {"Decimal": Decimal})  # noqa: S307 - only what stands in this file


DEAD: Final = [
    f"{{'a': {'[' * MAX_DEPTH}1{']' * MAX_DEPTH}}}",
    f"{{'a': {'[' * 400}1{']' * 400}}}",
    "(lambda one: one.append(one) or {'a': one})([])",
    f"{{'n': 10 ** {MAX_DIGITS}}}",
    "{'n': [10 ** 5000]}",
    "{'k' * 70_000: 1}",
    "{None: 1}",
    "{'a': object()}",
]


@pytest.mark.slow
def test_what_is_beyond_an_edge_is_a_dead_letter(site: Site) -> None:
    """In every model; its neighbours are stored."""
    routes = [{"topic": f"{model}/#", "model": model, "decode": f"{__name__}.edge"} for model in BUILTIN]
    bench = Workbench(site, *routes)
    sent = [(f"{model}/dead", payload.encode()) for model in BUILTIN for payload in DEAD]
    good = [(f"{model}/good", b"{'v': 1.0}") for model in BUILTIN]
    bench.send(*good, *sent, *good)
    assert [(letter.topic.decode(), letter.payload) for letter in bench.dead()] == sent
    assert bench.data() == [{"v": 1.0}] * 2 * len(BUILTIN)
