"""Numbers in sentences, one log line per cause, growing pauses."""

from __future__ import annotations

from amqtt_db.errors import Backoff, OncePerCause, format_count


def test_one_is_no_plural() -> None:
    """One is singular, and none is plural."""
    assert [format_count(number, "row") for number in (0, 1, 2)] == ["0 rows", "1 row", "2 rows"]
    assert [format_count(number, "property", "properties") for number in (1, 5)] == ["1 property", "5 properties"]


def test_each_cause_is_logged_once_until_something_succeeds() -> None:
    """The same cause again is not news, not even after another one; what is over is the last that was logged."""
    causes = OncePerCause()
    assert [causes.is_new(cause) for cause in "aabba"] == [True, False, True, False, False]
    assert causes.resolve() == "b"
    assert causes.resolve() is None


def test_a_cause_that_comes_and_goes_is_logged_once_a_minute() -> None:
    """What works every other time does not fill the log, and what fails for longer than a minute is not hidden."""
    now = 0.0
    causes = OncePerCause(lambda: now)
    told = []
    for second in range(150):
        now = float(second)
        if causes.is_new("a"):
            told.append(second)
        if second < 100:
            causes.resolve()
    assert told == [0, 60, 120]


def test_pauses_double_up_to_the_longest() -> None:
    """After a success they begin with the first again."""
    backoff = Backoff(0.5, 3.0)
    assert [backoff.next_pause() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    backoff.reset()
    assert backoff.next_pause() == 0.5
