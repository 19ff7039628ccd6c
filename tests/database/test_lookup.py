"""Ids of new keys: a batch looks up all of them together, however they are spread over its messages."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.workbench import Workbench


def _transactions(bench: Workbench, names: list[str]) -> int:
    """The transactions of the writer that store a batch, each message with a property of its own."""
    begun: list[object] = []
    database, note = bench.writer._database, begun.append
    sa.event.listen(database, "begin", note)
    bench.send(*(("t", {name: index}) for index, name in enumerate(names)))
    sa.event.remove(database, "begin", note)
    return len(begun)


@pytest.mark.parametrize("model", ["eav", "narrow"])
def test_new_names_cost_one_transaction(model: str, tmp_path: Path) -> None:
    """It has no more transactions for a hundred names than for one; those of known names need none at all."""
    bench = Workbench(tmp_path, {"topic": "#", "model": model})
    bench.send(("t", {"a": 1}))
    one, many = _transactions(bench, ["b"]), _transactions(bench, [f"c{number}" for number in range(100)])
    assert many == one
    assert _transactions(bench, ["a", "b", "c1"]) < one
    assert [record.properties() for record in bench.records()][1:101] == [
        {"b": ("number", 0.0)},
        *({f"c{number}": ("number", float(number))} for number in range(99)),
    ]
