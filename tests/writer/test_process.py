"""The writer's process does not outlive its parent for long."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from amqtt_db.ingest.supervisor import encode_job
from amqtt_db.journal import Journal
from amqtt_db.message import PUBLISH, flags

HASTY = """
import sys
from amqtt_db.writer import process as worker
worker.GRACE = 0.1
setattr(worker, sys.argv[1], 0.1)
sys.exit(worker.run_writer())
"""


@pytest.mark.slow
@pytest.mark.parametrize(("count", "deadline"), [(0, "IDLE_DEADLINE"), (1, "DEADLINE")])
def test_a_server_that_does_not_answer_does_not_hold_up_the_end(tmp_path: Path, count: int, deadline: str) -> None:
    """The parent has gone, and the writer waits for a connection: it ends where it is, and says nothing."""
    with closing(Journal.open(tmp_path / "journal", max_size=2**30, sync="never")) as journal:
        for _ in range(count):
            journal.append(flags(PUBLISH), 0, 0, b"t", b"1")
        journal.commit()
    with socket.create_server(("127.0.0.1", 0)) as server:
        database = f"postgresql://nobody@127.0.0.1:{server.getsockname()[1]}/nothing?connect_timeout=3600"
        config = {"database": database, "journal": {"path": str(tmp_path / "journal")}}
        with subprocess.Popen(
            [sys.executable, "-c", HASTY, deadline], stdin=subprocess.PIPE, stderr=subprocess.PIPE
        ) as writer:
            assert writer.stdin is not None
            writer.stdin.write(encode_job("amqtt_db.Plugin", config) + b"\n")
            writer.stdin.flush()
            server.settimeout(60)
            with server.accept()[0]:
                _, errors = writer.communicate(timeout=60)
    assert (writer.returncode, errors) == (1, b"")
