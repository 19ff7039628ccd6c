"""What ``amqtt-db status`` counts while broker and writer go on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from amqtt_db.config import Settings, load_section
from amqtt_db.journal import Journal, JournalReader, Progress, write_progress
from amqtt_db.message import flags
from amqtt_db.reader import status
from tests.workbench import Workbench


def test_each_acknowledged_message_is_counted_or_pending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the writer stores it, and the broker trims the journal, between the looks into database and journal."""
    with closing(Journal.open(tmp_path / "mqtt.journal", max_size=2**20, sync="never")) as journal:
        for number in range(3):
            journal.append(flags(0, 1), number, 0, b"a/b", b"1")
        end = journal.commit()
        with closing(JournalReader(journal.path)) as reader:
            batch = reader.read(journal.token, 0)
        assert batch is not None
        bench = Workbench(tmp_path, token=journal.token)
        steps: list[Callable[[], Any]] = [
            lambda: bench.store(batch),
            lambda: write_progress(journal.path, journal.token, end),
            lambda: journal.trim(Progress(journal.token, end)),
            journal.commit,
        ]
        read_database = status._read_database

        def store_meanwhile(settings: Settings) -> Any:
            found = read_database(settings)
            while steps:
                steps.pop(0)()
            return found

        monkeypatch.setattr(status, "_read_database", store_meanwhile)
        found = status.read_status(load_section({"database": bench.url, "journal": {"path": str(journal.path)}}))
        assert found.pending == 0
        assert [(counts.filter, counts.stored) for counts in found.counters or ()] == [("#", 3)]


def test_a_report_that_the_database_never_reaches_ends_the_looks(tmp_path: Path) -> None:
    """The journal's messages were stored in another database, so what remains of them is pending."""
    with closing(Journal.open(tmp_path / "mqtt.journal", max_size=2**20, sync="never")) as journal:
        journal.append(flags(0, 1), 1, 0, b"a/b", b"1")
        write_progress(journal.path, journal.token, journal.commit())
        settings = load_section({"database": Workbench(tmp_path).url, "journal": {"path": str(journal.path)}})
        assert status.read_status(settings).pending == 1
