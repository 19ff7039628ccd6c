"""What goes in comes out, at every limit: it is stored and can be exported and moved, or it is a dead letter."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

import pytest

from amqtt_db.decode.checks import MAX_DEPTH
from amqtt_db.reader.export import export
from amqtt_db.record import MAX_DIGITS
from amqtt_db.writer.remodel import Remodel
from tests.database.engines.servers import Site
from tests.workbench import Workbench

MODELS: Final = ("wide", "eav", "document", "narrow")


def edge(payload: bytes) -> Any:
    """A decoder of the user's own: Python makes the value."""
    return eval(payload, {"Decimal": Decimal})  # noqa: S307 - only what stands in this file


def nested(levels: int) -> str:
    """A list in so many lists, under a property."""
    return f"{{'a': {'[' * (levels - 1)}1{']' * (levels - 1)}}}"


STORED: Final = [
    nested(MAX_DEPTH),
    "{'a': {'b': {'c': [[1, {'d': []}]]}}}",
    f"{{'n': 10 ** {MAX_DIGITS} - 1}}",
    f"{{'n': -10 ** {MAX_DIGITS} + 1}}",
    "{'n': [2 ** 64, -2 ** 63, 2 ** 53 + 1, 1e308, 5e-324, -0.0]}",
    "{'x': float('inf'), 'y': float('-inf'), 'z': float('nan')}",
    "{'d': Decimal('1E-400'), 'e': Decimal('9' * 5000)}",
    "{'t': ''.join(map(chr, range(0, 0x300)))}",
    "{'t': 'x' * 70_000}",
    "{'k' * 200: 1, 'k' * 201: 2}",
    "{'b': bytes(range(256))}",
]
DEAD: Final = [
    nested(MAX_DEPTH + 1),
    nested(400),
    "(lambda one: one.append(one) or {'a': one})([])",
    f"{{'n': 10 ** {MAX_DIGITS}}}",
    "{'n': [10 ** 5000]}",
    "{'k' * 70_000: 1}",
    "{None: 1}",
    "{'a': object()}",
]


@pytest.mark.slow
def test_what_is_stored_at_an_edge_can_be_exported_and_moved(site: Site) -> None:
    """Each is a record or a dead letter, and nothing that is stored ends an export, a tail or a remodel.

    Topic ``at/0`` begins in the first model, ``at/1`` in the second one, and so on; each move takes each to the next.
    """
    bench = Workbench(site, *routes_of(0))
    for number in range(len(MODELS)):
        for payload in (*STORED, *DEAD):
            bench.send((f"at/{number}", payload.encode()))
    assert [letter.payload for letter in bench.dead()] == [payload.encode() for payload in DEAD] * len(MODELS)
    before = exported(site.url)
    assert before.count(b"\n") == len(STORED) * len(MODELS)
    for step in range(1, len(MODELS) + 1):
        bench.restart(*routes_of(step))
        moving = Remodel(site.url, bench.writer._routes)
        for move in moving.moves():
            list(moving.move(move))
        moving.close()
        assert exported(site.url) == before


def routes_of(step: int) -> list[dict[str, Any]]:
    """Return the routes after so many moves."""
    return [
        {"topic": f"at/{number}", "model": MODELS[(number + step) % len(MODELS)], "decode": f"{__name__}.edge"}
        for number in range(len(MODELS))
    ]


def exported(url: str) -> bytes:
    """Return everything that is stored, as JSON Lines."""
    written: list[bytes] = []
    export(url, written.append)
    return b"".join(written)
