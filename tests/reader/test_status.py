"""What ``amqtt-db status`` counts while broker and writer go on."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from amqtt_db.config import load_section
from amqtt_db.journal import Journal, Progress
from amqtt_db.message import flags
from amqtt_db.reader import status
from tests.workbench import Workbench


def test_each_acknowledged_message_is_counted_or_pending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the journal is trimmed while the database is read."""
    url = Workbench(tmp_path).url
    settings = load_section({"database": url, "journal": {"path": str(tmp_path / "mqtt.journal")}})
    read_database = status._read_database

    with closing(Journal.open(settings.journal.path, max_size=2**20, sync="never")) as journal:
        for number in range(3):
            journal.append(flags(0, 1, False), number, 0, b"a/b", b"1")
        end = journal.commit()

        def trim_meanwhile(*arguments: Any) -> Any:
            found = read_database(*arguments)
            journal.trim(Progress(journal.token, end))
            journal.commit()
            return found

        monkeypatch.setattr(status, "_read_database", trim_meanwhile)
        assert status.read_status(settings).pending == 3
        assert status.read_status(settings).pending == 0
