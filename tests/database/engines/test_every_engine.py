"""What every engine must do, beyond what the tests of the models and of the writer prove on each."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import sqlalchemy as sa

from amqtt_db.database.engines import engine_for
from tests.database.engines.servers import Site
from tests.values import NASTY_NUMBERS, NASTY_TEXT, same
from tests.workbench import Workbench

MODELS = ("wide", "eav", "narrow", "document")


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_nasty_values_come_back(model: str, site: Site) -> None:
    """Every text and number that some database does not hold, alone and in a list, from every model."""
    bench = Workbench(site, {"topic": "#", "model": model})
    values = [*NASTY_TEXT, *NASTY_NUMBERS]
    bench.send(*(("t", {"v": value, "l": [value]}) for value in values))
    assert not bench.dead()
    found = [data["v"] for data in bench.data()]
    assert same(found, [_as_read(value) for value in values])
    assert same([data["l"] for data in bench.data()], [[value] for value in values])


CLOSED = {"sqlite": "closed database", "postgresql": "the connection is closed", "mysql": r"\(0, ''\)"}
"""The drivers' errors for a closed connection."""


def test_a_connection_that_cannot_be_prepared_is_closed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeated attempts at a server that rejects a setting, or a file that is not a database, leave none open."""
    if site.engine == "sqlite":
        (site.path / "mqtt.db").write_bytes(b"no database" * 100)
    else:
        rejected = "SET no_such_setting_of_a_server = 1"
        name, value = {"mysql": ("_SET", rejected), "postgresql": ("_setting", lambda *_: rejected)}[site.engine]
        monkeypatch.setattr(f"amqtt_db.database.engines.{site.engine}_session.{name}", value)
    made: list[Any] = []
    database = engine_for(site.url).open(write=True)
    connect = database.dialect.connect

    def noted(*arguments: Any, **options: Any) -> Any:
        made.append(connect(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(database.dialect, "connect", noted)
    with pytest.raises(sa.exc.DBAPIError):
        database.connect()
    (connection,) = made
    with pytest.raises(database.dialect.loaded_dbapi.Error, match=CLOSED[site.engine]):
        connection.cursor().execute("SELECT 1")
    database.dispose()


def _as_read(value: Any) -> Any:
    return float(value) if type(value) is int and abs(value) <= 2**53 else value


DECLARED: dict[str, tuple[str, list[Any]]] = {
    "at": ("datetime", ["0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59.999999+00:00", "1969-12-31T23:59:59+05:00"]),
    "day": ("date", ["0001-01-01", "9999-12-31"]),
    "clock": ("time", ["00:00:00", "23:59:59.999999"]),
    "amount": ("decimal", ["1.10", "0", "-0", "1E+5", "1E-20000", "NaN", "Infinity", "9" * 200]),
    "key": ("uuid", ["12345678-1234-5678-1234-567812345678"]),
    "n": ("int", [2**63 - 1, -(2**63), 0]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DECLARED)
def test_declared_values_come_back(name: str, site: Site) -> None:
    """The extremes of each declared type, exactly."""
    kind, values = DECLARED[name]
    bench = Workbench(site, {"topic": "#", "entity": {name: kind}})
    bench.send(*(("t", {name: value}) for value in values))
    (site.path / "reference").mkdir()
    reference = Workbench(site.path / "reference", {"topic": "#", "entity": {name: kind}})
    reference.send(*(("t", {name: value}) for value in values))
    found, wanted = bench.data(), reference.data()
    reference.close()
    assert not bench.dead()
    assert [str(data[name]) for data in found] == [str(data[name]) for data in wanted]
    assert [type(data[name]) for data in found] == [type(data[name]) for data in wanted]


@pytest.mark.slow
def test_more_columns_than_the_engine_has(site: Site) -> None:
    """2,500 properties with no limit of the route's own to speak of: all are stored, most in columns."""
    bench = Workbench(site, {"topic": "#", "max_columns": 5000})
    payload = {f"p{index}": float(index) for index in range(2500)}
    bench.send(("t", payload), ("t", {"p7": 1}))
    assert not bench.dead()
    assert bench.data() == [payload, {"p7": 1.0}]


def test_rows_too_big_for_a_page_spill(site: Site) -> None:
    """Text in every column, each too short to be stored out of line; the next message is fine."""
    bench = Workbench(site)
    payload = {f"p{index}": f"{index:024}" for index in range(400)}
    bench.send(("t", payload), ("t", {"p7": "x"}), ("t", payload))
    assert not bench.dead()
    assert bench.data() == [payload, {"p7": "x"}, payload]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["eav", "narrow"])
def test_writers_that_meet_the_same_keys_at_once(model: str, site: Site) -> None:
    """Each key gets one id, and nothing is lost."""
    benches = [Workbench(site, {"topic": "#", "model": model}, token=token) for token in "abcd"]
    errors: list[BaseException] = []

    def work(index: int, bench: Workbench) -> None:
        try:
            for step in range(6):
                bench.send(*((f"t/{(n * (index + 1)) % 7}", {f"p{(n + step) % 9}": n}) for n in range(9)))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate(benches)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(benches[0].records()) == 4 * 6 * 9


def test_reading_cannot_write(site: Site) -> None:
    """A connection for reading refuses to change anything."""
    bench = Workbench(site)
    bench.send(("t", {"v": 1}))
    reader = engine_for(site.url).open(write=False)
    with pytest.raises(sa.exc.DBAPIError), reader.begin() as connection:
        connection.exec_driver_sql("UPDATE t SET v = 2")
    reader.dispose()
    assert bench.data() == [{"v": 1.0}]


def test_a_constraint_of_the_users_own_costs_one_message(site: Site) -> None:
    """One dead letter of a hundred, without the value in its reason."""
    bench = Workbench(site)
    bench.send(("t", {"v": 0}))
    if site.engine == "sqlite":
        bench.sql("CREATE TRIGGER hot BEFORE INSERT ON t WHEN NEW.v = 42 BEGIN SELECT RAISE(ABORT, 'too hot'); END")
    else:
        bench.sql("ALTER TABLE t ADD CONSTRAINT hot CHECK (v <> 42)")
    bench.send(*(("t", {"v": value}) for value in range(1, 101)))
    assert [data["v"] for data in bench.data()] == [float(value) for value in range(101) if value != 42]
    (letter,) = bench.dead()
    assert (letter.step, letter.payload) == ("store", b'{"v": 42}')
    assert "42" not in letter.reason
