"""What people and servers do to a database while it is written to: in the end every message is there once, as sent."""

from __future__ import annotations

import gc
import re
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import pytest
import sqlalchemy as sa

from amqtt_db.reader import read
from amqtt_db.testing.servers import needed
from amqtt_db.testing.starting import STARTERS, connected, execute
from amqtt_db.writer import loop as drain
from tests.database.engines.mill import Mill, complaints, until
from tests.database.engines.servers import Site
from tests.docs.test_docs import ROOT
from tests.workbench import Sent, Workbench

SERVERS = ("postgresql", "mysql")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other faster than a user needs them."""
    monkeypatch.setattr(drain, "FIRST_WAIT", 0.02)
    monkeypatch.setattr(drain, "LONGEST_WAIT", 0.2)


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Site:
    """A new database on each server in turn."""
    found: Site = request.getfixturevalue(request.param)
    return found


def values(first: int, count: int) -> list[tuple[str, dict[str, Any]]]:
    """Return distinguishable messages."""
    return [("t", {"n": float(number), "s": f"no. {number}"}) for number in range(first, first + count)]


def stored(url: str) -> list[dict[str, Any]]:
    """Return the data that reads back, in the order of arrival."""
    return [record.data() for record in sorted(read(url), key=lambda record: record.id)]


def sent(first: int, count: int) -> list[dict[str, Any]]:
    """Return the data that must read back of :func:`values`."""
    return [data for _, data in values(first, count)]


@attrs.define
class Running:
    """A mill that has stored its first ten messages."""

    mill: Mill
    site: Site

    @classmethod
    def on(cls, site: Site, url: str | None = None) -> Running:
        """Start one."""
        mill = Mill(site, url=url)
        mill.start()
        mill.send(*values(0, 10))
        mill.until_stored()
        return cls(mill, site)

    def goes_on(self) -> list[dict[str, Any]]:
        """Send ten more; what is stored then."""
        self.mill.send(*values(10, 10))
        self.mill.until_stored()
        return stored(self.site.url)


def by_hand(site: Site, *statements: str) -> None:
    """Execute statements, each in its own transaction."""
    if site.engine != "sqlite":
        return execute(site.url, *statements)
    with closing(sqlite3.connect(site.path / "mqtt.db", isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
    return None


CASCADE = {"postgresql": " CASCADE"}  # there, a view would be in the way


def test_a_table_that_is_dropped_is_made_again(site: Site) -> None:
    """Messages that come afterwards are stored."""
    running = Running.on(site)
    by_hand(site, f"DROP TABLE t{CASCADE.get(site.engine, '')}")
    assert running.goes_on() == sent(10, 10)


@pytest.mark.slow
@pytest.mark.parametrize(
    "table", ["mqtt_counter", "mqtt_session", "mqtt_dead_letter", "mqtt_dead_segment", "mqtt_meta", "mqtt_view"]
)
def test_a_table_of_the_projects_own_that_is_dropped_is_made_again(table: str, site: Site) -> None:
    """No message is lost or doubled for it."""
    running = Running.on(site)
    by_hand(site, f"DROP TABLE {table}")
    running.mill.send(("t", "no object, but text"), ("u/" + table, {"n": 1.0}))
    found = running.goes_on()
    assert [data for data in found if "s" in data] == sent(0, 20)
    assert {"n": 1.0} in found


def _views(url: str) -> list[str]:
    with connected(url) as connection:
        return sa.inspect(connection).get_view_names()


def test_a_column_that_is_dropped_is_made_again(site: Site) -> None:
    """Only its contents are lost."""
    running = Running.on(site)
    if site.engine == "sqlite":
        until(lambda: _views(site.url) == ["t_view"])
        by_hand(site, "DROP VIEW t_view")
    by_hand(site, f"ALTER TABLE t DROP COLUMN s{CASCADE.get(site.engine, '')}")
    assert running.goes_on() == [{"n": data["n"]} for data in sent(0, 10)] + sent(10, 10)


def test_a_column_added_by_hand_is_left_alone(site: Site) -> None:
    """A column with the name that a property would get is left alone too."""
    running = Running.on(site)
    by_hand(site, "ALTER TABLE t ADD COLUMN comment VARCHAR(20)", "ALTER TABLE t ADD COLUMN later INTEGER")
    running.mill.send(("t", {"n": 99.0, "later": "text", "comment": True}))
    assert running.goes_on() == [*sent(0, 10), {"n": 99.0, "later": "text", "comment": True}, *sent(10, 10)]
    with connected(site.url) as connection:
        assert set(connection.exec_driver_sql("SELECT comment, later FROM t")) == {(None, None)}


def test_a_column_that_nobody_fills_is_named(server: Site, caplog: pytest.LogCaptureFixture) -> None:
    """No message is blamed: they wait until the column has a default or allows NULL."""
    running = Running.on(server)
    execute(server.url, "ALTER TABLE t ADD COLUMN owner VARCHAR(20) NOT NULL DEFAULT 'nobody'")
    execute(server.url, "ALTER TABLE t ALTER COLUMN owner DROP DEFAULT")
    running.mill.send(*values(10, 10))
    until(lambda: bool(complaints(caplog)))
    assert "column owner of table t was added by hand, and is NOT NULL" in complaints(caplog)[0]
    execute(server.url, "ALTER TABLE t ALTER COLUMN owner SET DEFAULT 'nobody'")
    running.mill.until_stored()
    assert stored(server.url) == sent(0, 20)


def test_the_same_on_sqlite(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """On SQLite, the table must have been created again by hand."""
    site = Site(tmp_path, f"sqlite:///{tmp_path / 'mqtt.db'}")
    with site.stack:
        running = Running.on(site)
        with connected(site.url) as connection:
            made = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE name = 't'").scalar_one()
        again = made.replace("id BIGINT NOT NULL", "owner TEXT NOT NULL, id BIGINT NOT NULL")
        assert again != made
        by_hand(site, "DROP TABLE t", again)
        running.mill.send(*values(10, 10))
        until(lambda: bool(complaints(caplog)))
        assert "column owner of table t was added by hand, and is NOT NULL" in complaints(caplog)[0]
        by_hand(site, "DROP TABLE t", made)
        running.mill.until_stored()
        assert stored(site.url) == sent(10, 10)


def test_an_index_that_is_dropped_costs_nothing_but_time(site: Site) -> None:
    """Writing and reading go on."""
    running = Running.on(site)
    with connected(site.url) as connection:
        names = [index["name"] for index in sa.inspect(connection).get_indexes("t")]
    assert names
    on_table = " ON t" if site.engine == "mysql" else ""
    by_hand(site, *(f"DROP INDEX {name}{on_table}" for name in names))
    assert running.goes_on() == sent(0, 20)


@contextmanager
def guest(site: Site, *grants: str) -> Iterator[str]:
    """The URL of a new user who has only ``grants``; {} stands for the user."""
    url = sa.make_url(site.url)
    name = f"{url.database}_guest"
    user = name if site.engine == "postgresql" else f"{name}@localhost"
    execute(site.url, f"CREATE ROLE {name} LOGIN" if site.engine == "postgresql" else f"CREATE USER {user}")
    execute(site.url, *(grant.format(user) for grant in grants))
    try:
        yield url.set(username=name).render_as_string(hide_password=False)
    finally:
        owned = [f"DROP OWNED BY {name} CASCADE", f"DROP ROLE {name}"]
        execute(site.url, *(owned if site.engine == "postgresql" else [f"DROP USER {user}"]))


def grants(site: Site) -> tuple[str, ...]:
    """Return the privileges that the documentation says the user of the URL needs."""
    page = (ROOT / "docs" / "databases.md").read_text(encoding="utf-8")
    on = "SCHEMA public" if site.engine == "postgresql" else "mqtt.*"
    ((privileges,),) = (re.findall(rf"^GRANT ([\w, ]+) ON {re.escape(on)} TO mqtt;$", page, re.MULTILINE),)
    return (f"GRANT {privileges} ON {on.replace('mqtt', str(sa.make_url(site.url).database))} TO {{}}",)


def test_the_documented_grants_are_enough(server: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Tables, columns, views, dead letters."""
    execute(server.url, *(["REVOKE CREATE ON SCHEMA public FROM public"] if server.engine == "postgresql" else []))
    with guest(server, *grants(server)) as url:
        running = Running.on(server, url)
        running.mill.send(("t", {"n": "text"}), ("u", b"\xff".hex()))
        assert running.goes_on()[:10] == sent(0, 10)
        running.mill.end()
    assert not complaints(caplog)


def test_privileges_that_come_late(server: Site, caplog: pytest.LogCaptureFixture) -> None:
    """One line names the grant, and once it is given everything is stored."""
    execute(server.url, *(["REVOKE CREATE ON SCHEMA public FROM public"] if server.engine == "postgresql" else []))
    few = () if server.engine == "postgresql" else (f"GRANT SELECT ON {sa.make_url(server.url).database}.* TO {{}}",)
    with guest(server, *few) as url:
        mill = Mill(server, url=url)
        mill.start()
        mill.send(*values(0, 10))
        until(lambda: bool(complaints(caplog)))
        user = sa.make_url(url).username
        whole = user if server.engine == "postgresql" else f"{user}@localhost"
        execute(server.url, *(grant.format(whole) for grant in grants(server)))
        mill.until_stored()
        mill.end()
        assert stored(server.url) == sent(0, 10)
    (complaint,) = complaints(caplog)
    assert "GRANT" in complaint


def test_privileges_that_are_taken_away_and_given_back(server: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing becomes a dead letter."""
    with guest(server, *grants(server)) as url:
        running = Running.on(server, url)
        user = sa.make_url(url).username
        database = sa.make_url(url).database
        revoke, grant = {
            "postgresql": (f"REVOKE INSERT ON t FROM {user}", f"GRANT INSERT ON t TO {user}"),
            "mysql": (
                f"REVOKE INSERT ON {database}.* FROM {user}@localhost",
                f"GRANT INSERT ON {database}.* TO {user}@localhost",
            ),
        }[server.engine]
        with connected(server.url) as administrator:
            administrator.exec_driver_sql(revoke)
            disconnect(administrator)
        running.mill.send(*values(10, 10))
        until(lambda: any("GRANT" in complaint for complaint in complaints(caplog)))
        execute(server.url, grant)
        running.mill.until_stored()
        running.mill.end()
        assert stored(server.url) == sent(0, 20)


OTHERS = {
    "postgresql": "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
    "mysql": "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()",
}
KILL = {"postgresql": "SELECT pg_terminate_backend({})", "mysql": "KILL {}"}


def disconnect(connection: sa.Connection) -> None:
    """End all connections to a database but this one: settings are for new ones."""
    dialect = connection.dialect.name
    for session in connection.exec_driver_sql(OTHERS[dialect]).scalars().all():
        with suppress(sa.exc.OperationalError):  # it has just ended by itself
            connection.exec_driver_sql(KILL[dialect].format(session))


def test_one_connection_is_enough_and_none_is_waited_for(server: Site, caplog: pytest.LogCaptureFixture) -> None:
    """A writer does not need a second connection; if there is none, work that needs it waits."""
    with guest(server, *grants(server)) as url:
        user = sa.make_url(url).username
        allow = {"postgresql": f"ALTER ROLE {user} CONNECTION LIMIT 1"}.get(
            server.engine, f"ALTER USER {user}@localhost WITH MAX_USER_CONNECTIONS 1"
        )
        execute(server.url, allow)
        with connected(url) as occupied:
            occupied.exec_driver_sql("SELECT 1")
            mill = Mill(server, {"topic": "#", "model": "eav"}, url=url)
            mill.start()
            mill.send(*values(0, 10))
            until(lambda: bool(complaints(caplog)))
        mill.until_stored()
        mill.end()
        assert stored(server.url) == sent(0, 10)
    assert len(complaints(caplog)) == 1


BLOCKING = {
    "postgresql": (
        "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NEW; END $$",
        "CREATE TRIGGER hold BEFORE INSERT ON t FOR EACH ROW WHEN (NEW.n = 500) EXECUTE FUNCTION hold()",
    ),
    "mysql": (
        "CREATE TRIGGER hold BEFORE INSERT ON t FOR EACH ROW IF NEW.n = 500 THEN DO GET_LOCK('hold', 60); END IF",
    ),
}
"""By engine: how to make a load stop halfway while a lock is held."""

HOLD = {"postgresql": "SELECT pg_advisory_lock(4711)", "mysql": "SELECT GET_LOCK('hold', 60)"}
HELD_UP = {
    "postgresql": "SELECT pid FROM pg_stat_activity WHERE wait_event = 'advisory' AND datname = current_database()",
    "mysql": "SELECT id FROM information_schema.processlist WHERE state = 'User lock' AND db = DATABASE()",
}


def test_a_connection_killed_in_the_middle_of_a_load(server: Site) -> None:
    """Half of the rows are already with the server, and in the end each is there once."""
    running = Running.on(server)
    execute(server.url, *BLOCKING[server.engine])
    with connected(server.url) as connection:
        connection.exec_driver_sql(HOLD[server.engine])
        running.mill.send(*values(10, 1000))
        until(lambda: bool(connection.exec_driver_sql(HELD_UP[server.engine]).scalars().all()))
        victim = connection.exec_driver_sql(HELD_UP[server.engine]).scalars().one()
        connection.exec_driver_sql(KILL[server.engine].format(victim))
    running.mill.until_stored()
    assert stored(server.url) == sent(0, 1010)


def test_a_transaction_that_idles_too_long(postgresql: Site) -> None:
    """The server ends it; the batch is stored by the next one."""
    bench = Workbench(postgresql)
    bench.send(*(Sent(*value) for value in values(0, 10)))
    batch = bench.batch(*(Sent(*value) for value in values(10, 10)))
    mine = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid = {}"

    def dawdle(connection: sa.Connection) -> None:
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = '50ms'")  # sessions set it to 0
        with connected(postgresql.url) as observer:
            until(lambda: observer.exec_driver_sql(mine.format(pid)).scalar_one() == 0)

    sa.event.listen(bench.writer._database, "commit", dawdle, once=True)
    with pytest.raises(sa.exc.DBAPIError) as caught:
        bench.store(batch)
    assert not bench.writer._engine.is_value_fault(caught.value)
    bench.restart()
    bench.store(batch)
    assert bench.data() == sent(0, 20)


SLOW = {
    "postgresql": (
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END $$",
        "CREATE TRIGGER slow BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION slow()",
    ),
    "mysql": ("CREATE TRIGGER slow BEFORE INSERT ON t FOR EACH ROW DO BENCHMARK(20000, SHA2('x', 512))",),
}


def test_statements_that_may_not_take_long(server: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Work that takes too long is done in smaller steps."""
    with connected(server.url) as administrator:
        if server.engine == "mysql" and not administrator.dialect.is_mariadb:  # type: ignore[attr-defined]
            pytest.skip("MySQL limits the time of nothing but SELECT")
    running = Running.on(server)
    execute(server.url, *SLOW[server.engine])
    if server.engine == "postgresql":
        execute(server.url, f"ALTER DATABASE {sa.make_url(server.url).database} SET statement_timeout = '500ms'")
    else:
        execute(server.url, "SET GLOBAL max_statement_time = 0.5")
    try:
        with connected(server.url) as administrator:
            disconnect(administrator)
        running.mill.send(*values(10, 200))
        running.mill.until_stored()
    finally:
        if server.engine == "mysql":
            execute(server.url, "SET GLOBAL max_statement_time = 0")
    assert stored(server.url) == sent(0, 210)
    assert not Workbench(server, token="z").dead()


def test_a_server_that_becomes_read_only(server: Site, caplog: pytest.LogCaptureFixture) -> None:
    """As after a failover to a standby: messages wait, none is blamed."""
    with guest(server, *grants(server)) as url:
        running = Running.on(server, url)
        name = sa.make_url(server.url).database
        lock, unlock = {
            "postgresql": (
                f"ALTER DATABASE {name} SET default_transaction_read_only = on",
                f"ALTER DATABASE {name} RESET default_transaction_read_only",
            ),
            "mysql": ("SET GLOBAL read_only = 1", "SET GLOBAL read_only = 0"),
        }[server.engine]
        with connected(server.url) as administrator:
            administrator.exec_driver_sql(lock)
            try:
                disconnect(administrator)
                running.mill.send(*values(10, 10))
                until(lambda: any("read" in complaint for complaint in complaints(caplog)))
            finally:
                administrator.exec_driver_sql(unlock)
        running.mill.until_stored()
        running.mill.end()
        assert stored(server.url) == sent(0, 20)
        assert not Workbench(server, token="z").dead()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # PyMySQL forgets half-made sockets
@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_that_is_stopped_and_started(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Messages sent while it is away are stored when it is back; the log says once that it is away."""
    with ExitStack() as stack, needed(kind):
        directory = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="amqtt_db_", ignore_cleanup_errors=True))
        )
        directory.chmod(0o755)  # the server may be another user's
        (directory / kind).mkdir()
        with STARTERS[kind](directory / kind) as url:
            mill = Mill(Site(tmp_path, url, stack))
            mill.start()
            mill.send(*values(0, 10))
            mill.until_stored()
            busy = threading.Thread(target=_trickle, args=(mill,))
            busy.start()
        busy.join()
        mill.send(*values(510, 10))
        until(lambda: bool(complaints(caplog)))
        with STARTERS[kind](directory / kind) as url:
            mill.until_stored()
            assert stored(url) == sent(0, 520)
            mill.end()
    gc.collect()


def _trickle(mill: Mill) -> None:
    for first in range(10, 510, 5):
        mill.send(*values(first, 5))
