"""The bench: what it calls a crash is one, and what it checks it really finds."""

from __future__ import annotations

import pytest

from amqtt_db.models.document import Document
from amqtt_db.testing.bench import Bench
from amqtt_db.testing.databases import DATABASES, SQLITE, Database
from amqtt_db.testing.history import Sent, Setting
from amqtt_db.testing.servers import needed

SETTING = Setting()
ONE, TWO = Sent("t", ({"v": 1},)), Sent("t", ({"v": 2},))


@pytest.mark.parametrize("database", DATABASES, ids=str)
def test_a_crash_before_any_commit_leaves_nothing_behind(database: Database) -> None:
    """The message waits, and the writer that comes after stores it; on every engine a crash is one."""
    with needed(database.name):
        database.prepare()
    with Bench.of(database, Document(), SETTING) as bench:
        feed = bench.feed()
        feed.sent.append(ONE)
        feed.crash(1, 0)
        assert (feed.stored, bench.read()) == (0, [])
        feed.flush(1)
        assert (feed.stored, len(bench.read())) == (1, 1)


def test_a_crash_after_the_last_commit_comes_too_late() -> None:
    """Everything that was committed is stored."""
    with Bench.of(SQLITE, Document(), SETTING) as bench:
        feed = bench.feed()
        feed.sent.append(ONE)
        feed.crash(1, 99)
        assert feed.stored == 1
        bench.check(SETTING)


def test_a_crash_of_one_database_is_none_of_another() -> None:
    """Two benches side by side."""
    with Bench.of(SQLITE, Document(), SETTING) as bench, Bench.of(SQLITE, Document(), SETTING) as other:
        other.feed()
        bench.feed().sent.append(ONE)
        bench.feed().crash(1, 0)
        other.feed().store(TWO)
        other.check(SETTING)


def test_what_was_stored_by_no_journal_is_found() -> None:
    """The check compares with what was sent, not with what is there."""
    with Bench.of(SQLITE, Document(), SETTING) as bench:
        bench.feed("a").store(ONE)
        bench.feed("b").store(TWO)
        bench.check(SETTING)
        bench.feed("b").sent[0] = ONE
        with pytest.raises(AssertionError, match=r"was \('number', 1\.0\), is \('number', 2\.0\)"):
            bench.check(SETTING)


def test_each_journal_has_its_own_ids() -> None:
    """Numbers and positions as they were registered."""
    with Bench.of(SQLITE, Document(), SETTING) as bench:
        bench.feed("a").store(ONE, TWO)
        bench.feed("b").store(ONE)
        assert sorted(divmod(one.id, 2**40) for one in bench.read()) == [(1, 1), (1, 2), (2, 1)]


def test_a_replay_of_nothing_is_nothing() -> None:
    """There must be something stored to offer it again."""
    with Bench.of(SQLITE, Document(), SETTING) as bench:
        bench.feed().replay(0)
        bench.feed().store(ONE)
        bench.feed().replay(0)
        bench.check(SETTING)
