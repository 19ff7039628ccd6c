"""A session's rules one by one; test_session_model.py tests them together."""

from __future__ import annotations

import pytest

from amqtt_db.ingest.bridge.packets import (
    NO_PROPERTIES,
    PUBACK,
    PUBCOMP,
    PUBREC,
    Pingresp,
    Publish,
    Pubrel,
    acknowledgements,
)
from amqtt_db.ingest.bridge.session import Note, Received, Session

WINDOW = 2


def message(packet_id: int, payload: bytes = b"x", *, qos: int = 1, dup: bool = False) -> Publish:
    """A message of topic t."""
    return Publish(b"t", payload, qos, False, dup, packet_id, NO_PROPERTIES)


def keep(notes: dict[str, bytes], changes: list[Note]) -> None:
    """Commit notes."""
    for key, value in changes:
        notes.pop(key, None)
        if value is not None:
            notes[key] = value


def put(notes: dict[str, bytes], received: Received) -> Received:
    """Commit the notes of what was received."""
    keep(notes, received.notes)
    return received


def answers(*heads: int) -> bytes:
    """The acknowledgements with these heads."""
    return acknowledgements(heads)


def proven(notes: dict[str, bytes], last: int = 20, pongs: int = 1) -> Session:
    """A session with messages 4 to ``last``, all acknowledged, and every PINGREQ answered, after a restart."""
    session = Session({}, WINDOW)
    session.connected(False, WINDOW)
    for number in range(4, last + 1):
        answered = pongs * [Pingresp()] if session.is_asking else []
        put(notes, session.receive([*answered, message(number)], 0, 0))
        session.acknowledged()
        session.ask()
    return Session(notes, WINDOW)


def test_a_message_is_acknowledged_in_the_order_of_arrival() -> None:
    """One byte string has the acknowledgements of all packets."""
    session = Session({}, WINDOW)
    session.connected(False, WINDOW)
    received = session.receive([message(5), message(7, qos=2), message(0, qos=0), message(6), Pubrel(7)], 9, 4)
    assert received.acknowledgements == answers(PUBACK | 5, PUBREC | 7, PUBACK | 6, PUBCOMP | 7)
    assert [entry[:3] for entry in received.entries] == [(9, 2, 4), (9, 4, 4), (9, 0, 4), (9, 2, 4)]


def test_a_redelivered_message_is_recognized_after_a_restart() -> None:
    """It is acknowledged again, and not stored again; another content under its id is another message."""
    notes: dict[str, bytes] = {}
    session = proven(notes)
    assert session.is_proven
    session.connected(True, WINDOW)
    again = put(notes, session.receive([message(19, dup=True)], 0, 0))
    assert (again.entries, again.acknowledgements, again.recognized) == ([], answers(PUBACK | 19), 1)
    assert len(session.receive([message(20, b"other", dup=True)], 0, 0).entries) == 1


def test_without_one_of_the_conditions_a_message_is_stored() -> None:
    """Not marked as delivered again; a lost session; ids that begin with 1; `duplicates: keep`; no proof yet."""
    for present, packets in [(True, [message(20)]), (False, [message(20, dup=True)])]:
        session = proven({})
        session.connected(present, WINDOW)
        assert len(session.receive(packets, 0, 0).entries) == 1
    session = proven({})
    session.connected(True, WINDOW)
    assert len(session.receive([message(1), message(20, dup=True)], 0, 0).entries) == 2
    notes: dict[str, bytes] = {}
    proven(notes)
    keeping = Session(notes, WINDOW, drop=False)
    keeping.connected(True, WINDOW)
    assert len(keeping.receive([message(20, dup=True)], 0, 0).entries) == 1
    short = proven({}, last=9)
    short.connected(True, WINDOW)
    received = short.receive([message(9, dup=True)], 0, 0)
    assert (len(received.entries), received.unproven) == (1, 1)


def test_a_message_of_qos_2_that_was_released_is_recognized_like_one_of_qos_1() -> None:
    """Mosquitto may forget that it has got PUBREC."""
    notes: dict[str, bytes] = {}
    session = proven(notes)
    session.connected(True, WINDOW)
    put(notes, session.receive([message(21, b"other", qos=2), Pubrel(21)], 0, 0))
    session = Session(notes, WINDOW)
    session.connected(True, WINDOW)
    again = session.receive([message(21, b"other", qos=2, dup=True)], 0, 0)
    assert (again.entries, again.acknowledgements, again.recognized) == ([], answers(PUBREC | 21), 1)


@pytest.mark.parametrize(("first", "recognized"), [([65535, 1], 1), ([1], 0)])
def test_ids_begin_again_only_if_the_first_pubrel_has_one_of_the_first(first: list[int], recognized: int) -> None:
    """After 65,535 comes 1 also at a broker that keeps ids."""
    session = proven({})
    session.connected(True, WINDOW)
    received = session.receive([*map(Pubrel, first), message(20, dup=True)], 0, 0)
    assert (received.recognized, received.unproven) == (recognized, 1 - recognized)


def test_a_keep_alive_answered_together_with_the_question_changes_nothing() -> None:
    """A broker that stalls answers two PINGREQs at once."""
    assert proven({}, last=13, pongs=2).is_proven == proven({}, last=13).is_proven is True


def test_ids_that_are_missing_where_a_connection_begins_do_not_end_the_proof() -> None:
    """Those messages went out on the last connection; NATS sends them again behind new ones, in any order."""
    notes: dict[str, bytes] = {}
    session = proven(notes)
    session.connected(True, WINDOW)
    late = [message(20, dup=True), message(22, dup=True), message(21, dup=True), message(22, dup=True)]
    received = put(notes, session.receive([message(24), message(25), *late], 0, 0))
    assert (len(received.entries), received.recognized) == (4, 2)
    session = Session(notes, WINDOW)
    assert session.is_proven
    session.connected(True, WINDOW)
    far = session.receive([message(6000), message(25, dup=True)], 0, 0)
    assert (far.recognized, far.unproven) == (0, 1)


def test_a_message_repeated_on_the_same_connection_is_stored_once() -> None:
    """Some brokers repeat after a while what is not acknowledged yet; afterwards the id is free for another message."""
    session = Session({}, WINDOW)
    session.connected(False, WINDOW)
    assert len(session.receive([message(5)], 0, 0).entries) == 1
    assert session.receive([message(5, dup=True)], 0, 0).entries == []
    session.acknowledged()
    assert len(session.receive([message(5)], 0, 0).entries) == 1


def test_unreleased_messages_of_qos_2_outlive_a_restart_until_they_are_released() -> None:
    """Until PUBREL the same message is not stored again, even unmarked; then the id is another message's."""
    notes: dict[str, bytes] = {}
    session = Session(notes, WINDOW)
    session.connected(False, WINDOW)
    put(notes, session.receive([message(5, qos=2)], 0, 0))
    session = Session(notes, WINDOW)
    session.connected(True, WINDOW)
    assert put(notes, session.receive([message(5, qos=2)], 0, 0)).entries == []
    assert len(put(notes, session.receive([message(5, b"other", qos=2)], 0, 0)).entries) == 1
    assert put(notes, session.receive([Pubrel(5), Pubrel(6)], 0, 0)).acknowledgements == answers(
        PUBCOMP | 5, PUBCOMP | 6
    )
    session = Session(notes, WINDOW)
    session.connected(True, WINDOW)
    assert len(session.receive([message(5, b"other", qos=2, dup=True)], 0, 0).entries) == 1


def test_a_lost_session_leaves_no_notes() -> None:
    """They are deleted before the subscription, so before the first message of the new session.

    One stays, until the first id: that there was a connection.
    """
    notes: dict[str, bytes] = {}
    session = proven(notes)
    put(notes, session.receive([message(21, qos=2)], 0, 0))
    keep(notes, session.connected(False, WINDOW))
    assert notes == {"connecting": b"answered"}


@pytest.mark.slow
def test_notes_do_not_grow_without_bound() -> None:
    """Those of the last 32,767 ids are kept."""
    notes: dict[str, bytes] = {}
    session = Session(notes, WINDOW)
    session.connected(False, WINDOW)
    for start in range(0, 200_000, 1000):
        put(notes, session.receive([message((start + index) % 65535 + 1) for index in range(1000)], 0, 0))
        session.acknowledged()
    assert sum(len(value) // 8 for key, value in notes.items() if key.startswith("ids ")) in range(32_767, 33_024)


def test_retained_messages_can_be_left_out() -> None:
    """They are still acknowledged, or the broker would send them forever."""
    session = Session({}, WINDOW)
    session.connected(False, WINDOW, skip_retained=True)
    received = session.receive([message(5)._replace(retain=True), message(6)], 0, 0)
    assert (len(received.entries), received.acknowledgements) == (1, answers(PUBACK | 5, PUBACK | 6))


@pytest.mark.parametrize(
    ("first", "is_resumed"), [(message(4, qos=2), True), (Pubrel(4), True), (Pingresp(), False), (message(1), False)]
)
def test_an_unanswered_connect_leaves_a_doubt(first: Publish | Pubrel | Pingresp, is_resumed: bool) -> None:
    """The broker may have lost the session and started another one, which sends nothing before it is subscribed to."""
    notes: dict[str, bytes] = {}
    session = Session(notes, WINDOW)
    session.connected(False, WINDOW)
    put(notes, session.receive([message(4, qos=2)], 0, 0))
    for _ in range(3):
        session = Session(notes, WINDOW)
        keep(notes, session.connecting())
    keep(notes, session.connected(True, WINDOW))
    assert session.is_doubtful
    assert not session.is_resumed
    put(notes, session.receive([first], 0, 0))
    assert session.is_resumed == is_resumed
    if not is_resumed:
        assert len(session.receive([message(4, qos=2, dup=True)], 0, 0).entries) == 1
    session = Session(notes, WINDOW)
    keep(notes, session.connecting())
    session.connected(True, WINDOW)
    assert session.is_resumed


@pytest.mark.parametrize("first", [[message(1)], []])
def test_nothing_is_recognized_from_before_the_ids_began_again(first: list[Publish]) -> None:
    """Not even on later connections; and the ids that showed it may have been lost with a connection.

    NATS counts from 1 after a restart, and sends again only later, behind new messages.
    """
    notes: dict[str, bytes] = {}
    session = proven(notes)
    keep(notes, session.connecting())
    session.connected(True, WINDOW)
    put(notes, session.receive([message(21, qos=2)], 0, 0))
    for packets in (first, [message(24), message(21, qos=2, dup=True), message(20, dup=True)]):
        keep(notes, session.connecting())
        keep(notes, session.connected(True, WINDOW))
        received = put(notes, session.receive(packets, 0, 0))
    assert len(received.entries) == 3


def test_a_low_id_of_a_redelivered_message_does_not_show_that_ids_began_again() -> None:
    """Not even if none came on the last connection: a broker that counts again sends new messages first."""
    notes: dict[str, bytes] = {}
    session = proven(notes)
    for packets in ([], [message(19, dup=True), message(20, dup=True)]):
        keep(notes, session.connecting())
        keep(notes, session.connected(True, WINDOW))
        received = put(notes, session.receive(packets, 0, 0))
    assert received.recognized == 2


def test_an_old_message_is_not_recognized_if_ids_may_begin_again_before_65535() -> None:
    """Ids were seen to go up to 20, so 4 may be another message's by now, if the last ones were lost on their way."""
    session = proven({})
    session.connected(True, WINDOW)
    received = session.receive([message(10, dup=True), message(9, dup=True)], 0, 0)
    assert (received.recognized, received.unproven) == (1, 1)


def test_a_broker_that_marks_what_it_sends_again_sends_nothing_again_unmarked() -> None:
    """If it was put back to an older state, it may use the id of an unreleased message for another one."""
    session = proven({})
    session.connected(True, WINDOW)
    session.receive([message(21, qos=2), message(20, dup=True)], 0, 0)
    session.connected(True, WINDOW)
    assert len(session.receive([message(21, qos=2)], 0, 0).entries) == 1


def test_a_message_without_its_payload_is_acknowledged_and_not_stored() -> None:
    """It was too large; the broker must not send it again."""
    session = Session({}, WINDOW)
    session.connected(False, WINDOW)
    received = session.receive([message(5, b"")._replace(left_out=10**6), message(6, qos=2)], 0, 0)
    assert (len(received.entries), received.acknowledgements) == (1, answers(PUBACK | 5, PUBREC | 6))
