"""Render `status` for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

from rich.console import Group, RenderableType
from rich.text import Text

from amqtt_db.cli.show import escape_text, make_table
from amqtt_db.errors import format_count

if TYPE_CHECKING:  # these need SQLAlchemy, which the broker's process does without
    from amqtt_db.ingest.bridge.link_state import LinkState
    from amqtt_db.reader.status import JournalStatus, Status, TopicCounts, WriterStatus

_REFUSED_FROM: Final = 0x80  # codes of SUBACK
_SELDOM: Final = ("dead", "ignored", "empty", "unchanged", "records", "dropped", "nulled", "time_missing")


def render_status(status: Status) -> RenderableType:
    """Describe where the messages are; what could not be read comes first."""
    return Group(
        *(Text(f"error: {escape_text(error)}", style="red") for error in status.errors),
        Text(f"database {escape_text(status.database)}, journal {escape_text(status.journal)}"),
        *(() if status.counters is None else (_render_counters(status.counters),)),
        *(() if status.journals is None else (_render_journals(status.journals),)),
        *(Text(line) for state in status.brokers for line in _describe_link(state)),
        *map(Text, _describe_counts(status)),
        *(() if status.writer is None else map(Text, _describe_writer(status.writer))),
        *(Text(f"warning: {escape_text(warning)}", style="yellow") for warning in status.warnings),
    )


def _render_counters(counters: Sequence[TopicCounts]) -> RenderableType:
    """Return a table of the counts by topic filter, without the columns that have nothing."""
    if not counters:
        return "Nothing is stored yet."
    names = ("stored", *(name for name in _SELDOM if any(getattr(counts, name) for counts in counters)))
    rows = [(counts.filter or "(no route)", *(getattr(counts, name) for name in names)) for counts in counters]
    return make_table(("topic filter", *names), rows, "Messages")


def _render_journals(journals: Sequence[JournalStatus]) -> RenderableType:
    rows = [(journal.number or "new", journal.position, journal.pending) for journal in journals]
    return make_table(("generation", "stored up to", "pending"), rows, "Journal")


def _describe_link(state: LinkState) -> Iterator[str]:
    """Yield lines about a broker that is subscribed to."""
    connected = "connected" if state.is_connected else "not connected"
    yield f"broker {escape_text(state.url)}: {connected} since {_format_second(state.since)} UTC"
    counts = {
        "connections": state.connections, "recognized": state.recognized, "possible duplicates": state.unproven
    }  # fmt: skip
    yield "  " + "   ".join(f"{name}: {count}" for name, count in counts.items())
    if state.dropped:
        yield f"  the broker has dropped {format_count(state.dropped, 'message')} for its clients"
    if state.lost_at is not None:
        since = "" if state.lost_since is None else f", not connected since {_format_second(state.lost_since)} UTC"
        yield f"  the broker has lost the session, found at {_format_second(state.lost_at)} UTC{since}"
    for topic_filter, code in state.codes.items():
        grant = f"grants only QoS {code} for" if code < _REFUSED_FROM else f"refuses with code 0x{code:02x}"
        yield f"  the broker {grant} {escape_text(topic_filter)}"


def _describe_counts(status: Status) -> Iterator[str]:
    """Yield lines of what is counted once for all routes."""
    counts = ("refused", status.refused), ("pending", status.pending), ("denied", status.denied)
    yield "   ".join(f"{name}: {'unknown' if count is None else count}" for name, count in counts)
    if status.dead_letters:
        yield f"dead letters now: {status.dead_letters}; `amqtt-db dead list` shows them"
    if status.oldest is not None and status.pending is not None:
        waiting = format_count(status.pending, "message waits", "messages wait")
        yield f"lag: {status.lag} s; {waiting}, the oldest since {_format_second(status.oldest)} UTC"


def _describe_writer(writer: WriterStatus) -> Iterator[str]:
    """Yield lines about the writer, with the last causes that kept it from storing, the newest last."""
    committed = "" if writer.committed is None else f", last transaction at {_format_second(writer.committed)} UTC"
    yield f"writer: {'running' if writer.is_running else 'not running'}{committed}"
    if writer.rate:
        yield f"rate: {writer.rate:g} messages/s in the last minute"
    for index, cause in enumerate(writer.causes, start=1):
        lasts = writer.is_running and writer.is_failing and index == len(writer.causes)
        times = "since" if lasts else f"until {_format_second(cause.last)} UTC, from"
        attempts = format_count(cause.attempts, "attempt")
        yield f"  {times} {_format_second(cause.first)} UTC, {attempts}: {escape_text(cause.cause)}"


def _format_second(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}"
