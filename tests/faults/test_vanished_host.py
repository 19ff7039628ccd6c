"""A database's host loses power: no more packets come from it, not even one that closes a connection."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Final

import pytest
import sqlalchemy as sa

from amqtt_db.database.engines import engine_for
from tests.faults.postgres import _find
from tests.network import Host

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="only root may make hosts")]

PATIENCE: Final = 30.0
"""Seconds within which a vanished host must be given up."""


@contextmanager
def postgresql(host: Host, directory: Path) -> Iterator[str]:
    """A PostgreSQL server on the host; yields its URL."""
    programs, user = _find(), "postgres"
    shutil.chown(directory, user)
    subprocess.run(
        [programs / "initdb", "--auth=trust", "--username=postgres", "--no-sync", "-D", directory / "data"],
        check=True, capture_output=True, user=user, cwd="/",
    )  # fmt: skip
    (directory / "data" / "pg_hba.conf").write_text("host all all 0.0.0.0/0 trust\n")
    server = host.run(
        user, programs / "postgres", "-D", directory / "data", "-k", directory, "-c", "listen_addresses=*"
    )
    yield from served(server, f"postgresql://postgres@{host.address}/postgres")


@contextmanager
def mariadb(host: Host, directory: Path) -> Iterator[str]:
    """A MariaDB server on the host; yields its URL."""
    install, program = shutil.which("mariadb-install-db"), shutil.which("mariadbd", path="/usr/sbin:/usr/local/sbin")
    if install is None or program is None:
        pytest.skip("no MariaDB: install its server (on Debian: mariadb-server)")
    shutil.chown(directory, "mysql")
    own = [f"--datadir={directory / 'data'}", f"--tmpdir={directory}"]
    subprocess.run(
        [install, "--no-defaults", *own, "--auth-root-authentication-method=normal", "--user=mysql", "--skip-test-db"],
        check=True, capture_output=True, cwd="/",
    )  # fmt: skip
    init = directory / "init.sql"
    init.write_text("CREATE USER 'anyone'@'%';\nGRANT ALL ON *.* TO 'anyone'@'%';\n")
    server = host.run("mysql", program, "--no-defaults", *own, f"--socket={directory}/socket", f"--init-file={init}")
    yield from served(server, f"mysql://anyone@{host.address}/mysql")


def served(server: subprocess.Popen[bytes], url: str) -> Iterator[str]:
    """Yield the URL once the server answers; end the server afterwards."""
    try:
        deadline = monotonic() + 60
        while not _answers(url):
            assert server.poll() is None, "the server has ended"
            assert monotonic() < deadline, "the server does not answer"
            sleep(0.2)
        yield url
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait(10)


def _answers(url: str) -> bool:
    database = engine_for(url).open(write=False)
    try:
        with database.connect():
            return True
    except (sa.exc.DBAPIError, OSError):
        return False
    finally:
        database.dispose()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # PyMySQL forgets half-made sockets
@pytest.mark.parametrize(("serve", "wait"), [(postgresql, "SELECT pg_sleep(300)"), (mariadb, "SELECT SLEEP(300)")])
def test_a_vanished_host_is_given_up_in_time(serve: object, wait: str, host: Host) -> None:
    """The writer waits for an answer, and none can come: within half a minute it is an error of the connection."""
    with tempfile.TemporaryDirectory(prefix="amqtt_db_", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o755)
        with serve(host, directory) as url:  # type: ignore[operator]
            database = engine_for(url).open(write=True)
            with database.connect() as connection:
                cut = host.vanish(1)
                started = monotonic()
                with pytest.raises(sa.exc.DBAPIError):
                    connection.exec_driver_sql(wait)
                assert 1 < monotonic() - started < PATIENCE
                connection.invalidate()
            cut.wait()
            database.dispose()
