"""PgBouncer, started for a test in front of a PostgreSQL server."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest
import sqlalchemy as sa

from tests.ports import free_port, wait_for_port

_CONFIG: Final = """
[databases]
* = host={host} port={port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = 6
query_wait_timeout = 10
logfile = {directory}/log
pidfile = {directory}/pid
ignore_startup_parameters = extra_float_digits
"""


@contextmanager
def pooled(url: str, mode: str) -> Iterator[str]:
    """Yield a URL of the same database by way of PgBouncer in ``session`` or ``transaction`` mode."""
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("no PgBouncer: install it (on Debian: pgbouncer)")
    server, listen = sa.make_url(url), free_port()
    socket = server.query.get("host") or server.host
    with TemporaryDirectory(prefix="amqtt_db_", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o777)  # the pooler runs as another user
        config = directory / "pgbouncer.ini"
        config.write_text(
            _CONFIG.format(
                host=socket,
                port=server.port or 5432,
                user=server.username,
                listen=listen,
                mode=mode,
                directory=directory,
            )
        )
        owner = pwd.getpwuid(os.stat(str(socket)).st_uid).pw_name  # others may not enter the server's directory
        switch = ["-u", owner] if os.geteuid() == 0 else []
        process = subprocess.Popen([program, *switch, str(config)], stderr=subprocess.DEVNULL)
        try:
            wait_for_port(listen, process)
            yield f"postgresql://{server.username}@127.0.0.1:{listen}/{server.database}"
        finally:
            process.terminate()
            process.wait(10)
