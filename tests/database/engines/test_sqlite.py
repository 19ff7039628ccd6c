"""SQLite keeps rows where they take the least space."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workbench import Workbench


@pytest.mark.parametrize(("model", "table", "has_row_ids"), [("document", "mqtt_document", True), ("wide", "t", False)])
def test_large_rows_have_row_ids(model: str, table: str, has_row_ids: bool, tmp_path: Path) -> None:
    """Small ones are in the tree of their key."""
    bench = Workbench(tmp_path, {"topic": "#", "model": model})
    bench.send(("t", {"v": 1}))
    ((sql,),) = bench.sql("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", [table])
    assert ("WITHOUT ROWID" in sql) is not has_row_ids


@pytest.mark.slow
def test_documents_take_little_more_than_their_text(tmp_path: Path) -> None:
    """1,500 bytes each: less than two thirds of that again for pages, indexes and envelopes."""
    bench = Workbench(tmp_path, {"topic": "#", "model": "document"})
    count, size = 2000, 1500
    bench.send(*((f"t/{number % 20}", {"n": number, "s": f"{number:06}" * (size // 6)}) for number in range(count)))
    ((pages,),) = bench.sql("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
    assert pages < count * size * 5 / 3
