"""Many writers on one database: nothing is lost or doubled, and meeting each other is nothing to complain about."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import sqlalchemy as sa

from amqtt_db.database.engines import engine_for
from amqtt_db.database.schema import Schema
from amqtt_db.errors import DatabaseError
from amqtt_db.reader import read
from amqtt_db.testing.starting import connected
from amqtt_db.writer.replay import replay
from tests.database.engines.mill import Mill, complaints, until
from tests.database.engines.servers import Site
from tests.database.engines.test_limits import ROUTES, each_model
from tests.workbench import Sent, Workbench, routes

WRITERS = "abcd"
VALUES: tuple[Any, ...] = (1.5, "x", True, [1], None)


def _shuffled(writer: int) -> list[tuple[str, dict[str, Any]]]:
    """Messages of ever new topics, properties and kinds, in another order for each writer."""
    messages = []
    for number in range(36):
        some = {f"p{(number * 7 + step) % 23}": VALUES[(number + step + writer) % len(VALUES)] for step in range(4)}
        messages.append((f"t/{number % 11}", {"writer": writer, "number": number, **some}))
    random.Random(writer).shuffle(messages)
    return messages


@pytest.mark.slow
def test_a_new_file_that_many_open_at_once(tmp_path: Path) -> None:
    """None of them fails while another one initializes the file."""

    def connect(url: str, ready: Barrier) -> None:
        database = engine_for(url).open(write=True)
        ready.wait()
        database.connect().close()
        database.dispose()

    with ThreadPoolExecutor(8) as pool:
        for number in range(50):
            ready = Barrier(8)
            url = f"sqlite:///{tmp_path / str(number)}"
            assert [job.result() for job in [pool.submit(connect, url, ready) for _ in range(8)]] == [None] * 8


@pytest.mark.slow
@each_model
def test_four_writers_with_ever_new_shapes(model: str, site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """New topics, new properties, clashes of kinds: each message is stored once, as it was sent."""
    mills = [Mill(site, ROUTES[model], name=name) for name in WRITERS]
    sent = [_shuffled(writer) for writer in range(len(mills))]
    for mill, messages in zip(mills, sent, strict=True):
        for start in range(0, len(messages), 6):
            mill.send(*messages[start : start + 6])
    for mill in mills:
        mill.start()
    for mill in mills:
        mill.until_stored()
    found = [(record.id, record.topic, record.data()) for record in read(site.url)]
    assert len({id_ for id_, _, _ in found}) == len(found)
    assert Counter(_exact(topic, data) for _, topic, data in found) == Counter(
        _exact(topic, data) for messages in sent for topic, data in messages
    )
    assert not complaints(caplog)


def _exact(topic: str, data: dict[str, Any]) -> str:
    numbers = {name: float(value) if type(value) is int else value for name, value in data.items()}
    return repr((topic, sorted((name, repr(value)) for name, value in numbers.items() if value is not None)))


@pytest.mark.slow
def test_two_replays_at_once(site: Site) -> None:
    """Each dead letter is stored once, also when both meet in a counter that is new."""
    strict = {"topic": "#", "entity": {"v": "float"}, "mismatch": "reject"}
    bench = Workbench(site, strict)
    bench.send(*(("t", {"v": f"x{number}"}) for number in range(40)))
    assert len(bench.dead()) == 40
    bench.sql("DELETE FROM mqtt_counter")
    lenient = routes({"topic": "#", "model": "eav"})
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda _: list(replay(site.url, lenient)), range(2)))
    stored = [one.id for found in results for one in found if one.reason is None]
    assert len(stored) == len(set(stored)) == 40
    assert sorted(str(data["v"]) for data in bench.data()) == sorted(f"x{number}" for number in range(40))
    assert not bench.dead()
    assert bench.counts()["#"]["stored"] == 40


RIVALS = {
    "postgresql": (
        ("SET deadlock_timeout = '60s'",),
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()",
    ),
    "mysql": (
        ("CREATE TABLE heavy (n INT)", f"INSERT INTO heavy VALUES {', '.join(['(0)'] * 5000)}"),
        # The server answers from a cache as long as it is asked more than ten times a second.
        "SELECT SLEEP(0.2) + count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'",
    ),
}
"""By engine: what makes a transaction win a deadlock, and what counts the transactions that wait."""


@pytest.mark.parametrize("engine", RIVALS)
def test_a_deadlock_is_no_reason_to_complain(
    engine: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    """The victim retries at once and logs nothing."""
    site: Site = request.getfixturevalue(engine)
    strengthen, waiting = RIVALS[engine]
    mill = Mill(site)
    mill.start()
    mill.send(("t", {"v": 1}))
    mill.until_stored()
    rival = engine_for(site.url).open(write=True)
    with rival.begin() as connection:
        for statement in (*strengthen, "UPDATE mqtt_counter SET dead = dead + 0 * journal"):
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql("SELECT mqtt_counter.stored FROM mqtt_counter FOR UPDATE")
        mill.send(("t", {"v": 2}))
        with connected(site.url) as observer:
            until(lambda: observer.exec_driver_sql(waiting).scalar_one() > 0)
        connection.exec_driver_sql("SELECT position FROM mqtt_journal FOR UPDATE")
    rival.dispose()
    mill.until_stored()
    assert [record.data() for record in read(site.url)] == [{"v": 1.0}, {"v": 2.0}]
    assert not complaints(caplog)


@pytest.mark.slow
def test_a_table_that_refuses_its_columns_after_a_death(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a writer dies while it reduces the columns, the next one can finish."""
    bench = Workbench(site, {"topic": "#", "max_columns": 5000})
    payload = {f"p{index}": float(index) for index in range(2500)}
    batch = bench.batch(Sent("t", {"a": 1}), Sent("t", payload))
    with monkeypatch.context() as patched:
        patched.setattr(Schema, "reduce_columns", _die)
        patched.setattr(Schema, "learn", _die)
        with pytest.raises(KeyboardInterrupt):
            bench.store(batch)
    bench.restart()
    for _ in range(3):
        try:
            bench.store(batch)
            break
        except (sa.exc.SQLAlchemyError, DatabaseError):
            bench.writer.repair(batch)
            bench.restart()
    assert not bench.dead()
    assert bench.data() == [{"a": 1.0}, payload]


def test_tables_of_a_batch_are_registered_together(site: Site) -> None:
    """One statement registers all, if a writer that dies meanwhile leaves nothing; else at most one has no table."""
    bench = Workbench(site)
    batch = bench.batch(*(Sent(f"t{number}", {"v": number}) for number in range(5)))
    statements: list[str] = []

    def note(_: object, __: object, statement: str, *___: object) -> None:
        statements.append(statement)
        if "CREATE TABLE" in statement and "t4" in statement:
            raise KeyboardInterrupt

    sa.event.listen(bench.writer._database, "before_cursor_execute", note)
    with pytest.raises(KeyboardInterrupt):
        bench.store(batch)
    registered = sum("INSERT INTO mqtt_table" in statement for statement in statements)
    assert registered == (5 if site.engine == "mysql" else 1)
    bench.restart()
    try:
        bench.store(batch)
    except sa.exc.DBAPIError:
        assert site.engine == "mysql"  # its DDL cannot be rolled back
        assert bench.writer.repair(batch)
        bench.store(batch)
    assert bench.data() == [{"v": float(number)} for number in range(5)]


def _die(*_: object) -> bool:
    raise KeyboardInterrupt
