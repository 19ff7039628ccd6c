"""The laws for every model, as tests that a subclass inherits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Final

import attrs
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as effort
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from amqtt_db.models.base import Destination, Model
from amqtt_db.models.binding import BoundModel, bind
from amqtt_db.models.calls import lookup_faults
from amqtt_db.models.document import Document
from amqtt_db.models.eav import Eav
from amqtt_db.models.narrow import Narrow
from amqtt_db.models.spec import from_spec, to_spec
from amqtt_db.models.wide import Wide
from amqtt_db.record import Record, Shape
from amqtt_db.tagged import EncodedJson, loads
from amqtt_db.testing import payload_routes, pure, strategies
from amqtt_db.testing.answer import Told, require, require_same, same
from amqtt_db.testing.bench import Bench
from amqtt_db.testing.databases import DATABASES, Database
from amqtt_db.testing.history import History, Sent, Setting
from amqtt_db.testing.machine import Life
from amqtt_db.testing.replacing import replacing_faults
from amqtt_db.testing.servers import needed

LONG: Final = 500
"""From this number of examples on, every database gets all of them."""

NEIGHBOURS: Final[Sequence[Model]] = (Document(), Eav(), Narrow(), Wide("neighbour"))
"""Models that may share a database with the one under test."""


def tries(share: int, database: Database | None = None) -> effort:
    """Return hypothesis settings with one in ``share`` of the profile's examples, fewer on slow databases."""
    asked = effort().max_examples
    spared = database is not None and not database.thorough and asked < LONG
    return effort(
        max_examples=max(2, asked // share // (3 if spared else 1)),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
        phases=[phase for phase in effort().phases if phase is not Phase.explain],
    )


class ModelContract:
    """The laws for every model; subclass it and set ``model``, and pytest runs them.

    ::

        class TestMine(ModelContract):
            model = Mine()

    Set ``databases`` to run the laws on some databases only.  Servers are started when the first law needs them; a law
    is skipped if its server is missing.  The hypothesis profile sets the number of examples.
    """

    model: ClassVar[Model]
    databases: ClassVar[Sequence[Database]] = DATABASES
    timed: ClassVar[bool] = False
    """True to test it with the time in the keys of its tables, as in hypertables."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run the laws that need a database on each of them."""
        if "database" in metafunc.fixturenames:
            metafunc.parametrize("database", self.databases, ids=str, indirect=True)

    @pytest.fixture
    def database(self, request: pytest.FixtureRequest) -> Database:
        """Return the database for a law; skip the law if its server is missing."""
        found: Database = request.param
        with needed(found.name):
            found.prepare()
        return found

    def _bound(self, destination: Destination) -> BoundModel:
        return bind(self.model, destination, timed=self.timed)

    def _bench(self, database: Database, setting: Setting) -> Bench:
        return Bench.of(database, self.model, setting, timed=self.timed)

    def test_the_model_is_made_again_from_its_name_and_options(self) -> None:
        """A model rebuilt from its class's dotted path and its options equals the original."""
        name = f"{type(self.model).__module__}.{type(self.model).__qualname__}"
        require(attrs.has(type(self.model)), f"{name} is not an attrs class: decorate it with @attrs.frozen")
        require("<locals>" not in name, f"{name} cannot be imported: define it at the top of a module")
        again, timed = from_spec(to_spec(self.model, timed=self.timed))
        require(hash(self.model) == hash(again), f"{name} made again is another model")
        require(again == self.model and timed == self.timed, f"{name} made again is another model")

    def test_rows_name_only_declared_tables_and_columns(self) -> None:
        """The rows of any record fit the tables that the model declares for its shape."""

        @given(strategies.places(), strategies.records())
        @tries(1)
        def law(destination: Destination, record: Record) -> None:
            faults = [
                *pure.table_faults(self._bound(destination), record.shape),
                *pure.row_faults(self._bound(destination), record),
            ]
            require(not faults, "\n".join(faults[:5]))

        law()

    def test_lookups_have_names_of_their_own(self) -> None:
        """A lookup is declared the same wherever it is used, and no table has its name."""
        first, *others = self.model.tables(Shape(()))
        tables = (attrs.evolve(first, columns=[*first.columns, *self.model.extra_columns()]), *others)
        faults = list(lookup_faults(tables))
        require(not faults, "\n".join(faults))

    def test_tables_only_grow(self) -> None:
        """The tables for two combined shapes have all columns that each shape needs."""

        @given(strategies.places(), strategies.shapes(), strategies.shapes())
        @tries(1)
        def law(destination: Destination, one: Shape, other: Shape) -> None:
            both = _columns_by_table(self._bound(destination), Shape((*one.properties, *other.properties)))
            for shape in (one, other):
                for key, pairs in _columns_by_table(self._bound(destination), shape).items():
                    lost = pairs - both.get(key, set())
                    require(not lost, f"table {key} has no columns for {sorted(lost)} once there are others")

        law()

    def test_rows_mean_the_records_they_were_made_of(self) -> None:
        """Rows in plain lists are read back as the same records."""

        @given(st.data(), strategies.places())
        @tries(1)
        def law(data: st.DataObject, destination: Destination) -> None:
            records = data.draw(_several(strategies.records()))
            model = self._bound(destination)
            require_same(map(pure.meant, records), pure.read_plainly(model, pure.stored_rows(model, records)))

        law()

    def test_fast_and_plain_row_makers_agree(self) -> None:
        """The maker for a batch makes the same rows as ``write``, for any set of columns."""

        @given(st.data(), strategies.places(), strategies.shapes(), strategies.shapes())
        @tries(1)
        def law(data: st.DataObject, destination: Destination, shape: Shape, more: Shape) -> None:
            records = data.draw(st.lists(strategies.records(st.just(shape)), min_size=1, max_size=3))
            filled = Shape(tuple(dict.fromkeys((*shape.properties, *more.properties))))
            known = [pair for pair in filled.properties if data.draw(st.booleans(), label=f"{pair} has a column")]
            model = self._bound(destination)
            cells = pure.cells_to_fill(model, filled, known)
            fast = model.maker(shape, cells)(records)
            plain = model.plain_maker(shape, cells)(records)
            for key in cells:
                require(same(_sorted(fast, key), _sorted(plain, key)), _disagreement(key, cells[key], fast, plain))

        law()

    def test_fast_and_plain_readers_agree(self) -> None:
        """The reader for many rows returns the same as ``read``, in the same order."""

        @given(st.data(), strategies.places())
        @tries(1)
        def law(data: st.DataObject, destination: Destination) -> None:
            model = self._bound(destination)
            rows = pure.stored_rows(model, data.draw(_several(strategies.records())))
            fast, plain = pure.read_quickly(model, rows), pure.read_plainly(model, rows)
            require_same(plain, fast)
            require([(one.id, one.part) for one in plain] == [(one.id, one.part) for one in fast], "another order")

        law()

    def test_what_is_written_reads_back(self, database: Database) -> None:
        """read(write(x)) == x: every value with its type, −0.0 and NaN, every part, every envelope."""

        @given(strategies.histories())
        @tries(4, database)
        def law(history: History) -> None:
            with self._bench(database, history.setting) as bench:
                bench.store(history)
                bench.check(history.setting)

        law()

    def test_the_worst_histories_read_back(self, database: Database) -> None:
        """All names, topics and values that once broke something, and empty payloads."""
        for history in strategies.nasty_histories():
            with self._bench(database, history.setting) as bench:
                bench.store(history)
                bench.check(history.setting)

    def test_a_replayed_range_is_stored_once(self, database: Database) -> None:
        """A writer may die before any commit, and any range may be offered again: every record is stored once."""

        @given(strategies.histories(), st.integers(0, 3), st.data())
        @tries(5, database)
        def law(history: History, commits: int, data: st.DataObject) -> None:
            with self._bench(database, history.setting) as bench:
                feed = bench.feed()
                for batch in history.batches:
                    feed.sent.extend(batch)
                    feed.crash(len(batch), commits)
                    bench.check(history.setting)
                    feed.flush(len(batch))
                feed.replay(data.draw(st.integers(0, feed.stored - 1)))
                bench.check(history.setting)

        law()

    def test_growing_shapes_leave_old_rows_alone(self, database: Database) -> None:
        """New properties and kinds leave stored records unchanged, for readers and in the tables."""

        @given(strategies.histories())
        @tries(5, database)
        def law(history: History) -> None:
            with self._bench(database, history.setting) as bench:
                before: Mapping[str, list[dict[str, Any]]] = {}
                for batch in history.batches:
                    bench.feed().store(*batch)
                    after = bench.tables()
                    for name, rows in before.items():
                        _require_kept(name, rows, after.get(name, []))
                    bench.check(history.setting)
                    before = after

        law()

    def test_the_order_of_shapes_decides_only_names(self, database: Database) -> None:
        """The same messages in another order give the same records, and columns for the same properties and kinds."""

        @given(strategies.histories(), st.randoms(use_true_random=False))
        @tries(8, database)
        def law(history: History, random: Any) -> None:
            setting = attrs.evolve(history.setting, max_columns=None)  # which properties get a column may differ
            order = list(range(len(history.messages)))
            random.shuffle(order)
            with self._bench(database, setting) as first, self._bench(database, setting) as second:
                for bench, indexes in ((first, sorted(order)), (second, order)):
                    for index in indexes:
                        bench.feed().store(history.messages[index])
                there = [attrs.evolve(one, id=_moved(one.id, order)) for one in second.read()]
                require_same(first.read(), there, first.reasons() + second.reasons())
                require(first.pairs() == second.pairs(), f"other columns: {first.pairs()} or {second.pairs()}")

        law()

    def test_another_model_reads_back_the_same(self, database: Database) -> None:
        """Next to a built-in model in one database, both return equal records and only their own."""

        @given(strategies.histories(st.builds(Setting, entity=st.just({}))), st.sampled_from(NEIGHBOURS))
        @tries(4, database)
        def law(history: History, neighbour: Model) -> None:
            routes = [Setting("a/#").route(self.model, timed=self.timed), Setting("b/#").route(neighbour)]
            with Bench(database, *routes) as bench:
                for batch in history.batches:
                    bench.feed().store(*_twice(batch))
                here = [attrs.evolve(one, topic=one.topic[2:]) for one in bench.read("a/#")]
                there = [attrs.evolve(one, topic=one.topic[2:], id=one.id - 1) for one in bench.read("b/#")]
                require_same(there, here, bench.reasons())

        law()

    def test_reshaped_payloads_read_back_the_same(self, database: Database) -> None:
        """Whatever a route makes of payloads: the same records, dead letters and newest values as of another model."""

        @given(payload_routes.route_keys(), payload_routes.published(), st.sampled_from(NEIGHBOURS))
        @tries(8, database)
        def law(keys: payload_routes.RouteKeys, sent: Sequence[payload_routes.Published], neighbour: Model) -> None:
            model = self.model
            routes = [
                payload_routes.make_route("a/s/{x}/{y}", model, keys, timed=self.timed),
                payload_routes.make_route("b/s/{x}/{y}", neighbour, keys),
            ]
            with Bench(database, *routes) as bench:
                for prefix in ("a/", "b/"):
                    bench.feed(prefix[0]).store(*(attrs.evolve(one, topic=prefix + one.topic) for one in sent))
                here, there = (list(map(_unplaced, bench.read(topic))) for topic in ("a/#", "b/#"))
                require_same(there, here, bench.reasons())
                require(bench.counts("a/s/{x}/{y}") == bench.counts("b/s/{x}/{y}"), "other counts")
                require(bench.newest("a/#") == bench.newest("b/#"), "other newest values")

        law()

    def test_a_replaced_row_is_the_newest(self, database: Database) -> None:
        """In tables that replace rows: one for each key, whatever order batches have, and whatever is offered again."""
        bound = self._bound(Destination("", "{site}/#"))

        @given(strategies.histories(), st.data())
        @tries(5, database)
        def law(history: History, data: st.DataObject) -> None:
            with self._bench(database, history.setting) as bench:
                for batch in history.batches:
                    feed = bench.feed(data.draw(st.sampled_from("ab")))
                    feed.store(*batch)
                    feed.replay(data.draw(st.integers(0, feed.stored)))
                faults = list(replacing_faults(bench.url, bound, bench.records()))
                require(not faults, "\n".join([*faults[:3], *bench.reasons()]))

        if any(table.replaces for table in bound.tables()):
            law()

    def test_a_life_of_crashes_replays_and_drift(self, database: Database) -> None:
        """Publish, flush, crash, replay, new property, type clash, second writer, restart: same as a plain list."""
        life: Any = partial(Life, database, self.model, timed=self.timed)
        run_state_machine_as_test(life, settings=effort(tries(6, database), stateful_step_count=15))


def _unplaced(one: Told) -> Told:
    """Return a record without what tells its journal and the first level of its topic."""
    return attrs.evolve(one, topic=one.topic[2:], id=one.id % 2**40)


def _several(records: st.SearchStrategy[Record]) -> st.SearchStrategy[list[Record]]:
    return st.lists(records, min_size=1, max_size=3, unique_by=lambda record: (record.id, record.part))


def _columns_by_table(model: BoundModel, shape: Shape) -> dict[str, set[Any]]:
    return {table.key: {*table.columns, *table.properties} for table in model.tables(shape)}


def _sorted(made: Mapping[str, Sequence[tuple[Any, ...]]], key: str) -> list[tuple[Any, ...]]:
    return sorted((tuple(map(_cell_value, row)) for row in made.get(key, [])), key=repr)


def _cell_value(cell: Any) -> Any:
    """Return the value of a cell that a maker has already encoded."""
    return loads(str(cell)) if isinstance(cell, EncodedJson) else cell


def _disagreement(key: str, cells: Sequence[Any], fast: Mapping[str, Any], plain: Mapping[str, Any]) -> str:
    return f"table {key}, cells {cells}:\nthe maker makes {fast.get(key)}\nwrite() makes   {plain.get(key)}"


def _require_kept(name: str, before: Iterable[Mapping[str, Any]], after: Iterable[Mapping[str, Any]]) -> None:
    """Require that a table still has its rows, unchanged in its old columns."""
    rows = [dict(row) for row in before]
    columns = [*rows[0]] if rows else []
    text: Callable[[Mapping[str, Any]], str] = lambda row: repr([row.get(name, "no column") for name in columns])  # noqa: E731
    lost = Counter(map(text, rows)) - Counter(map(text, after))
    require(not lost, f"table {name} has lost or changed rows with {columns}: {list(lost)[:3]}")


def _moved(id_: int, order: Sequence[int]) -> int:
    """Return the id that a message would have in the original order; positions count from 1."""
    return id_ - id_ % 2**40 + order[id_ % 2**40 - 1] + 1


def _twice(batch: Sequence[Sent]) -> list[Sent]:
    return [attrs.evolve(sent, topic=prefix + sent.topic) for sent in batch for prefix in ("a/", "b/")]
