"""A damaged journal is set aside, not deleted; what can be read from it is kept."""

from __future__ import annotations

import os
import random
import sqlite3
from pathlib import Path

import pytest

from amqtt_db.errors import JournalError
from amqtt_db.journal import Journal, Progress, salvage, write_progress
from amqtt_db.message import PUBLISH, flags
from tests.journal.test_journal import everything, fill, opened

GROUPS, EACH = 60, 5


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the journal's path."""
    return tmp_path / "mqtt.journal"


def filled(path: Path) -> tuple[str, dict[int, bytes]]:
    """A closed journal of several pages; its token, and the payload at each position."""
    journal = opened(path)
    payloads = {}
    for _ in range(GROUPS):
        for _ in range(EACH):
            payload = os.urandom(700)
            payloads[journal.append(flags(PUBLISH, 1), 1, 0, b"t", payload)] = payload
        journal.commit()
    journal.close()
    return journal.token, payloads


def kept(path: Path, token: str) -> dict[int, bytes]:
    """Return the entries of an opening of the journal, without its START."""
    return {
        position: payload
        for batch in everything(path)
        if batch.token == token
        for position, payload in zip(batch.positions, batch.payloads, strict=True)
        if payload
    }


def aside(path: Path) -> list[str]:
    """The names of what was set aside."""
    return [file.name for file in path.parent.iterdir() if ".damaged-" in file.name]


def overwrite(path: Path, at: int, data: bytes) -> None:
    """Change a file in its middle."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_damaged_pages_cost_only_what_was_on_them(path: Path, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    """After random pages were overwritten, everything else keeps its positions, and nothing comes back changed."""
    token, payloads = filled(path)
    rng = random.Random(seed)
    pages = rng.sample(range(4, path.stat().st_size // 4096), 2)
    for page in pages:
        overwrite(path, page * 4096, rng.randbytes(4096))
    before = path.read_bytes()
    opened(path).close()
    found = kept(path, token)
    assert found.items() <= payloads.items()
    assert len(found) >= len(payloads) - 30 * EACH
    (name,) = aside(path)
    assert (path.parent / name).read_bytes() == before
    assert f"set aside as {path.parent / name}" in caplog.text
    assert f"{len(found) + 1} messages and events could be read and kept" in caplog.text


def test_a_changed_payload_costs_its_group(path: Path) -> None:
    """SQLite does not notice a changed byte inside a value; the group's checksum does."""
    token, payloads = filled(path)
    position, payload = list(payloads.items())[EACH * 7]
    overwrite(path, path.read_bytes().index(payload[:300]), b"changed!")
    opened(path).close()
    assert set(payloads) - set(kept(path, token)) == set(range(position, position + EACH))


def test_a_journal_cut_short_keeps_what_is_left(path: Path) -> None:
    """If the file's second half is missing, the rest is kept, and the journal continues after it with a new token."""
    token, payloads = filled(path)
    os.truncate(path, path.stat().st_size // 2 // 4096 * 4096)
    journal = opened(path)
    found = kept(path, token)
    assert found
    assert found.items() <= payloads.items()
    assert journal.next > max(found)
    journal.close()


def test_entries_whose_openings_are_lost_are_stored_from_the_last_progress(path: Path) -> None:
    """The reported opening's checkpoint decides what of them is stored already, so nothing is stored twice."""
    token, payloads = filled(path)
    write_progress(path, token, 100)
    with sqlite3.connect(path) as connection:
        page = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'opening'").fetchone()[0]
    connection.close()
    overwrite(path, (page - 1) * 4096, os.urandom(4096))
    opened(path).close()
    assert kept(path, token) == payloads


def test_a_salvage_that_was_interrupted_is_finished(path: Path) -> None:
    """Killed between the complete copy and the renaming: the next start goes on from there."""
    token, payloads = filled(path)
    path.rename(path.with_name(path.name + ".mended"))
    path.write_bytes(b"half a journal")
    opened(path).close()
    assert kept(path, token) == payloads
    assert len(aside(path)) == 1


def test_a_log_without_its_file_is_set_aside(path: Path) -> None:
    """SQLite would delete it as left over."""
    journal = opened(path)
    fill(journal, 3)
    wal = path.with_name(path.name + "-wal").read_bytes()
    journal.close()
    path.unlink()
    path.with_name(path.name + "-wal").write_bytes(wal)
    opened(path).close()
    (name,) = aside(path)
    assert (path.parent / name).read_bytes() == wal


def test_another_version_is_not_taken_for_damage(path: Path) -> None:
    """Its groups cannot be read, but it is not moved away."""
    filled(path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 9")
        connection.execute("UPDATE entries SET blob = x'09'")
    connection.close()
    with pytest.raises(JournalError, match="its format is 9"):
        opened(path)
    assert aside(path) == []


def test_what_is_kept_can_be_trimmed(path: Path) -> None:
    """A salvaged journal is one like any other."""
    token, _ = filled(path)
    overwrite(path, 8 * 4096, bytes(4096))
    journal: Journal = opened(path)
    journal.trim(Progress(token, journal.next))
    while journal.busy:
        journal.commit()
    assert kept(path, token) == {}
    journal.close()


def test_what_lies_behind_a_wide_gap_is_kept(path: Path) -> None:
    """Positions that were lost before leave a gap, however wide."""
    journal = opened(path)
    fill(journal, 3)
    journal._next = 5_000_000
    journal.append(flags(PUBLISH, 1), 1, 0, b"t", b"behind")
    journal.commit()
    journal.close()
    assert [row[0] for row in salvage.readable(path)][-1] == 5_000_000


def test_a_group_of_an_opening_that_is_not_there_is_damage(path: Path) -> None:
    """It would never be read, so it is assigned to the opening that its positions belong to."""
    token, payloads = filled(path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE entries SET opening = 65 WHERE first = (SELECT max(first) FROM entries)")
    connection.close()
    assert salvage.damage(path) == "a group belongs to an unknown generation"
    opened(path).close()
    assert kept(path, token) == payloads
