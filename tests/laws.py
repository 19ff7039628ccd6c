"""The table of laws in the documentation, written by the run that proves them: ``--write-laws FILE``."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs
import pytest
from hypothesis import settings

from amqtt_db.testing import ModelContract
from amqtt_db.testing.contract import LONG
from amqtt_db.testing.databases import DATABASES
from amqtt_db.testing.servers import SERVERS
from amqtt_db.testing.starting import Missing, connected

NOWHERE: Final = "none"
"""The key of laws that need no database."""

LAWS: Final = [name for name in vars(ModelContract) if name.startswith("test_")]

_TEST: Final = re.compile(r"tests/models/test_contract\.py::Test(\w+)::(test_\w+?)(?:\[(\w+)\])?$")
_VERSIONS: Final = {
    "postgresql": "SELECT 'PostgreSQL ' || current_setting('server_version')",
    "mysql": "SELECT VERSION()",
    "timescaledb": (
        "SELECT 'TimescaleDB ' || extversion || ' on PostgreSQL ' || current_setting('server_version') "
        "FROM pg_extension WHERE extname = 'timescaledb'"
    ),
}
_PREFACE: Final = """\
# Laws

This page shows which laws (property-based tests) were run for each model on each engine, and their results.
`pytest tests/models --write-laws docs/laws.md` writes it.

The same laws apply to [your own models](custom-models.md#prove-it).
"""

Outcomes = Mapping[tuple[str, str, str], str]
"""(model, law, database) → outcome."""


def _contracts() -> Mapping[str, type[ModelContract]]:
    """Return the contracts of the built-in models by name, without the prefix ``Test``."""
    from tests.models import test_contract  # noqa: PLC0415 - not while conftest is imported

    return {
        name.removeprefix("Test"): found
        for name, found in vars(test_contract).items()
        if isinstance(found, type) and issubclass(found, ModelContract) and found is not ModelContract
    }


@attrs.define
class Laws:
    """Collects the outcome of each law and writes the page at the end."""

    file: Path
    _outcomes: dict[tuple[str, str, str], str] = attrs.field(factory=dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record an outcome; the first of a test's three reports that is not a success decides."""
        found = _TEST.match(report.nodeid)
        if found is not None:
            key = found[1], found[2], found[3] or NOWHERE
            if self._outcomes.get(key, "passed") == "passed":
                self._outcomes[key] = report.outcome

    def pytest_sessionfinish(self) -> None:
        """Write the page."""
        if self._outcomes:
            self.file.write_text(page(self._outcomes), encoding="utf-8")


def page(outcomes: Outcomes) -> str:
    """Return the page's text."""
    seen = {database for (_, _, database), outcome in outcomes.items() if outcome == "passed"}
    examples = settings().max_examples
    lines = [_PREFACE]
    lines += [
        f"`full` means as many examples as the Hypothesis profile `{settings.get_current_profile_name()}` sets "
        f"({examples}, or fewer for slow laws); `short` means a third of them.",
        "A dash means that the law is not run there: models with the time in their keys differ from the others only in "
        "those keys.",
        "",
    ]
    lines += ["| Model | |", "| --- | --- |"]
    lines += [f"| {name} | `{found.model}` |" for name, found in _contracts().items()]
    for database in (NOWHERE, *map(str, DATABASES)):
        lines += ["", f"## {_heading(database, seen)}", "", *_table(outcomes, database)]
    return "\n".join(lines) + "\n"


def _heading(database: str, seen: set[str]) -> str:
    if database == NOWHERE:
        return "Without a database"
    return f"{database}: {_version(database)}" if database in seen else database


def _version(database: str) -> str:
    if database == "sqlite":
        return f"SQLite {sqlite3.sqlite_version}"
    try:
        with SERVERS.empty(database) as url, connected(url) as connection:
            return str(connection.exec_driver_sql(_VERSIONS[database]).scalar_one())
    except Missing as missing:
        return str(missing)


def _table(outcomes: Outcomes, database: str) -> Iterator[str]:
    names = list(_contracts())
    yield _row(["Law", *names])
    yield _row(["---"] * (len(names) + 1))
    for law in LAWS:
        cells = [_cell(name, database, outcomes.get((name, law, database))) for name in names]
        if set(cells) != {"—"}:
            yield _row([law.removeprefix("test_").replace("_", " "), *cells])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(name: str, database: str, outcome: str | None) -> str:
    if outcome != "passed":
        return outcome or "—"
    spared = {str(found) for found in _contracts()[name].databases if not found.thorough}
    return "short" if database in spared and settings().max_examples < LONG else "full"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--write-laws FILE``."""
    parser.addoption("--write-laws", metavar="FILE", type=Path, help="write the table of laws, models and engines")


def pytest_configure(config: pytest.Config) -> None:
    """Collect outcomes if ``--write-laws`` is given."""
    file: Path | None = config.getoption("--write-laws")
    if file is not None:
        config.pluginmanager.register(Laws(file))
