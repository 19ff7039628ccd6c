"""The writer's process gives way to the broker and its clients, and does not outlive its parent for long."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from amqtt_db.ingest.supervisor import encode_job
from amqtt_db.journal import Journal
from amqtt_db.message import PUBLISH, flags

CODE = """
import os
from pathlib import Path
from amqtt_db.writer.process import lower_priority
lower_priority(5)
print(os.nice(0))
print(Path("/proc/self/autogroup").read_text().split()[-1])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this system does not group by sessions")
@pytest.mark.skipif(os.geteuid() != 0, reason="of others than root, the system takes one such change in 0.1 s from all")
def test_a_session_of_its_own_gives_way_as_a_whole() -> None:
    """Niceness counts within the session only, where the system shares the processors out among sessions."""
    command = [sys.executable, "-c", CODE]
    told = subprocess.run(command, start_new_session=True, capture_output=True, text=True, check=True).stdout
    assert told.split() == [str(min(19, os.nice(0) + 5)), "5"]


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
