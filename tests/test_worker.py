"""The writer's process gives way to the broker and its clients."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import os
from pathlib import Path
from amqtt_db.worker import step_behind
step_behind(5)
print(os.nice(0))
print(Path("/proc/self/autogroup").read_text().split()[-1])
"""


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this system does not group by sessions")
@pytest.mark.skipif(os.geteuid() != 0, reason="of others than root, the system takes one such change in 0.1 s from all")
def test_a_session_of_its_own_gives_way_as_a_whole() -> None:
    """Niceness counts within the session only, where the system shares the processors out among sessions."""
    command = [sys.executable, "-c", CODE]
    told = subprocess.run(command, start_new_session=True, capture_output=True, text=True, check=True).stdout
    assert told.split() == [str(min(19, os.nice(0) + 5)), "5"]
