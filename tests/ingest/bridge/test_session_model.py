"""Random histories of brokers, a bridge and crashes: nothing is lost, nor stored twice where that is sound."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtt_db.ingest.bridge import session
from tests.ingest.bridge.model import History, Ids, Result, World

pytestmark = pytest.mark.slow

SEEDS = st.integers(0, 2**32)
FEW = 16
"""The part of all ids that may be missing where a connection begins."""


@st.composite
def worlds(draw: st.DrawFn, *ids: Ids) -> World:
    """A broker and a window; the broker's own may be far larger, and its ids soon begin again."""
    chosen = draw(st.sampled_from(ids or ("round", "lowest", "last freed", "renumbered")))
    last_id = draw(st.sampled_from([24, 60, 150, 65535]))
    window = draw(st.sampled_from([1, 2, 3, 5, 10]))
    sets_dup = draw(st.booleans())
    qos = draw(st.sampled_from([(1,), (2,), (1, 2), (1, 1, 1, 2)]))
    ring = min(draw(st.sampled_from([8, 30, 100, 65535])), last_id)
    may_retry = last_id == 65535 and ((chosen == "round" and ring == last_id) or (chosen == "renumbered" and sets_dup))
    # A broker that gives new ids to messages of QoS 2 breaks MQTT's rules; docs/bridge.md says what that may cost.
    restarts = chosen == "round" and qos == (1,) and draw(st.booleans())
    # After a restart the first id tells that ids began again only if few of them are lost with connections.
    most = min(ring // 3, last_id // FEW if restarts else ring)
    return World(
        ids=chosen, qos=qos, sets_dup=sets_dup, window=window,
        in_flight=max(1, min(window * draw(st.sampled_from([1, 2, 5, 12])), most)), last_id=last_id, ring=ring,
        start_id=draw(st.integers(1, ring)), contents=draw(st.sampled_from([1, 3])),
        trouble=draw(st.sampled_from([0.003, 0.01, 0.03, 0.1, 0.2])),
        # MQTT forbids to send again on the same connection.  Brokers that do give ids in turn: a late repetition's
        # acknowledgement would otherwise be taken for that of another message, whatever the bridge does.
        retries=may_retry and draw(st.booleans()), resends_late=draw(st.booleans()),
        forgets_pubrec=draw(st.booleans()), loses_sessions=draw(st.booleans()), restarts=restarts,
        steps=draw(st.sampled_from([100, 600])),
    )  # fmt: skip


def play(world: World, seed: int) -> Result:
    """Play a history in which ids begin again after the world's last one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "_IDS", world.last_id + 1)
        patch.setattr(session, "_LAST_ID", world.last_id)
        patch.setattr(session, "_HORIZON", world.last_id // 2)
        patch.setattr(session, "_MOST_MISSING", world.last_id // FEW)
        return History(world, seed).play()


@given(world=worlds(), seed=SEEDS)
def test_no_message_is_lost_at_any_broker(world: World, seed: int) -> None:
    """However it gives ids, whatever breaks, although contents are alike."""
    assert play(world, seed).lost == 0


@given(world=worlds("round"), seed=SEEDS)
def test_no_message_is_stored_twice_once_that_is_proven(world: World, seed: int) -> None:
    """By a broker that gives ids in turn, keeps them, and marks what it sends again."""
    far = world.resends_late or world.forgets_pubrec  # what is sent again may have been sent long ago
    if world.sets_dup and world.in_flight <= min(4 * world.window, world.last_id // (FEW if far else 1)):
        assert play(world, seed).doubled_though_proven == 0


@pytest.mark.parametrize(
    ("qos", "window", "resends_late"), [(1, 1, False), (1, 5, True), (1, 20, False), (2, 5, False), (2, 20, False)]
)
def test_the_proof_is_found_soon(qos: int, window: int, resends_late: bool) -> None:
    """Under load, without trouble at first; then a broken connection doubles nothing.

    At QoS 2, too, where the newest messages are never all released.
    """
    world = World(
        "round", (qos,), window=window, in_flight=window, start_id=9000, resends_late=resends_late, trouble=0.01,
        steps=800,
    )  # fmt: skip
    results = [play(world, seed) for seed in range(20)]
    assert sum(result.proven_connections for result in results) > 25
    assert all(result.doubled_though_proven == 0 for result in results)


@pytest.mark.parametrize("ids", ["lowest", "last freed", "renumbered"])
def test_the_model_loses_messages_without_the_proof(ids: Ids, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the model would find it if a session recognized messages that it cannot know."""
    monkeypatch.setattr(session.Session, "is_proven", True)
    monkeypatch.setattr(session.Session, "_is_in_sequence", session.Session._is_recent)
    monkeypatch.setattr(session, "_FIRST_IDS", ())
    assert sum(play(World(ids), seed).lost for seed in range(20)) > 0


def test_the_model_loses_messages_if_ids_in_turn_are_taken_for_a_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that takes the lowest free id and ignores the window has more ids in turn than any proof by number."""
    monkeypatch.setattr(session, "_PROOF_TRIPS", 0)
    monkeypatch.setattr(session.Session, "_is_in_sequence", session.Session._is_recent)
    world = World("lowest", window=2, in_flight=20, trouble=0.02)
    assert sum(play(world, seed).lost for seed in range(40)) > 0


def test_the_model_loses_messages_if_a_connection_without_ids_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that was restarted may have sent ids from 1 on there, and on the next one goes on behind them."""
    monkeypatch.setattr(session, "_MOST_MISSING", 0)
    world = World(
        "round", qos=(2,), last_id=150, in_flight=9, trouble=0.1, resends_late=True, restarts=True, steps=2000
    )
    assert sum(play(world, seed).lost for seed in range(10)) > 0


def test_the_model_loses_messages_of_qos_2_if_ids_are_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that gives new ids on each connection gives one that is still taken to another message."""
    monkeypatch.setattr(session, "_FIRST_IDS", ())
    assert sum(play(World("renumbered", qos=(2,)), seed).lost for seed in range(20)) > 0


def test_the_model_loses_messages_if_an_unanswered_connect_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker then reports a session, but it is a new one, with the ids of other messages."""
    monkeypatch.setattr(session.Session, "connecting", lambda _: [])
    world = World("lowest", qos=(2,), trouble=0.1, loses_sessions=True)
    assert sum(play(world, seed).lost for seed in range(20)) > 0


@pytest.mark.parametrize("ids", ["round", "lowest"])
def test_no_message_of_qos_2_is_stored_twice(ids: Ids) -> None:
    """Once the broker has shown that it keeps ids, which takes a connection that does not begin with the first ones."""
    for seed in range(60):
        world = World(ids, qos=(2,), start_id=9000, trouble=0.02, forgets_pubrec=seed % 2 == 1)
        result = play(world, seed)
        assert result.lost == result.doubled_though_proven == 0
        assert ids == "lowest" or world.forgets_pubrec or result.doubled == 0
