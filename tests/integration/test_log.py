"""The log of real processes: the broker and its writer write to one place, in one form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.test_cli import configuration, invoke
from tests.integration.broker import BrokerProcess, RawClient

pytestmark = pytest.mark.slow


def test_broker_and_writer_log_json_to_one_file(tmp_path: Path) -> None:
    """Who came, what was made, and who went; nothing of that on stderr."""
    log = tmp_path / "events.jsonl"
    with BrokerProcess(tmp_path, log={"format": "json", "file": str(log)}) as broker:
        with RawClient(broker.port, "tester") as client:
            client.publish("a", [{"n": 1}], 1)
            broker.until_stored(1)
        broker.until(lambda: "client 'tester' disconnected" in log.read_text(), "the end is logged")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert all(event.keys() == {"time", "level", "logger", "message"} for event in events)
    messages = {(event["logger"], event["message"]) for event in events}
    assert ("amqtt_db writer", "new tables: a") in messages
    assert {event["level"] for event in events if "tester" in event["message"]} == {"info"}
    assert [line for line in broker.log.read_text().splitlines() if "INFO" in line or "{" in line] == []


def test_the_level_of_the_yaml_holds_for_the_writer_too(tmp_path: Path) -> None:
    """With `warning`, neither says that all is well."""
    with BrokerProcess(tmp_path, log={"level": "warning"}) as broker, RawClient(broker.port, "tester") as client:
        client.publish("a", [{"n": 1}], 1)
        broker.until_stored(1)
    assert "INFO" not in broker.log.read_text()


@pytest.mark.parametrize("command", ["run", "write"])
def test_a_log_that_cannot_be_written_is_told_at_once(command: str, tmp_path: Path) -> None:
    """In one line, with exit code 1."""
    path = configuration(tmp_path, log={"file": f"{tmp_path}/no/log"})
    result = invoke(command, path)
    assert (result.exit_code, result.stderr) == (
        1,
        f"log {tmp_path}/no/log: the directory {tmp_path}/no does not exist; create it or choose another log\n",
    )
