"""The setup that most faults share leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.frame import judged
from tests.faults.scene import Scene, Verdict


def test_the_clients_end_where_a_test_fails(tmp_path: Path) -> None:
    """The failure is reported unchanged, nothing is counted, and no client keeps trying."""
    format_count: list[Verdict] = []
    with pytest.raises(ZeroDivisionError), judged(Scene(tmp_path), format_count.append, first=0) as load:
        raise ZeroDivisionError
    assert not load.finished().sent
    assert format_count == []
