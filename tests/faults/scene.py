"""A broker with its writer, on any database, and the check of everything published to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import attrs
import sqlalchemy as sa
import yaml

from amqtt_db import config
from amqtt_db.reader.status import Status, read_status
from amqtt_db.testing.starting import connected
from tests.faults.load import Key, Ledger, Payload, sample
from tests.integration.broker import BrokerProcess

LOADS: Final = [{"topic": "load/+", "model": {"wide": {"table": "loads"}}}]


@attrs.frozen
class Verdict:
    """The fate of a load: how many messages were acknowledged, stored, dead, lost and doubled."""

    acknowledged: int = 0
    stored: int = 0
    dead: int = 0
    lost: int = 0
    doubled: int = 0

    def __add__(self, other: Verdict) -> Verdict:
        return Verdict(*map(sum, zip(attrs.astuple(self), attrs.astuple(other), strict=True)))


class Scene(BrokerProcess):
    """``amqtt-db run`` in its own directory, and what a user sees in its database."""

    def __init__(self, directory: Path, url: str | None = None, *, jumping: str | None = None, **section: Any) -> None:
        directory.mkdir(exist_ok=True)
        self.url = url
        section = {"routes": LOADS, **section}
        super().__init__(directory, jumping, **(section if url is None else {"database": url, **section}))

    def start(self) -> Scene:
        """Start it, and wait until it listens."""
        super().start()
        return self

    def __enter__(self) -> Scene:
        is_running = self.process is not None and self.process.poll() is None
        return self if is_running else self.start()

    @property
    def journal(self) -> Path:
        """The journal's file."""
        return self._settings.journal.path

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        """Run SQL as a user who opens the database would; return no rows if there is none yet."""
        if self.url is None:
            return super().sql(query)
        try:
            with connected(self.url) as connection:
                return [tuple(row) for row in connection.exec_driver_sql(query)]
        except sa.exc.OperationalError:
            return []
        except sa.exc.ProgrammingError as error:
            if "exist" in str(error.orig):
                return []
            raise

    def status(self) -> Status:
        """Return what ``amqtt-db status`` shows."""
        return read_status(self._settings)

    @property
    def _settings(self) -> config.Settings:
        """Without routes, whose decoders only the broker's own directory has."""
        section = yaml.safe_load(self.config.read_text())["plugins"]["amqtt_db.Plugin"]
        return config.load_section({name: section[name] for name in ("database", "journal")})

    def kill_both(self) -> None:
        """``kill -9`` of the broker and of the writer."""
        writer = self.writer()
        self.kill()
        with suppress(ProcessLookupError):
            os.kill(writer, signal.SIGKILL)

    @contextmanager
    def held(self) -> Iterator[None]:
        """The writer is paused."""
        writer = self.writer()
        os.kill(writer, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.kill(writer, signal.SIGCONT)

    @contextmanager
    def written(self) -> Iterator[None]:
        """Run ``amqtt-db write`` in place of a broker that has ended."""
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "amqtt_db", "write", str(self.config)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.directory)
        try:
            yield
        finally:
            assert self.stop() == 0

    def settle(self) -> Status:
        """Wait until nothing is pending; how things stand then."""
        found = [Status()]

        def settled() -> bool:
            found[0] = self.status()
            return not found[0].warnings and bool(found[0].journals) and found[0].pending == 0

        self.until(settled, "nothing is pending")
        return found[0]

    def _settled(self, query: str) -> tuple[Status, list[tuple[Any, ...]]]:
        """Return the state and the stored messages; the broker may still be reading from clients that have left."""
        while True:
            state, rows = self.settle(), self.sql(query)
            if self.settle().counters == state.counters:
                return state, rows

    def logged(self, text: str) -> bool:
        """Return True if a text is in the log."""
        return text in self.log.read_text()

    def lines(self, text: str) -> list[str]:
        """The lines of the log that say something."""
        return [line for line in self.log.read_text().splitlines() if text in line]

    def until_logged(self, text: str) -> None:
        """Wait until the log says something."""
        self.until(lambda: self.logged(text), f"the log says {text!r}")

    def judge(
        self,
        ledger: Ledger,
        *,
        table: str = "loads",
        payload: Payload = sample,
        is_whole: bool = True,
    ) -> Verdict:
        """Compare what was acknowledged with what is stored, value by value, and count.

        ``is_whole``: the journal lost no positions, so that every one of them is accounted for.
        """
        names = tuple(payload((0, 0)))
        state, rows = self._settled(f"SELECT {', '.join(names)} FROM {table}")
        stored: Counter[Key] = Counter()
        for row in rows:
            key = (int(row[names.index("client")]), int(row[names.index("n")]))
            assert dict(zip(names, row, strict=True)) == payload(key)
            stored[key] += 1
        lost = ledger.acknowledged - set(stored)
        doubled = stored - ledger.sent
        assert not lost, f"lost: {len(lost)}, such as {sorted(lost)[:5]}"
        assert not doubled, f"stored more often than published: {sorted(doubled)[:5]}"
        format_count = Counter[str]()
        for counts in state.counters or ():
            format_count.update(stored=counts.stored, dead=counts.dead, ignored=counts.ignored)
        assert format_count["stored"] == len(rows), f"counted {format_count['stored']}, stored {len(rows)}"
        if is_whole:
            self._conserve(sum(format_count.values()))
        return Verdict(len(ledger.acknowledged), len(rows), format_count["dead"], len(lost), sum(doubled.values()))

    def verdict(self, ledger: Ledger, stored: int, dead: int = 0) -> Verdict:
        """The same for tests that have compared by themselves, and found nothing lost or doubled."""
        return Verdict(len(ledger.acknowledged), stored, dead)

    def _conserve(self, messages: int) -> None:
        """Received = stored + dead + ignored: every position of the journal is a message, or a connection's event.

        The event of an opening is not a message itself, and may still be on its way when nothing is pending.
        """
        self.until(lambda: self._is_conserved(messages), f"{messages} messages account for every position")

    def _is_conserved(self, messages: int) -> bool:
        ((positions, generations),) = self.sql("SELECT max(position) - 1, count(*) FROM mqtt_journal")
        ((sessions,),) = self.sql("SELECT count(*) FROM mqtt_session")
        return bool(0 <= positions - messages - sessions - generations <= sessions)
