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
@pytest.mark.parametrize("model", MODELS)
def test_what_is_stored_at_an_edge_can_be_exported_and_moved(model: str, site: Site) -> None:
    """Each is a record or a dead letter, and nothing that is stored ends an export, a tail or a remodel."""
    decoder = f"{__name__}.edge"
    bench = Workbench(site, {"topic": "#", "model": model, "decode": decoder})
    for number, payload in enumerate(STORED):
        bench.send((f"stored/{number}", payload.encode()))
    for number, payload in enumerate(DEAD):
        bench.send((f"dead/{number}", payload.encode()))
    assert sorted(letter.topic for letter in bench.dead()) == sorted(f"dead/{n}".encode() for n in range(len(DEAD)))
    before = exported(site.url)
    assert before.count(b"\n") == len(STORED)
    for other in (*(one for one in MODELS if one != model), model):
        bench.restart({"topic": "#", "model": other, "decode": decoder})
        moving = Remodel(site.url, bench.writer._routes)
        for move in moving.moves():
            list(moving.move(move))
        moving.close()
        assert exported(site.url) == before


def exported(url: str) -> bytes:
    """Return everything that is stored, as JSON Lines."""
    written: list[bytes] = []
    export(url, written.append)
    return b"".join(written)
