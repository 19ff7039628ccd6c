"""What Prometheus reads is well-formed, and named as it wants metrics to be named."""

from __future__ import annotations

import shutil
import subprocess
from datetime import datetime, timezone

import pytest

from amqtt_db.ingest.bridge.link_state import LinkState
from amqtt_db.ingest.monitor.exposition import Sample, make_counter, make_gauge, make_histogram, render_metrics
from amqtt_db.ingest.monitor.intake import Intake
from amqtt_db.ingest.monitor.measures import measure_all
from amqtt_db.journal import Backlog, WriterReport
from amqtt_db.journal.report import Distribution

PROMTOOL = shutil.which("promtool")
SINCE = datetime(2026, 1, 1, tzinfo=timezone.utc)

LINKS = (
    LinkState("mqtt://a:1883", True, SINCE, 3, 2, 1, dropped=7),
    LinkState("mqtt://a:1883", False, SINCE, 1),
    LinkState("mqtt://b:1883", True, SINCE, 1),
)
REPORT = WriterReport(
    started=1_000_000,
    committed=2_000_000,
    counts={"": {"ignored": 2}, "home/{room}/#": {"stored": 5, "dead": 1}, 'a "b"\\\n': {"stored": 1}},
    tables=2,
    columns=7,
)
OF_A_BROKER = Intake(10, 1, 2, 4096, False, 3, 1, 4, 5)
OF_A_BRIDGE = Intake(10, 1, 0, 4096, True, links=LINKS)


def render(intake: Intake, report: WriterReport | None = REPORT) -> str:
    """Return the text for a process that has a message waiting since second 3; it is second 5."""
    return render_metrics(measure_all(intake, Backlog(1, 3_000_000), report, 5.0))


def test_a_counter_and_a_gauge() -> None:
    """A counter ends with _total; labels are escaped, and a metric without samples is left out."""
    some = make_counter("some", "Some.", Sample(1, {"route": 'a "b"\\\n'}))
    assert render_metrics([some, make_gauge("none", "None.")]).splitlines() == [
        "# HELP some_total Some.",
        "# TYPE some_total counter",
        'some_total{route="a \\"b\\"\\\\\\n"} 1',
    ]


def test_a_histogram_counts_what_is_at_most_as_large_as_each_bound() -> None:
    """Buckets add up, as Prometheus wants it, and the last one has everything."""
    values = Distribution.empty((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        values = values.add(value)
    assert render_metrics([make_histogram("h", "H.", values)]).splitlines()[2:] == [
        'h_bucket{le="1"} 2',
        'h_bucket{le="2"} 3',
        'h_bucket{le="+Inf"} 4',
        "h_sum 12.0",
        "h_count 4",
    ]


def test_what_a_broker_counts() -> None:
    """Each count is under its name; stored, dead, ignored and empty messages are told by route."""
    lines = render(OF_A_BROKER).splitlines()
    assert {
        "amqtt_db_messages_received_total 10",
        "amqtt_db_messages_refused_total 1",
        "amqtt_db_messages_denied_total 3",
        'amqtt_db_messages_redelivered_total{broker=""} 1',
        "amqtt_db_messages_pending 1",
        "amqtt_db_journal_oldest_seconds 2.0",
        "amqtt_db_journal_bytes 4096",
        "amqtt_db_logins_failed_total 4",
        "amqtt_db_clients_connected 5",
        "amqtt_db_writer_restarts_total 2",
        'amqtt_db_messages_stored_total{route="home/{room}/#"} 5',
        'amqtt_db_messages_dead_total{route="home/{room}/#"} 1',
        'amqtt_db_messages_ignored_total{route=""} 2',
        'amqtt_db_schema_changes_total{object="column"} 7',
    } <= set(lines)


def test_what_a_bridge_counts() -> None:
    """Two subscriptions to one broker are one sample, for Prometheus refuses equal ones."""
    lines = render(OF_A_BRIDGE).splitlines()
    assert {
        'amqtt_db_broker_connected{broker="mqtt://a:1883"} 1',
        'amqtt_db_broker_connects_total{broker="mqtt://a:1883"} 4',
        'amqtt_db_broker_dropped_total{broker="mqtt://a:1883"} 7',
        'amqtt_db_messages_redelivered_total{broker="mqtt://a:1883"} 3',
        "amqtt_db_journal_blocked 1",
    } <= set(lines)
    assert not [line for line in lines if "clients_connected" in line or "denied" in line]


def test_no_writer_has_reported_yet() -> None:
    """What only it knows is left out."""
    text = render(OF_A_BROKER, None)
    assert "amqtt_db_messages_received_total 10" in text
    assert "stored" not in text.replace("to be stored", "").replace("waits to be stored", "")


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (on Debian: prometheus)")
@pytest.mark.parametrize("intake", [OF_A_BROKER, OF_A_BRIDGE], ids=["broker", "bridge"])
def test_promtool_finds_nothing_wrong(intake: Intake) -> None:
    """Neither in the form nor in the names and units."""
    done = subprocess.run(
        [str(PROMTOOL), "check", "metrics"], input=render(intake), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
