"""The table of a run: what every fault counted, for the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import attrs
import pytest

from tests.faults.scene import Verdict

BEGIN: Final = "<!-- faults: begin -->"
END: Final = "<!-- faults: end -->"
HEADER: Final = ("fault", "rounds", "acknowledged", "stored", "dead", "lost", "doubled")


@attrs.define
class Tally:
    """Rounds and verdicts by fault."""

    rounds: dict[str, int] = attrs.field(factory=dict)
    verdicts: dict[str, Verdict] = attrs.field(factory=dict)

    def add(self, fault: str, verdict: Verdict) -> None:
        """Count a round."""
        self.rounds[fault] = self.rounds.get(fault, 0) + 1
        self.verdicts[fault] = self.verdicts.get(fault, Verdict()) + verdict

    def table(self, known: Iterable[Sequence[str]] = ()) -> str:
        """The table in Markdown: the ``known`` rows, those of this run's faults renewed, then the other faults."""
        rows = {row[0]: row for row in known} | {fault: self._row(fault) for fault in self.rounds}
        lines = [HEADER, ["---", *["---:"] * (len(HEADER) - 1)], *rows.values()]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def _row(self, fault: str) -> Sequence[str]:
        return [fault, str(self.rounds[fault]), *map("{:,}".format, attrs.astuple(self.verdicts[fault]))]

    def write(self, path: Path) -> None:
        """Put the table between the markers of a file; faults that were not tried keep their rows."""
        page = path.read_text(encoding="utf-8")
        new = f"{BEGIN}\n\n{self.table(rows(page))}\n\n{END}"
        path.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: new, page, flags=re.DOTALL), encoding="utf-8")


def rows(page: str) -> list[list[str]]:
    """The rows of the table on a page."""
    table = page.partition(BEGIN)[2].partition(END)[0].strip().splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


class TallyWriter:
    """Collects the counts of all faults from the tests' reports, and writes them into a file at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tally = Tally()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add what a test counted."""
        for name, value in report.user_properties if report.when == "teardown" else ():
            if name == "fault" and isinstance(value, list):
                fault, *numbers = value
                self._tally.add(fault, Verdict(*numbers))

    def pytest_sessionfinish(self) -> None:
        """Write the table."""
        self._tally.write(self._path)
