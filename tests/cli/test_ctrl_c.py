"""Ctrl-C: no traceback at any moment, what there is to show is shown, and a second one is obeyed at once."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.cli.test_cli import configuration
from tests.ingest.broker.setup import journaled
from tests.integration.bridge import publish
from tests.integration.broker import BrokerProcess

FORKS = """
import os, signal, sys
from amqtt_db.__main__ import run_command_line

class Fork:
    '''At every fortieth import, a child gets Ctrl-C and goes on; its exit status is written to a file.'''

    count = 0

    def find_spec(self, name, path=None, target=None):
        Fork.count += 1
        if Fork.count % 40 == 0:
            child = os.fork()
            if not child:
                sys.meta_path.remove(self)
                os.kill(os.getpid(), signal.SIGINT)
                return None
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=statuses)
        return None

statuses = open(sys.argv.pop(1), "w", buffering=1)
sys.meta_path.insert(0, Fork())
run_command_line()
"""


@pytest.mark.slow
@pytest.mark.parametrize("command", ["check --topic a --payload 1", "run"])
def test_no_import_shows_a_traceback(tmp_path: Path, command: str) -> None:
    """At many moments; `run` gets as far as seeing that its port is taken."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        path = configuration(tmp_path, taken.getsockname()[1])
        started = [sys.executable, "-c", FORKS, str(tmp_path / "statuses"), *command.split(), str(path)]
        done = subprocess.run(started, capture_output=True, text=True, check=False, timeout=100)
    statuses = Counter((tmp_path / "statuses").read_text().split())
    assert (done.returncode, "Traceback" in done.stderr, "ignored" in done.stderr) == (command == "run", False, False)
    assert set(statuses) <= {"130", str(-signal.SIGINT)}
    assert statuses.total() > 10


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    """The database does not answer, and a message waits for it; it is in the journal afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"postgresql://nobody@127.0.0.1:{server.getsockname()[1]}/nothing?connect_timeout=3600"
        broker = BrokerProcess(tmp_path, database=url).start()
        assert broker.process is not None
        publish(broker.port, ["1"])
        broker.process.send_signal(signal.SIGINT)
        broker.until(lambda: "waiting up to" in broker.log.read_text(), "it waits for the writer")
        broker.process.send_signal(signal.SIGINT)
        assert broker.process.wait(5) == 130
    assert "ended at once" in broker.log.read_text()
    assert [message.payload for message in journaled(tmp_path / "mqtt.journal") if message.topic] == [b"1"]


@pytest.mark.slow
def test_an_interrupted_demo_shows_what_it_has(tmp_path: Path) -> None:
    """Its tables, and nothing on stderr."""
    command = [sys.executable, "-m", "amqtt_db", "demo", "--seconds", "600", "--directory", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        while "garage/door" not in demo.stdout.readline():  # the last of the devices has published
            pass
        demo.send_signal(signal.SIGINT)
        shown, errors = demo.communicate(timeout=60)
    assert (demo.returncode, errors) == (0, "")
    assert "messages acknowledged" in shown
    assert "climate · " in shown
