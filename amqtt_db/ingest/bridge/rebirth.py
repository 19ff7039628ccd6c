"""Asking Sparkplug's edge nodes for their births, when the writer has met data that it cannot read without them."""

from __future__ import annotations

from pathlib import Path
from time import time_ns

from amqtt_db.journal import read_report


class RebirthFinder:
    """Finds in the writer's reports whose births are wanted since the bridge began."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._seen: dict[str, int] = {}
        self.find_new()

    def find_new(self) -> list[str]:
        """Return the topics of the commands that ask for births which are wanted since the last call."""
        report = read_report(self._journal)
        wanted = {} if report is None else report.rebirths
        new = [topic for topic, time_us in wanted.items() if time_us > self._seen.get(topic, 0)]
        self._seen.update(wanted)
        return new


def make_rebirth_command() -> bytes:
    """Return the payload of a command that asks an edge node for its births now."""
    from amqtt_db.decode.sparkplug.command import encode_rebirth  # noqa: PLC0415 - it needs an extra

    return encode_rebirth(time_ns() // 1_000_000)
