"""A user who can create files next to a journal must not be able to make its processes write into other files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from amqtt_db.database.engines import engine_for
from amqtt_db.errors import JournalError
from amqtt_db.journal import Journal, WriterReport, read_progress, read_report, write_progress, write_report
from amqtt_db.writer.crash_guard import CrashGuard
from amqtt_db.writer.lock import acquire_lock


def open_owner(path: Path) -> None:
    """Own a journal."""
    Journal.open(path, max_size=2**30, sync="never").close()


def hold_maintenance(path: Path) -> None:
    """Hold the maintenance lock of an SQLite database."""
    url = f"sqlite:///{path}"
    with engine_for(url).maintenance(sa.create_engine(url)):
        pass


FILES: dict[str, Callable[[Path], object]] = {
    ".lock": open_owner,
    ".writer": lambda path: acquire_lock(path, ()),
    ".attempt": lambda path: CrashGuard(path.with_name(path.name + ".attempt")),
    ".progress": lambda path: write_progress(path, "token", 1),
    ".report.new": lambda path: write_report(path, WriterReport(started=0)),
    ".maintenance": hold_maintenance,
}


@pytest.mark.parametrize("end", FILES)
def test_no_file_beside_the_journal_is_written_through_a_link(end: str, tmp_path: Path) -> None:
    """The link is rejected, and its target is unchanged."""
    path, target = tmp_path / "mqtt.journal", tmp_path / "precious"
    target.write_text("precious")
    path.with_name(path.name + end).symlink_to(target)
    with pytest.raises((OSError, JournalError)):
        FILES[end](path)
    assert target.read_text() == "precious"


def test_progress_is_not_read_through_a_link(tmp_path: Path) -> None:
    """Another journal's progress must not trim this one."""
    write_progress(tmp_path / "other", "token", 7)
    (tmp_path / "mqtt.journal.progress").symlink_to(tmp_path / "other.progress")
    assert read_progress(tmp_path / "mqtt.journal") is None
    write_report(tmp_path / "other", WriterReport(started=0))
    (tmp_path / "mqtt.journal.report").symlink_to(tmp_path / "other.report")
    assert read_report(tmp_path / "mqtt.journal") is None
