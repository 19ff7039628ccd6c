"""What the writer remembers is bounded, and what it has forgotten it learns again."""

from __future__ import annotations

from pathlib import Path

import pytest

from amqtt_db.writer import insert_plan, view_refresh
from tests.workbench import Workbench


@pytest.mark.slow
@pytest.mark.parametrize("model", ["wide", "eav", "document", "narrow"])
def test_ever_new_names_and_shapes_are_forgotten_again(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unions, plans, and what views show stay small; every value is stored, and views show what they should."""
    monkeypatch.setattr(insert_plan, "MAX_UNION", 20)
    monkeypatch.setattr(insert_plan, "MAX_PLANS", 4)
    monkeypatch.setattr(insert_plan, "MAX_ALL_PLANS", 10)
    monkeypatch.setattr(view_refresh, "MAX_NOTED", 10)
    bench = Workbench(tmp_path, {"topic": "#", "model": model, "max_columns": 40})
    expected = []
    for number in range(60):
        data = {f"p{number}": float(number), "all": 1.0, f"q{number % 7}": 2.0}
        bench.send((f"t/{number % 5}", data))
        expected.append(data)
    assert bench.data() == expected
    planner, views = bench.writer._planner, bench.writer._views
    assert all(len(plans.union) <= 23 for plans in planner._plans.values())
    assert sum(len(plans.by_shape) for plans in planner._plans.values()) <= 11
    assert len(views._noted) <= 10
    bench.writer._views.finish()
    assert len(views._pairs) <= 10
    name = "t_0_view" if model == "wide" else "all_view"
    assert bench.sql(f"SELECT sum(all_) FROM {name}") == [(12.0 if model == "wide" else 60.0,)]
