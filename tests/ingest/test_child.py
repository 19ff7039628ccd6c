"""A child gives way to the broker and its clients, and a log file that cannot be written holds up nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from amqtt_db.ingest.supervisor import encode_job

CODE = """
import os
from pathlib import Path
from amqtt_db.ingest.child import lower_priority
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


BEGIN = """
import sys
from amqtt_db.ingest.child import begin_child
settings = begin_child("a child", logs_others=False)
print(settings and settings.database)
"""


def begin(**config: object) -> subprocess.CompletedProcess[bytes]:
    """Run a child with these settings as far as its beginning."""
    job = encode_job("here", config) + b"\n"
    return subprocess.run([sys.executable, "-c", BEGIN], input=job, capture_output=True, check=True)


@pytest.mark.slow
def test_a_log_file_that_cannot_be_written_holds_up_nothing(tmp_path: Path) -> None:
    """The child says so on standard error and goes on."""
    done = begin(database="sqlite:///a.db", log={"file": str(tmp_path / "nowhere" / "log")})
    assert done.stdout == b"sqlite:///a.db\n"
    assert b"cannot be written" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.slow
def test_mistakes_are_told_and_nothing_begins() -> None:
    """On standard error, with their path; there are no settings then."""
    done = begin(nonsense=1)
    assert done.stdout == b"None\n"
    assert b"here.nonsense" in done.stderr
