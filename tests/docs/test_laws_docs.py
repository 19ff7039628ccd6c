"""The page of laws was written by a run and is complete."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import attrs
import pytest

from amqtt_db.testing import ModelContract
from amqtt_db.testing.databases import DATABASES
from tests.docs.test_docs import ROOT
from tests.laws import LAWS, NOWHERE, Laws, _contracts, page

PAGE = (ROOT / "docs" / "laws.md").read_text(encoding="utf-8")


def _words(law: str) -> str:
    return law.removeprefix("test_").replace("_", " ")


def _tables(text: str) -> dict[str, list[list[str]]]:
    """Return the cells of the page's tables by heading, up to a colon."""
    found = {}
    for part in text.split("\n## ")[1:]:
        heading, _, body = part.partition("\n")
        rows = [line.strip("| ").split(" | ") for line in body.splitlines() if line.startswith("|")]
        found[heading.partition(":")[0]] = [row for row in rows if set(row) != {"---"}]
    return found


def _needs_a_database(law: str) -> bool:
    return "database" in inspect.signature(getattr(ModelContract, law)).parameters


def test_rows_and_columns_are_the_laws_the_models_and_the_engines() -> None:
    """Adding one of them means writing the page again."""
    tables = _tables(PAGE)
    assert list(tables) == ["Without a database", *map(str, DATABASES)]
    for name, (head, *rows) in tables.items():
        assert head == ["Law", *_contracts()]
        wanted = [law for law in LAWS if _needs_a_database(law) == (name in map(str, DATABASES))]
        assert [row[0] for row in rows] == list(map(_words, wanted))


def test_the_models_are_those_of_the_code() -> None:
    """The page lists each model with its options."""
    found = dict(re.findall(r"^\| (\w+) \| `(.*)` \|$", PAGE, re.MULTILINE))
    assert found == {name: str(contract.model) for name, contract in _contracts().items()}


def test_the_page_was_written_with_every_engine_there() -> None:
    """Nothing was skipped or failed, and dashes appear only for models that an engine does not run."""
    for name, (_, *rows) in _tables(PAGE).items():
        for row in rows:
            for model, cell in zip(_contracts(), row[1:], strict=True):
                tried = {str(database) for database in _contracts()[model].databases} | {"Without a database"}
                assert cell in ({"full", "short"} if name in tried else {"—"}), (name, row[0], model)


@attrs.frozen
class Report:
    """The parts of a report that are used."""

    nodeid: str
    outcome: str


def test_a_run_writes_what_it_saw(tmp_path: Path) -> None:
    """The first report that is not a success decides; other tests are ignored."""
    laws = Laws(tmp_path / "laws.md")
    start = "tests/models/test_contract.py::TestEav::"
    for law, outcomes in {
        "test_what_is_written_reads_back[sqlite]": ["passed", "passed", "passed"],
        "test_what_is_written_reads_back[mysql]": ["skipped", "passed"],
        "test_a_replayed_range_is_stored_once[sqlite]": ["passed", "failed", "passed"],
        "test_tables_only_grow": ["passed"] * 3,
    }.items():
        for outcome in outcomes:
            laws.pytest_runtest_logreport(Report(start + law, outcome))  # type: ignore[arg-type]
    laws.pytest_runtest_logreport(Report("tests/docs/test_docs.py::test_what[sqlite]", "failed"))  # type: ignore[arg-type]
    laws.pytest_sessionfinish()
    tables = _tables((tmp_path / "laws.md").read_text(encoding="utf-8"))
    column = 1 + list(_contracts()).index("Eav")
    assert {row[0]: row[column] for row in tables["sqlite"][1:]} == {
        "what is written reads back": "full",
        "a replayed range is stored once": "failed",
    }
    assert [row[column] for row in tables["mysql"][1:]] == ["skipped"]
    assert [row[column] for row in tables["Without a database"][1:]] == ["full"]


@pytest.mark.slow
def test_what_is_spared_is_called_short() -> None:
    """A law that passed with fewer examples is `short`."""
    text = page({("Eav", LAWS[-1], "timescaledb"): "passed", ("Eav", LAWS[0], NOWHERE): "passed"})
    column = 1 + list(_contracts()).index("Eav")
    assert _tables(text)["timescaledb"][1][column] == "short"
