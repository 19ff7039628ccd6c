"""A command that cannot reach what it speaks of says so and fails; nothing is made by looking at it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa
from rich.console import Console

from amqtt_db.cli.show_status import render_status
from amqtt_db.ingest.bridge.link_state import LinkState
from amqtt_db.journal import Failure, Journal, WriterReport, write_report
from amqtt_db.message import PUBLISH, flags
from amqtt_db.reader.status import JournalStatus, Status, TopicCounts, WriterStatus
from tests.cli.test_cli import configuration, feed, invoke
from tests.database.engines.servers import Site

COMMANDS = (
    "status", "status --json", "topics", "topics --json", "export", "tail", "tail --json", "remodel", "dead list",
    "dead list --json", "dead show 1", "dead show 1 --json", "dead replay", "dead replay --json", "dead purge --yes",
)  # fmt: skip


def require_failure(directory: Path, database: str, reason: str, commands: Iterable[str] = COMMANDS) -> None:
    """Each command says the reason first, on stderr or as what `status` prints, and exits with 1."""
    path = configuration(directory, database=database)
    for command in commands:
        name, *options = command.split()
        result = invoke(name, *options, path)
        assert result.exit_code == 1, command
        if command == "status --json":
            found = json.loads(result.stdout)
            assert reason in found["errors"][0]
            assert found["counters"] is found["dead_letters"] is None
        elif name == "status":
            assert result.stdout.startswith("error: ")
            assert reason in " ".join(result.stdout.split())
        else:
            assert (command, result.stdout) == (command, "")
            assert reason in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("place", ["mqtt.db", "no/mqtt.db"])
def test_a_database_file_that_is_missing(place: str, tmp_path: Path) -> None:
    """Nor is it there afterwards."""
    require_failure(tmp_path, f"sqlite:///{tmp_path / place}", f"{place} does not exist yet")
    assert [file.name for file in tmp_path.iterdir()] == ["broker.yaml"]


@pytest.mark.parametrize(
    "url", ["postgresql://a:hush@127.0.0.1:1/x", "mysql+pymysql://a:hush@127.0.0.1:1/x"], ids=["postgresql", "mysql"]
)
def test_a_server_that_does_not_answer(url: str, tmp_path: Path) -> None:
    """The password is not told."""
    require_failure(tmp_path, url, "onnect")
    told = invoke("status", configuration(tmp_path, database=url)).stdout
    assert ("hush" in told, url.replace("hush", "***") in told) == (False, True)


def test_a_host_that_nobody_knows(tmp_path: Path) -> None:
    """Its name is told; only a few commands ask for it, for some systems take their time to answer."""
    url = "postgresql://a:b@no-such-host.invalid/x"
    require_failure(tmp_path, url, "no-such-host.invalid", ("status", "topics", "dead list"))


def test_a_user_that_the_server_does_not_know(postgresql: Site) -> None:
    """The server's own words are told."""
    url = sa.make_url(postgresql.url).set(username="nobody_at_all").render_as_string(hide_password=False)
    require_failure(postgresql.path, url, 'role "nobody_at_all" does not exist')


def test_a_wrong_password(mysql: Site) -> None:
    """The server's own words are told, and the password is not."""
    engine = sa.create_engine(mysql.url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE USER IF NOT EXISTS locked IDENTIFIED BY 'right'"))
    engine.dispose()
    url = sa.make_url(mysql.url).set(username="locked", password="wrong-one").render_as_string(hide_password=False)
    require_failure(mysql.path, url, "Access denied for user 'locked'")
    assert "wrong-one" not in invoke("status", configuration(mysql.path, database=url)).stdout


def test_a_journal_that_is_missing(tmp_path: Path) -> None:
    """`status` tells what the database knows, and what it does not know is no number."""
    path = feed(tmp_path, ("a", {"n": 1}))
    result = invoke("status", path)
    assert result.exit_code == 1
    assert result.stdout.startswith(f"error: journal {tmp_path}/mqtt.journal: it does not exist yet")
    assert "refused: unknown   pending: unknown   denied: unknown" in result.stdout
    found = json.loads(invoke("status", path, "--json").stdout)
    assert [found[name] for name in ("pending", "refused", "denied", "lag", "writer")] == [None] * 5
    assert [counts["stored"] for counts in found["counters"]] == [1]


def test_the_lag_and_what_causes_it(tmp_path: Path) -> None:
    """How long the oldest message has waited, and the last causes that kept the writer from storing."""
    path = feed(tmp_path, ("a", {"n": 1}))
    journal = Journal.open(tmp_path / "mqtt.journal", max_size=2**20, sync="never")
    journal.append(flags(PUBLISH, 1), 1_700_000_000_000_000, 0, b"home/attic/climate", b"{}")
    journal.remember("intake", "denied", b"3")
    journal.commit()
    journal.close()
    second = 1_000_000
    causes = (Failure("disk full", 3, 1 * second, 2 * second), Failure("no route to host", 1, 5 * second, 5 * second))
    write_report(tmp_path / "mqtt.journal", WriterReport(0, 4 * second, failures=causes, is_failing=True))
    lines = [line.strip() for line in invoke("status", path).stdout.splitlines()]
    assert "refused: 0   pending: 1   denied: 3" in lines
    assert any(line.endswith("s; 1 message waits, the oldest since 2023-11-14 22:13:20 UTC") for line in lines)
    assert "writer: not running, last transaction at 1970-01-01 00:00:04 UTC" in lines
    first = "until 1970-01-01 00:00:02 UTC, from 1970-01-01 00:00:01 UTC, 3 attempts: disk full"
    assert lines.index(first) == lines.index(
        "until 1970-01-01 00:00:05 UTC, from 1970-01-01 00:00:05 UTC, 1 attempt: no route to host"
    ) - 1  # fmt: skip
    found = json.loads(invoke("status", path, "--json").stdout)
    assert found["lag"] > 10**7
    assert (found["denied"], found["dead_letters"], found["oldest"]) == (3, 0, "2023-11-14T22:13:20+00:00")
    assert [cause["cause"] for cause in found["writer"]["causes"]] == ["disk full", "no route to host"]


def test_status_reads_on_a_narrow_terminal() -> None:
    """At 60 columns no number and no heading is broken."""
    second = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
    status = Status(
        database="sqlite:///mqtt.db", journal="mqtt.journal", refused=0, denied=0, lag=0.0,
        journals=(JournalStatus(12, 123_456_789, 0),),
        counters=(TopicCounts("home/{room}/climate", 123_456, dead=12, records=123_456),),
        brokers=(LinkState("mqtts://mqtt.example.org:8883", True, second, 3),), writer=WriterStatus(True, second),
    )  # fmt: skip
    console = Console(width=60)
    with console.capture() as captured:
        console.print(render_status(status))
    text = captured.get()
    assert max(map(len, text.splitlines())) <= 60
    for whole in ("home/{room}/climate", "records", "stored up to", "123456789", "possible duplicates: 0"):
        assert whole in text


def test_a_second_start_names_the_journal_and_no_port(tmp_path: Path) -> None:
    """The same configuration twice: what both need first is the journal, and the ports are those of the other one."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        path = tmp_path / "bridge.yaml"
        path.write_text(
            f"broker: mqtt://localhost\ndatabase: sqlite:///{tmp_path}/mqtt.db\n"
            f"journal: {{path: {tmp_path}/mqtt.journal}}\nmetrics: 127.0.0.1:{other.getsockname()[1]}\n"
        )
        journal = Journal.open(tmp_path / "mqtt.journal", max_size=2**20, sync="never")
        refused = invoke("run", path)
        journal.close()
    assert refused.exit_code == 1
    assert "another process owns it" in refused.stderr
    assert "in use" not in refused.stderr
