"""The last lines of a broker's or a bridge's log: what it has done, and what waits for the next start."""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Final

from amqtt_db.errors import JournalError, format_count
from amqtt_db.journal import JournalReader, read_progress, read_report

logger = logging.getLogger(__name__)

_TOLD_OUTCOMES: Final = ("stored", "dead", "ignored", "empty", "unchanged")


def log_end(journal: Path, received: int) -> None:
    """Log how many messages this process has received, what its last writer made of them, and how many wait."""
    logger.info("received %s; %s", format_count(received, "message"), _describe_outcomes(journal))
    progress = read_progress(journal)
    try:
        with closing(JournalReader(journal)) as reader:
            pending = reader.pending(*(None, 0) if progress is None else (progress.token, progress.position))
    except JournalError as error:
        logger.warning("%s", error)
        return
    if pending:
        logger.info("stopped; %s waiting in journal %s until the next start", format_count(pending, "message"), journal)
    else:
        logger.info("stopped; journal %s is empty", journal)


def _describe_outcomes(journal: Path) -> str:
    report, total = read_report(journal), Counter[str]()
    for counts in {} if report is None else report.counts.values():
        total.update(counts)
    told = ", ".join(_tell_outcome(total[name], name) for name in _TOLD_OUTCOMES if total[name] or name == "stored")
    return f"by the last writer: {told}"


def _tell_outcome(count: int, outcome: str) -> str:
    return format_count(count, "dead letter") if outcome == "dead" else f"{count} {outcome}"
