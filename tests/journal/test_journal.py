"""The journal keeps what was committed, in order, through kills, copies and other processes; and says what is wrong."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtt_db.errors import JournalError, JournalInUse
from amqtt_db.journal import Journal, JournalReader, Progress, Sync, read_progress, write_progress
from amqtt_db.journal import file as journal_file
from amqtt_db.journal.group import (
    Entry,
    EntryColumns,
    decode_group,
    encode_group,
    split_groups,
    with_properties,
)
from amqtt_db.message import CONNECT, HAS_PROPERTIES, START, Batch, flags

MIB = 2**20
FIXTURES = Path(__file__).parent.parent / "fixtures"
INT64 = st.integers(-(2**63), 2**63 - 1)
FLAGS = st.integers(0, 255).map(lambda value: value & ~HAS_PROPERTIES)
ENTRY = st.tuples(INT64, FLAGS, INT64, st.binary(max_size=40), st.binary(max_size=200))

APPENDER = """
import sys
from amqtt_db.journal import Journal
journal = Journal.open(sys.argv[1], max_size=2**30, sync="always")
print(journal.token, flush=True)
while True:
    first = journal.next
    for position in range(first, first + 7):
        journal.append(2, position, 0, b"t", b"%d" % position)
    print(journal.commit(), flush=True)
"""
HOLDER = """
import sys
from amqtt_db.journal import Journal
journal = Journal.open(sys.argv[1], max_size=2**30, sync="never")
print("open", flush=True)
for line in sys.stdin:
    journal.append(2, 1, 0, b"t", line.encode())
    print(journal.commit(), flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the journal's path."""
    return tmp_path / "mqtt.journal"


def opened(path: Path, *, max_size: int = 2**30, sync: Sync = "always") -> Journal:
    """The journal at ``path``, owned."""
    return Journal.open(path, max_size=max_size, sync=sync)


def fill(journal: Journal, groups: int, per_group: int = 10, payload: bytes = b"payload") -> list[int]:
    """Commit groups of messages; return the position after each."""
    behind = []
    for _ in range(groups):
        for _ in range(per_group):
            journal.append(flags(0, 1), 1, 0, b"a/topic", payload)
        behind.append(journal.commit())
    return behind


def is_full(journal: Journal) -> bool:
    """Return True if the journal is full by now."""
    return journal.full


def is_busy(journal: Journal) -> bool:
    """Return True if there is now something to commit."""
    return journal.busy


def everything(path: Path, max_messages: int = 5000, max_bytes: int = 16 * MIB) -> list[Batch]:
    """All batches of all openings of the journal."""
    reader = JournalReader(path)
    try:
        return list(batches(reader, max_messages, max_bytes))
    finally:
        reader.close()


def batches(reader: JournalReader, max_messages: int, max_bytes: int) -> Iterator[Batch]:
    """All batches of all openings."""
    for generation in reader.generations():
        position = generation.first
        while batch := reader.read(generation.token, position, max_messages=max_messages, max_bytes=max_bytes):
            yield batch
            position = batch.end


@given(st.lists(ENTRY, min_size=1))
def test_a_group_reads_back_what_was_written(entries: list[Entry]) -> None:
    """decode_group(encode_group(entries)) gives every entry back, whatever is in it."""
    columns = decode_group(len(entries), encode_group(entries))
    read = zip(columns.times, columns.flags, columns.sessions, columns.topics, columns.payloads, strict=True)
    assert list(read) == entries


@given(st.lists(st.tuples(ENTRY, st.binary(max_size=20)), min_size=1))
def test_properties_of_messages_read_back_beside_their_payloads(found: list[tuple[Entry, bytes]]) -> None:
    """In a group of messages with and without them; a group without any is written as before."""
    entries: list[Entry] = []
    for (time, sent, session, topic, payload), properties in found:
        flagged, stored = with_properties(sent, payload, properties)
        entries.append((time, flagged, session, topic, stored))
    blob = encode_group(entries)
    columns = decode_group(len(entries), blob)
    assert list(columns.payloads) == [entry[4] for entry, _ in found]
    assert list(columns.properties or [b""] * len(found)) == [properties for _, properties in found]
    assert blob[0] == (3 if any(properties for _, properties in found) else 2)
    halves = EntryColumns.joined([columns.part(0, 1), columns.part(1, len(found))])
    assert list(halves.properties) == list(columns.properties)


@given(st.lists(ENTRY, min_size=1), st.integers(1, 2000))
def test_chunks_keep_the_order_and_the_limit(entries: list[Entry], most: int) -> None:
    """Chunks joined are the entries; a chunk of more than one entry keeps to the limit."""
    parts = list(split_groups(entries, most))
    assert [entry for part in parts for entry in part] == entries
    assert all(len(part) == 1 or sum(25 + len(e[3]) + len(e[4]) for e in part) <= most for part in parts)


@given(st.binary(max_size=300), st.integers(1, 5))
def test_a_damaged_blob_is_an_error(blob: bytes, count: int) -> None:
    """Arbitrary bytes are never decoded into something wrong silently with another error than JournalError."""
    try:
        columns = decode_group(count, blob)
    except JournalError:
        return
    assert sum(map(len, columns.topics)) + sum(map(len, columns.payloads)) + 25 * count + 5 == len(blob)


@given(st.lists(ENTRY, min_size=1), st.data())
def test_a_changed_byte_is_noticed(entries: list[Entry], data: st.DataObject) -> None:
    """Whichever byte of a group a disk changes: it is an error, and never another payload."""
    blob = bytearray(encode_group(entries))
    blob[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(JournalError):
        decode_group(len(entries), bytes(blob))


@given(st.lists(st.lists(ENTRY, min_size=1, max_size=8), max_size=5), st.integers(1, 9), st.integers(1, 500))
def test_the_reader_gets_every_entry_once(groups: list[list[Entry]], max_messages: int, max_bytes: int) -> None:
    """Whatever the limits of a batch, the batches together are the entries in order, and keep to the limits."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "journal"
        journal = opened(path, sync="never")
        expected = []
        for group in groups:
            for time, kind, session, topic, payload in group:
                position = journal.append(kind, time, session, topic, payload)
                expected.append((position, time, kind, session, topic, payload))
            journal.commit()
        found = everything(path, max_messages, max_bytes)
        journal.close()
    assert [entry for batch in found for entry in batch][1:] == expected
    for batch in found:
        assert len(batch) <= max_messages
        assert len(batch) == 1 or sum(map(len, [*batch.topics, *batch.payloads])) <= max_bytes


def test_reopening_goes_on_with_a_new_token(path: Path) -> None:
    """Each opening has its own token, names the one before, and reuses no position."""
    first = opened(path)
    fill(first, 2)
    behind = first.next
    first.close()
    second = opened(path)
    assert second.token != first.token
    assert second.next == behind + 1
    fill(second, 1)
    second.close()
    reader = JournalReader(path)
    old, new = reader.generations()
    assert (old.token, old.previous, new.token, new.previous) == (first.token, None, second.token, first.token)
    assert (old.first, new.first) == (1, behind)
    reader.close()
    kinds = [batch.message(0).kind for batch in everything(path)]
    assert kinds == [START, START]


def test_positions_are_not_reused_after_everything_was_trimmed(path: Path) -> None:
    """The next position is stored; it does not come from a table that is empty."""
    journal = opened(path)
    fill(journal, 3)
    behind = journal.next
    journal.trim(Progress(journal.token, behind))
    while journal.busy:
        journal.commit()
    assert journal.size == 0
    journal.close()
    again = opened(path)
    assert again.next == behind + 1
    again.close()


def test_the_position_of_an_entry_is_known_at_once(path: Path) -> None:
    """A message carries the position of a CONNECT entry that is committed together with it."""
    journal = opened(path)
    session = journal.append(flags(CONNECT), 1, 0, b"", b"{}")
    journal.append(flags(0, 2, True), 2, session, b"t", b"p")
    journal.commit()
    (batch,) = everything(path)
    message = batch.message(2)
    assert (message.session, message.qos, message.retain) == (batch.positions[1], 2, True)
    journal.close()


def test_a_killed_owner_loses_nothing_committed(path: Path) -> None:
    """After kill -9 every group whose commit returned is there, and nothing of another one."""
    with subprocess.Popen([sys.executable, "-c", APPENDER, path], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        committed = [int(child.stdout.readline()) for _ in range(50)]
        child.send_signal(signal.SIGKILL)
        committed += [int(line) for line in child.stdout if line.endswith("\n")]
    found = [entry for batch in everything(path) for entry in batch][1:]
    assert len(found) >= committed[-1] - 2
    assert len(found) % 7 == 0
    assert all(time == position and payload == b"%d" % position for position, time, _, _, _, payload in found)
    journal = opened(path)
    assert journal.next == found[-1][0] + 2
    journal.close()


def test_a_reader_sees_the_commits_of_another_process(path: Path) -> None:
    """``changed`` and ``read`` follow the owner, and reading does not hold it up."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        child.stdout.readline()
        reader = JournalReader(path)
        token = reader.generations()[0].token
        assert reader.changed()
        assert not reader.changed()
        assert reader.read(token, 2) is None
        child.stdin.write("hello\n")
        assert int(child.stdout.readline()) == 3
        assert reader.changed()
        batch = reader.read(token, 2)
        assert batch is not None
        assert batch.payloads == [b"hello\n"]
        assert reader.pending(token, 2) == 1
        reader.close()


def test_a_file_that_is_replaced_while_a_reader_opens_it_is_noticed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader may have opened the removed file, in which nothing will ever change."""
    opened(path).close()
    connect = journal_file.connect_reader

    def slowly(where: Path) -> sqlite3.Connection:
        connection = connect(where)
        path.unlink()
        opened(path).close()
        return connection

    monkeypatch.setattr(journal_file, "connect_reader", slowly)
    reader = JournalReader(path)
    try:
        with pytest.raises(JournalError, match="moved away or replaced"):
            reader.changed()
    finally:
        reader.close()


@pytest.mark.parametrize("in_its_place", ["nothing", "another file"])
def test_a_removed_file_takes_no_more_entries(in_its_place: str, path: Path) -> None:
    """Once the owner has checked, each commit fails and says what to do; a file in its place is not touched."""
    journal = opened(path)
    fill(journal, 2)
    elsewhere = path.with_name("elsewhere")
    path.rename(elsewhere)
    if in_its_place == "another file":
        path.write_bytes(b"somebody else's")
    assert not is_busy(journal)
    journal.check_file()
    assert is_busy(journal)
    for _ in range(2):
        with pytest.raises(JournalError, match=r"was removed or replaced .* put it back, or restart the broker"):
            fill(journal, 1)
    assert path.exists() == (in_its_place == "another file")
    elsewhere.rename(path)
    journal.commit()
    journal.check_file()
    assert not is_busy(journal)
    journal.close()
    assert sum(map(len, everything(path))) == 41


def test_a_failed_commit_looks_for_the_file(path: Path) -> None:
    """If a disk comes back without the journal, that is noticed before the next commit."""
    journal = opened(path)
    journal._connection.execute("PRAGMA max_page_count = 1")
    journal.append(2, 1, 0, b"t", bytes(30_000))
    with pytest.raises(JournalError, match="free some space"):
        journal.commit()
    journal._connection.execute("PRAGMA max_page_count = 1000000")
    path.unlink()
    with pytest.raises(JournalError, match="was removed or replaced"):
        journal.commit()
    journal.close()


def test_a_journal_of_the_first_version_goes_on(path: Path) -> None:
    """It opens, keeps what it held, and takes entries and notes."""
    shutil.copy(FIXTURES / "version_0" / "journal.db", path)
    before = everything(path)
    journal = opened(path)
    journal.remember("scope", "key", b"value")
    (behind,) = fill(journal, 1)
    journal.close()
    assert everything(path)[: len(before)] == before
    assert everything(path)[-1].end == behind
    journal = opened(path)
    assert dict(journal.notes("scope")) == {"key": b"value"}
    journal.close()


def count_notes(path: Path) -> int:
    """The notes that are committed."""
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM note").fetchone()[0])


def test_notes_are_committed_with_the_entries_and_outlive_them(path: Path) -> None:
    """A note is there after the commit of its entry and not before, through trimming, restart and deletion."""
    journal = opened(path)
    journal.remember("scope", "a", b"1")
    journal.remember("scope", "b", b"2")
    position = journal.append(2, 1, 0, b"t", b"x")
    assert dict(journal.notes("scope")) == {"a": b"1", "b": b"2"}
    assert count_notes(path) == 0
    journal.commit()
    journal.remember("scope", "b", None)
    journal.remember("scope", "a", b"3")
    assert is_busy(journal)
    journal.commit()
    journal.trim(Progress(journal.token, position + 1))
    while is_busy(journal):
        journal.commit()
    journal.remember("scope", "lost", b"")
    journal.close()
    journal = opened(path)
    assert dict(journal.notes("scope")) == {"a": b"3"}
    assert journal.notes("other") == {}
    journal.close()


def test_a_note_is_never_committed_without_its_entry(path: Path) -> None:
    """A commit that fails keeps both for the next one, also if it trims first."""
    journal = opened(path)
    (behind,) = fill(journal, 1)
    journal.trim(Progress(journal.token, behind))
    journal.remember("scope", "a", b"1")
    journal.append(2, 1, 0, b"t", bytes(300_000))
    journal._connection.execute("PRAGMA max_page_count = 1")
    for _ in range(3):
        with pytest.raises(JournalError, match="free some space"):
            journal.commit()
        assert count_notes(path) == 0
    journal._connection.execute("PRAGMA max_page_count = 1000000")
    journal.commit()
    assert count_notes(path) == 1
    journal.close()


def test_a_batch_that_starts_within_a_group_is_cut(path: Path) -> None:
    """``read`` from the middle of a group leaves out what is before, and ``pending`` counts what is after."""
    journal = opened(path)
    fill(journal, 2, per_group=10)
    reader = JournalReader(path)
    batch = reader.read(journal.token, 5, max_messages=10)
    assert batch is not None
    assert list(batch.positions) == list(range(5, 15))
    assert batch.end == 15
    assert reader.pending(journal.token, 15) == 7
    assert reader.pending("unknown", 0) == reader.pending(None, 0) == 20
    assert reader.read("unknown", 1) is None
    reader.close()
    journal.close()


def test_trimming_deletes_only_what_is_wholly_behind(path: Path) -> None:
    """A group with at least one entry after the progress is kept."""
    journal = opened(path)
    behind = fill(journal, 3)
    journal.trim(Progress(journal.token, behind[1] - 1))
    while journal.busy:
        journal.commit()
    (batch,) = everything(path)
    assert batch.positions[0] == behind[0]
    assert len(batch) == 20
    journal.close()


def test_trimming_needs_a_known_token(path: Path) -> None:
    """The progress of another journal trims nothing."""
    journal = opened(path)
    fill(journal, 1)
    journal.trim(Progress("another", 10**9))
    assert not journal.busy
    journal.close()


def test_trimming_spares_later_openings(path: Path) -> None:
    """A position far ahead of an older opening does not reach into the next one."""
    first = opened(path)
    fill(first, 1)
    first.close()
    second = opened(path)
    fill(second, 1)
    second.trim(Progress(first.token, 10**9))
    while second.busy:
        second.commit()
    assert {batch.token for batch in everything(path)} == {second.token}
    assert sum(map(len, everything(path))) == 11
    second.close()


def test_one_commit_trims_a_bounded_number_of_groups(path: Path) -> None:
    """Trimming a long journal is spread over many commits, so that none of them takes long."""
    journal = opened(path, sync="never")
    fill(journal, 300, per_group=1)
    journal.trim(Progress(journal.token, journal.next))
    journal.commit()
    assert journal.busy
    assert sum(map(len, everything(path))) == 301 - 64
    journal.close()


def test_an_opening_is_remembered_while_its_successor_is_not_stored(path: Path) -> None:
    """The opening that a waiting one names as previous is still listed, though nothing of it is left."""
    first = opened(path)
    first.trim(Progress(first.token, fill(first, 1)[-1]))
    while first.busy:
        first.commit()
    first.close()
    for _ in range(3):
        opened(path).close()
    reader = JournalReader(path)
    assert reader.generations()[0].token == first.token
    assert len(reader.generations()) == 4
    reader.close()


def test_space_is_used_again(path: Path) -> None:
    """A journal that is trimmed as it is filled does not grow."""
    journal = opened(path, sync="never")
    for _ in range(60):
        fill(journal, 4, per_group=10, payload=bytes(10_000))
        journal.trim(Progress(journal.token, journal.next))
    assert path.stat().st_size < 6 * MIB
    journal.close()


def test_full_is_about_what_waits(path: Path) -> None:
    """A journal is full at ``max_size`` bytes, appended ones included, and is not once it is trimmed."""
    journal = opened(path, max_size=10_000)
    fill(journal, 1, payload=bytes(900))
    assert not is_full(journal)
    journal.append(flags(0, 1), 1, 0, b"t", bytes(1000))
    assert is_full(journal)
    journal.commit()
    journal.close()
    journal = opened(path, max_size=10_000)
    assert is_full(journal)
    journal.trim(Progress(journal.token, journal.next))
    while journal.busy:
        journal.commit()
    assert not is_full(journal)
    journal.close()


def test_a_failed_commit_can_be_repeated(path: Path) -> None:
    """A later commit commits the same entries, once and under the same positions."""
    journal = opened(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    position = journal.append(flags(0, 1), 1, 0, b"t", b"one")
    for _ in range(2):
        with pytest.raises(JournalError, match="another program"):
            journal.commit()
    journal.append(flags(0, 1), 1, 0, b"t", b"two")
    other.execute("ROLLBACK")
    other.close()
    journal.commit()
    (batch,) = everything(path)
    assert batch.payloads == [b"", b"one", b"two"]
    assert batch.positions == [1, position, position + 1]
    journal.close()


def test_refused_messages_are_counted_for_good(path: Path) -> None:
    """The count survives a new opening, and readers see it."""
    journal = opened(path)
    journal.refuse()
    journal.refuse(2)
    journal.commit()
    journal.close()
    journal = opened(path)
    journal.refuse()
    journal.commit()
    reader = JournalReader(path)
    assert reader.refused() == journal.refused == 4
    reader.close()
    journal.close()


def test_there_is_one_owner(path: Path) -> None:
    """A second owner is refused while there is one, in the same process and in another."""
    journal = opened(path)
    with pytest.raises(JournalInUse, match=r"mqtt\.journal: another process owns it"):
        opened(path)
    command = [sys.executable, "-c", HOLDER, str(path)]
    child = subprocess.run(command, input="", capture_output=True, text=True, check=False)
    assert "JournalInUse" in child.stderr
    journal.close()
    opened(path).close()


def test_nobody_else_may_read_it(path: Path) -> None:
    """The journal and all files beside it are private to their user."""
    journal = opened(path)
    fill(journal, 1)
    write_progress(path, journal.token, 1)
    assert {file.name for file in path.parent.iterdir()} >= {
        "mqtt.journal",
        "mqtt.journal-wal",
        "mqtt.journal.progress",
    }
    assert {oct(file.stat().st_mode & 0o777) for file in path.parent.iterdir()} == {"0o600"}
    journal.close()


def test_another_programs_database_is_left_alone(path: Path) -> None:
    """Owner and reader reject a database that is not a journal, and do not change it."""
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE mine (a)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(JournalError, match="another program's database; choose another path"):
        opened(path)
    with pytest.raises(JournalError, match="another program's database; choose another path"):
        JournalReader(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_left_alone(path: Path) -> None:
    """Text, or a damaged journal, is named with what to do."""
    path.write_bytes(b"Dear diary, " * 1000)
    with pytest.raises(JournalError, match=r"mqtt\.journal: .*damaged or not a journal; move it away"):
        opened(path)


def test_a_newer_format_is_named(path: Path) -> None:
    """A journal of a later version is refused with both versions."""
    opened(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(JournalError, match="its format is 9, and this version of amqtt_db knows 2"):
        opened(path)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    """A path that cannot exist is an error that says so."""
    with pytest.raises(JournalError, match=r"No such file or directory; check that its directory exists"):
        opened(tmp_path / "nowhere" / "mqtt.journal")


def test_a_reader_needs_a_journal(path: Path) -> None:
    """A reader that comes too early gets an error, and creates nothing."""
    with pytest.raises(JournalError, match="it does not exist yet; the broker creates it"):
        JournalReader(path)
    assert not path.exists()


@pytest.mark.parametrize("sync", ["1s", "never"])
def test_the_other_modes_keep_everything_too(path: Path, sync: Sync) -> None:
    """Without a sync per commit, everything is still there for a reader and for the next owner."""
    journal = opened(path, sync=sync)
    fill(journal, 5)
    assert sum(map(len, everything(path))) == 51
    journal.close()
    assert sum(map(len, everything(path))) == 51


def test_one_second_later_the_disk_has_it(path: Path) -> None:
    """With ``1s`` a commit is due though nothing was appended, until the disk has what was written."""
    journal = opened(path, sync="1s")
    fill(journal, 1)
    assert not is_busy(journal)
    journal._synced_at -= 1.0
    assert is_busy(journal)
    journal.commit()
    assert not is_busy(journal)
    journal.close()


def test_progress_is_what_was_last_written(path: Path) -> None:
    """The owner reads the progress that was reported last; none, or a file that is damaged, is None."""
    assert read_progress(path) is None
    write_progress(path, "token", 17)
    write_progress(path, "token", 18)
    assert read_progress(path) == Progress("token", 18)
    whole = Path(f"{path}.progress").read_bytes()
    mixed = whole.replace(b"18", b"19")
    for damaged in (b"", b"{", b"[]", b'{"token": "a"}', b'{"token": "a", "position": null}', whole[:20], mixed):
        Path(f"{path}.progress").write_bytes(damaged)
        assert read_progress(path) is None
