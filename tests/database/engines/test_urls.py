"""What can be checked about a database before anything connects to it, and the files created for it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from amqtt_db.database.engines import engine_for
from amqtt_db.database.engines.urls import file_of, problem
from amqtt_db.errors import DatabaseError
from tests.workbench import Workbench


def _url(path: Path) -> str:
    return f"sqlite:///{path}"


def test_a_server_may_answer_later() -> None:
    """Only files are looked at."""
    assert problem("postgresql://nowhere/x") is None
    assert file_of("postgresql://nowhere/x") is None


def test_a_file_that_is_missing_empty_or_a_database_is_fine(tmp_path: Path) -> None:
    """It is made, filled or used."""
    assert problem(_url(tmp_path / "new.db")) is None
    (tmp_path / "empty.db").touch()
    assert problem(_url(tmp_path / "empty.db")) is None
    Workbench(tmp_path).close()
    assert problem(_url(tmp_path / "mqtt.db")) is None


def test_what_can_never_work_is_told(tmp_path: Path) -> None:
    """With the file and what to do."""
    (tmp_path / "notes.txt").write_text("a shopping list, not a database")
    assert problem(_url(tmp_path / "notes.txt")) == (
        f"database {tmp_path}/notes.txt: it is not an SQLite database; choose another file"
    )
    assert problem(_url(tmp_path)) == f"database {tmp_path}: it is a directory; name a file"
    assert problem(_url(tmp_path / "no" / "x.db")) == (
        f"database {tmp_path}/no/x.db: the directory {tmp_path}/no does not exist; create it or choose another database"
    )


@pytest.mark.parametrize("mode", [0o000, 0o400, 0o200])
def test_a_file_that_this_user_may_not_use_is_told(mode: int, tmp_path: Path) -> None:
    """Reading and writing are both needed."""
    path = tmp_path / "x.db"
    path.touch(mode)
    for directory in tmp_path.parents:
        if not directory.stat().st_mode & stat.S_IXOTH:
            directory.chmod(0o711)
    tmp_path.chmod(0o777)
    assert _as_nobody(path) == (
        f"database {path}: it cannot be read and written; change its permissions or choose another database"
    )


def _as_nobody(path: Path) -> str | None:
    """Return the problem as an ordinary user sees it; permissions do not apply to root."""
    if os.geteuid() != 0:
        return problem(_url(path))
    os.seteuid(65534)
    try:
        return problem(_url(path))
    finally:
        os.seteuid(0)


def test_new_files_are_private(tmp_path: Path) -> None:
    """The database, and the files that SQLite and the writer create next to it."""
    before = os.umask(0)
    try:
        bench = Workbench(tmp_path)
        bench.send(("t", {"v": 1}))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(("mqtt.db", "mqtt.db-wal", "mqtt.db-shm", "a.attempt"), 0o600)
    bench.close()


def test_a_file_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    """Its creator chose the mode."""
    (tmp_path / "mqtt.db").touch()
    (tmp_path / "mqtt.db").chmod(0o664)
    bench = Workbench(tmp_path)
    bench.send(("t", {"v": 1}))
    assert stat.S_IMODE((tmp_path / "mqtt.db").stat().st_mode) == 0o664
    bench.close()


def test_a_database_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    """The reason is given also without an earlier check."""
    with pytest.raises(DatabaseError, match="No such file or directory; create its directory"):
        engine_for(_url(tmp_path / "no" / "x.db")).open(write=True)


def test_asking_needs_no_sqlalchemy() -> None:
    """The broker's process checks the URL without importing it."""
    code = "import sys, amqtt_db.database.engines.urls; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
