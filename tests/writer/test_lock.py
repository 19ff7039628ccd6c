"""One writer per journal, and what others learn of its routes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from amqtt_db.errors import AmqttDbError, JournalError
from amqtt_db.ingest.supervisor import decode_job, encode_job
from amqtt_db.writer.lock import acquire_lock, require_same_routes
from tests.workbench import routes


def test_one_writer_per_journal(tmp_path: Path) -> None:
    """The second one gets an error that names the journal and what to do."""
    lock = acquire_lock(tmp_path / "journal", ())
    with pytest.raises(JournalError, match="another writer is using"):
        acquire_lock(tmp_path / "journal", ())
    os.close(lock)
    os.close(acquire_lock(tmp_path / "journal", ()))


@pytest.mark.parametrize(
    "change",
    [{"model": "eav"}, {"decode": "text"}, {"decode": {"csv": {"names": ["a"]}}}, {"entity": {"a": "int"}}],
    ids="-".join,
)
def test_a_writer_with_other_routes_is_in_the_way(change: dict[str, Any], tmp_path: Path) -> None:
    """While it is running, a process with another model, decoder or entity gets an error; afterwards it does not."""
    journal, old, new = tmp_path / "journal", routes({"topic": "t"}), routes({"topic": "t", **change})
    require_same_routes(journal, new)
    lock = acquire_lock(journal, old)
    require_same_routes(journal, old)
    with pytest.raises(AmqttDbError, match="restart its broker with this configuration first"):
        require_same_routes(journal, new)
    os.close(lock)
    require_same_routes(journal, new)
    os.close(acquire_lock(journal, new))


def test_routes_are_the_same_in_the_writers_process(tmp_path: Path) -> None:
    """The writer gets its routes with the keys in the order of the YAML, so that nobody takes them for others."""
    route = {"topic": "t", "decode": {"csv": {"names": ["power", "tariff"], "comma": True}}}
    given = decode_job(encode_job("", {"routes": [route]}))["config"]["routes"][0]
    lock = acquire_lock(tmp_path / "journal", routes(given))
    require_same_routes(tmp_path / "journal", routes(route))
    os.close(lock)
