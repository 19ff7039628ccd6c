"""A connection that a server has closed while it was idle costs no message and no error."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from amqtt_db.database.engines import base, engine_for
from amqtt_db.testing.starting import connected
from amqtt_db.writer.crash_guard import CrashGuard
from amqtt_db.writer.loop import Stop, WriterLoop
from amqtt_db.writer.writer import Writer
from tests.database.engines.servers import Site
from tests.workbench import Workbench

KILLS = {
    "postgresql": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    " AND datname = current_database() AND backend_type = 'client backend'",
    "mysql": "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()",
}


@pytest.mark.parametrize("is_asked", [True, False])
def test_a_connection_that_was_closed_is_replaced(is_asked: bool, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an idle time it is checked first, so the batch needs no second attempt."""
    if site.engine not in KILLS:
        pytest.skip("a file has no server that could close a connection")
    monkeypatch.setattr(base, "REST_SECONDS", -1.0 if is_asked else 60.0)
    bench = Workbench(site)
    bench.send(("t", {"v": 1}))
    with connected(site.url) as connection:
        for (number,) in connection.exec_driver_sql(KILLS[site.engine]).all():
            if site.engine == "mysql":
                connection.exec_driver_sql(f"KILL {number}")
    if is_asked:
        bench.send(("t", {"v": 2}))
        assert bench.data() == [{"v": 1.0}, {"v": 2.0}]
    else:
        with pytest.raises(sa.exc.DBAPIError):
            bench.send(("t", {"v": 2}))


def test_a_weakness_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """However often the writer connects."""
    guard = CrashGuard(tmp_path / "attempt")
    loop = WriterLoop(tmp_path / "journal", partial(Writer, engine_for("sqlite://"), (), guard), guard, Stop())
    for weaknesses in (["fsync is off"], ["fsync is off"], ["fsync is off", "full_page_writes is off"]):
        loop._warn(weaknesses)
    guard.close()
    assert [record.getMessage() for record in caplog.records] == ["fsync is off", "full_page_writes is off"]
