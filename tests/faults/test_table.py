"""The table on the reliability page is the suite's."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from tests.faults.scene import Verdict
from tests.faults.server import NAMES
from tests.faults.tally import BEGIN, END, Tally, rows

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "reliability.md"


def faults() -> set[str]:
    """The names of all faults of the suite."""
    modules = [import_module(f"tests.faults.{path.stem}") for path in HERE.glob("test_*.py")]
    marks = (mark for module in modules for thing in vars(module).values() for mark in getattr(thing, "pytestmark", ()))
    return {mark.args[0].format(server=server) for mark in marks if mark.name == "fault" for server in NAMES}


def test_its_rows_are_the_suites_faults() -> None:
    """Each fault is in the table, nothing else is, and nothing was lost or doubled."""
    table = rows(PAGE.read_text(encoding="utf-8"))
    assert {row[0] for row in table} == faults()
    assert [row for row in table if row[5:] != ["0", "0"]] == []
    assert [row for row in table if row[1] == "0"] == []


def test_a_run_writes_its_table(tmp_path: Path) -> None:
    """Rounds add up, faults keep their order, those not tried their rows; the rest of the page is unchanged."""
    tally = Tally()
    tally.add("two", Verdict(5, 5))
    tally.add("new", Verdict(1, 1))
    tally.add("one", Verdict(1000, 1500, 1))
    tally.add("one", Verdict(1000, 1500, 0))
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\n|head|\n|-|\n| one | 1 |\n| two | 1 |\n| old | 1 |\n{END}\nafter\n")
    tally.write(page)
    assert [" ".join(row) for row in rows(page.read_text())] == [
        "one 2 2,000 3,000 1 0 0",
        "two 1 5 5 0 0 0",
        "old 1",
        "new 1 1 1 0 0 0",
    ]
    assert page.read_text().startswith("before\n")
    assert page.read_text().endswith("after\n")
