"""The metrics: names, units and labels are a contract with dashboards and alerts that use them."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from typing import Final

from amqtt_db.ingest.monitor.exposition import Metric, Sample, make_counter, make_gauge, make_histogram
from amqtt_db.ingest.monitor.intake import Intake
from amqtt_db.journal import Backlog, WriterReport

_OUTCOMES: Final = {
    "stored": "Messages that were stored",
    "dead": "Messages that became dead letters",
    "ignored": "Messages that no route stores",
    "empty": "Messages with an empty payload, which makes no record",
    "unchanged": "Messages that say nothing new, of routes that store only changes",
}


def measure_all(intake: Intake, backlog: Backlog | None, report: WriterReport | None, now: float) -> Iterator[Metric]:
    """Yield the metrics; what is unknown is left out.  ``now`` is in seconds since 1970."""
    build = {"version": version("amqtt_db"), "python": platform.python_version()}
    yield make_gauge("amqtt_db_build_info", "Always 1; the labels say what is running.", Sample(1, build))
    yield from _measure_intake(intake)
    yield from _measure_links(intake)
    if backlog is not None:
        yield from _measure_backlog(backlog, now)
    if report is not None:
        yield from _measure_writer(report)


def _measure_intake(intake: Intake) -> Iterator[Metric]:
    counts = {
        "amqtt_db_messages_received": ("Messages written to the journal by this process.", intake.received),
        "amqtt_db_messages_refused": ("Messages refused so far, by all processes with this journal.", intake.refused),
        "amqtt_db_messages_denied": ("Messages that their senders were not allowed to publish, so far.", intake.denied),
        "amqtt_db_logins_failed": ("Clients that were not let in.", intake.logins_failed),
        "amqtt_db_writer_restarts": ("How often the writer was restarted after it had ended.", intake.restarts),
    }
    for name, (meaning, count) in counts.items():
        if count is not None:
            yield make_counter(name, meaning, Sample(count))
    if intake.clients is not None:
        yield make_gauge("amqtt_db_clients_connected", "Clients that are connected.", Sample(intake.clients))
    if intake.delays is not None:
        meaning = "From the first message of a group to its commit, after which all of it is acknowledged."
        yield make_histogram("amqtt_db_acknowledgement_seconds", meaning, intake.delays)
    yield make_gauge("amqtt_db_journal_bytes", "Size of the messages in the journal.", Sample(intake.journal_bytes))
    yield make_gauge(
        "amqtt_db_journal_blocked", "1 while the journal is full or cannot be written.", Sample(int(intake.is_blocked))
    )


def _measure_links(intake: Intake) -> Iterator[Metric]:
    connected, connects, repeated, dropped = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for link in intake.links:
        connected[link.url] += link.is_connected
        connects[link.url] += link.connections
        repeated[link.url] += link.recognized + link.unproven
        dropped[link.url] += link.dropped
    if intake.clients is not None:
        repeated[""] += intake.repeated
    meaning = "Redelivered messages: from a broker, or at QoS 2 from a client."
    yield make_counter("amqtt_db_messages_redelivered", meaning, *_by_label("broker", repeated))
    meaning = "Subscribed connections to the broker."
    yield make_gauge("amqtt_db_broker_connected", meaning, *_by_label("broker", connected))
    meaning = "How often the bridge connected to the broker."
    yield make_counter("amqtt_db_broker_connects", meaning, *_by_label("broker", connects))
    meaning = "Messages that the broker has dropped for all its clients, as far as it says so."
    yield make_counter("amqtt_db_broker_dropped", meaning, *_by_label("broker", dropped))


def _measure_backlog(backlog: Backlog, now: float) -> Iterator[Metric]:
    age = 0.0 if backlog.oldest is None else max(0.0, now - backlog.oldest / 1e6)
    yield make_gauge("amqtt_db_messages_pending", "Messages waiting in the journal.", Sample(backlog.pending))
    meaning = "Age of the oldest waiting message; 0 if none is waiting."
    yield make_gauge("amqtt_db_journal_oldest_seconds", meaning, Sample(age))


def _measure_writer(report: WriterReport) -> Iterator[Metric]:
    for outcome, meaning in _OUTCOMES.items():
        counts = {topic_filter: counted.get(outcome, 0) for topic_filter, counted in report.counts.items()}
        detail = f"{meaning}, by route, counted by the running writer."
        yield make_counter(f"amqtt_db_messages_{outcome}", detail, *_by_label("route", Counter(counts)))
    yield make_histogram("amqtt_db_batch_entries", "Journal entries in a stored batch.", report.sizes)
    yield make_histogram("amqtt_db_batch_seconds", "Time to store a batch.", report.seconds)
    meaning = "From the arrival of a batch's first message to the commit that made it visible."
    yield make_histogram("amqtt_db_visible_seconds", meaning, report.waits)
    changes = Counter(table=report.tables, column=report.columns)
    meaning = "Tables and columns created."
    yield make_counter("amqtt_db_schema_changes", meaning, *_by_label("object", changes))
    meaning = "1 while the database or the journal keeps the writer from storing."
    yield make_gauge("amqtt_db_writer_failing", meaning, Sample(int(report.is_failing)))
    meaning = "When the running writer started."
    yield make_gauge("amqtt_db_writer_start_time_seconds", meaning, Sample(report.started / 1e6))
    if report.committed is not None:
        meaning = "When the last batch was stored."
        yield make_gauge("amqtt_db_last_commit_timestamp_seconds", meaning, Sample(report.committed / 1e6))


def _by_label(name: str, counts: Counter[str]) -> list[Sample]:
    return [Sample(count, {name: value}) for value, count in sorted(counts.items())]
