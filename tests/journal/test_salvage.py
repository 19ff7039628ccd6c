"""A damaged journal is set aside and never emptied; a removed one comes back; both with all that can be read."""

from __future__ import annotations

import logging
import os
import random
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from types import FrameType

import pytest

from amqtt_db.errors import JournalError
from amqtt_db.journal import Journal, Progress, Sync, owned, salvage, write_progress
from amqtt_db.journal import file as journal_file
from amqtt_db.message import PUBLISH, flags
from tests.journal.test_journal import everything, fill, is_busy, opened

GROUPS, EACH = 60, 5


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal lies."""
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
    """What the journal holds of an opening, without its START."""
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


@pytest.mark.parametrize("seed", range(4))
def test_damaged_pages_cost_only_what_was_on_them(path: Path, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    """Random pages full of noise: everything else is kept under its positions, and nothing comes back changed."""
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
    """The file's second half is gone: the rest is kept, and the journal goes on behind it under a new token."""
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
    """Its groups cannot be read; that is no reason to move it away."""
    filled(path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 9")
        connection.execute("UPDATE entries SET blob = x'09'")
    connection.close()
    with pytest.raises(JournalError, match="its format is 9"):
        opened(path)
    assert aside(path) == []


@pytest.mark.parametrize("sync", ["always", "1s"])
def test_a_removed_journal_comes_back_with_all_it_held(
    path: Path, sync: Sync, caplog: pytest.LogCaptureFixture
) -> None:
    """`rm mqtt.journal*` under a running owner: the next commit writes it anew before it returns."""
    journal = opened(path, sync=sync)
    fill(journal, 3)
    for file in path.parent.iterdir():
        file.unlink()
    assert is_busy(journal)
    fill(journal, 2)
    assert not is_busy(journal)
    assert sum(map(len, everything(path))) == 51
    fill(journal, 1)
    with pytest.raises(JournalError, match="another process owns it"):
        opened(path)
    journal.close()
    opened(path).close()
    assert sum(map(len, everything(path))) == 62
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


@contextmanager
def failing(step: int) -> Iterator[list[int]]:
    """Whatever the journal's file is asked for fails once, at the call with the number ``step``; yields the count."""
    seen = [0]
    ours = {owned.__file__, journal_file.__file__}

    def look(frame: FrameType, event: str, _: object) -> None:
        if event == "c_call" and frame.f_code.co_filename in ours:
            seen[0] += 1
            if seen[0] == step:
                raise OSError(5, "Input/output error")

    sys.setprofile(look)
    try:
        yield seen
    finally:
        sys.setprofile(None)


def removed(path: Path, step: int) -> tuple[Journal, bool]:
    """A journal that was removed, and not written anew because a step failed; whether there was such a step."""
    path.parent.mkdir()
    journal = opened(path)
    fill(journal, 3)
    for file in path.parent.iterdir():
        file.unlink()
    with failing(step) as seen, suppress(JournalError):
        journal.write()
    return journal, seen[0] >= step


def strays(path: Path) -> set[str]:
    """Files that no owner of a journal looks after."""
    return {file.name.removeprefix(path.name) for file in path.parent.iterdir()} - {"", "-wal", "-shm", ".lock"}


def test_what_fails_while_a_removed_journal_comes_back_can_be_repeated(tmp_path: Path) -> None:
    """At whichever step: the next commit has everything, and nothing is left behind."""
    for step in count(1):
        path = tmp_path / str(step) / "mqtt.journal"
        journal, has_failed = removed(path, step)
        fill(journal, 2)
        journal.close()
        assert (step, sum(map(len, everything(path))), strays(path)) == (step, 51, set())
        opened(path).close()
        if not has_failed:
            break
    assert step > 20


def test_a_removed_journal_whose_owner_dies_while_it_comes_back(tmp_path: Path) -> None:
    """As soon as there is a whole copy it is found, at whichever step the owner dies; half a copy is thrown away."""
    survived = []
    for step in count(1):
        path = tmp_path / str(step) / "mqtt.journal"
        journal, has_failed = removed(path, step)
        is_copied = path.exists() or path.with_name("mqtt.journal.copy").exists()
        journal.close()
        opened(path).close()
        assert (step, sum(map(len, everything(path))) > 30, strays(path)) == (step, is_copied, set())
        survived.append(is_copied)
        if not has_failed:
            break
    assert survived.count(True) > 10


@pytest.mark.parametrize("in_its_place", ["another file", "the removed one"])
def test_a_copy_beside_a_file_in_its_place_is_kept(in_its_place: str, path: Path) -> None:
    """Which of the two is the journal is its user's to say; the copy has everything, whatever the file is."""
    journal = opened(path)
    fill(journal, 2)
    elsewhere = path.with_name("elsewhere")
    path.rename(elsewhere)
    journal_file.write_copy(journal._file.connection, path)
    journal.close()  # as if its owner had died
    if in_its_place == "the removed one":
        elsewhere.rename(path)
    else:
        path.write_bytes(b"another file")
    advice = "in its place, the removed one again or another; move that one away, and the copy becomes the journal"
    with pytest.raises(JournalError, match=advice):
        opened(path)
    assert ".copy" in strays(path)
    path.rename(elsewhere)
    opened(path).close()
    assert sum(map(len, everything(path))) == 22
    assert ".copy" not in strays(path)


def test_a_file_that_is_put_back_needs_no_copy(path: Path) -> None:
    """It is the journal again, and its copy is deleted."""
    journal = opened(path)
    path.rename(path.with_name("elsewhere"))
    path.write_bytes(b"another file")
    journal._file._copy = journal_file.write_copy(journal._file.connection, path)
    with pytest.raises(JournalError, match="another file has taken its place"):
        journal.commit()
    path.with_name("elsewhere").rename(path)
    fill(journal, 1)
    journal.close()
    assert strays(path) == set()


def test_a_journal_whose_place_is_taken_waits_until_it_is_free(path: Path) -> None:
    """Another file in its place is not touched; once that is away, everything is there again."""
    journal = opened(path)
    fill(journal, 2)
    for file in path.parent.glob("mqtt.journal*"):
        file.unlink()
    path.write_bytes(b"somebody else's")
    with pytest.raises(JournalError, match="another file has taken its place; move that one away"):
        fill(journal, 1)
    assert path.read_bytes() == b"somebody else's"
    path.unlink()
    journal.commit()
    assert sum(map(len, everything(path))) == 31
    journal.close()


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
    """Nobody would ever read it: it goes back to the opening whose positions it has."""
    token, payloads = filled(path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE entries SET opening = 65 WHERE first = (SELECT max(first) FROM entries)")
    connection.close()
    assert salvage.damage(path) == "a group belongs to an opening that is not there"
    opened(path).close()
    assert kept(path, token) == payloads
