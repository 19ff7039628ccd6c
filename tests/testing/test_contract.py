"""The harness itself: every law is broken by some model, and by that model alone where the others do not meet it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import pytest
from hypothesis import Phase

from amqtt_db.errors import DatabaseError
from amqtt_db.models.base import Model
from amqtt_db.models.document import Document
from amqtt_db.models.eav import Eav
from amqtt_db.testing import ModelContract
from amqtt_db.testing.contract import tries
from amqtt_db.testing.databases import SQLITE, Database
from tests.effort import tried
from tests.testing import broken

pytestmark = pytest.mark.slow

PURE = {
    "the_model_is_made_again_from_its_name_and_options",
    "rows_name_only_declared_tables_and_columns",
    "lookups_have_names_of_their_own",
    "tables_only_grow",
    "rows_mean_the_records_they_were_made_of",
    "fast_and_plain_row_makers_agree",
    "fast_and_plain_readers_agree",
}
READING = {
    "what_is_written_reads_back",
    "the_worst_histories_read_back",
    "a_replayed_range_is_stored_once",
    "growing_shapes_leave_old_rows_alone",
    "the_order_of_shapes_decides_only_names",
    "another_model_reads_back_the_same",
    "reshaped_payloads_read_back_the_same",
    "a_replaced_row_is_the_newest",
    "a_life_of_crashes_replays_and_drift",
}
ALL = PURE | READING
LOSING = {"rows_mean_the_records_they_were_made_of", "fast_and_plain_readers_agree", *READING}


@attrs.frozen
class Case:
    """A broken model, the expected message, the laws that it must fail, and those that it may fail as a result."""

    model: Callable[[], Model]
    says: str
    breaks: set[str]
    may: set[str] = attrs.field(factory=set)

    def __str__(self) -> str:
        return self.model.__name__


CASES = [
    Case(broken.local, "cannot be imported", {"the_model_is_made_again_from_its_name_and_options"}, READING),
    Case(
        broken.NamesAnUndeclaredColumn,
        "a row fills 'color', which is not a fixed column",
        {"rows_name_only_declared_tables_and_columns"},
    ),
    Case(
        broken.NamesAnUndeclaredTable,
        "table nowhere, which is not declared",
        {"rows_name_only_declared_tables_and_columns"},
        {*LOSING, "fast_and_plain_row_makers_agree"},
    ),
    Case(broken.Shrinks, "has no columns for", {"tables_only_grow"}),
    Case(
        broken.DropsAProperty,
        "is 'absent'",
        {
            "rows_mean_the_records_they_were_made_of",
            "what_is_written_reads_back",
            "reshaped_payloads_read_back_the_same",
        },
        READING,
    ),
    Case(broken.LosesNaN, r"was \('number', nan\), is 'absent'", {"the_worst_histories_read_back"}, LOSING),
    Case(broken.FastMakerDisagrees, "the maker makes", {"fast_and_plain_row_makers_agree"}, READING),
    Case(broken.FastReaderDisagrees, "retain was False, is True", {"fast_and_plain_readers_agree"}, READING),
    Case(
        broken.MovesOldData,
        "is lost",
        {"growing_shapes_leave_old_rows_alone"},
        {*LOSING, "rows_name_only_declared_tables_and_columns", "tables_only_grow", "fast_and_plain_row_makers_agree"},
    ),
    Case(broken.OrderMatters, "other columns", {"the_order_of_shapes_decides_only_names"}),
    Case(
        broken.NotIdempotent,
        "is lost",
        {"a_replayed_range_is_stored_once"},
        {*LOSING, "fast_and_plain_row_makers_agree"},
    ),
    Case(broken.Squats, "owner of table mqtt_document was added by hand", {"another_model_reads_back_the_same"}),
    Case(
        broken.OneJournal,
        "IntegrityError|was never sent|session was",
        {"a_life_of_crashes_replays_and_drift"},
        {"rows_mean_the_records_they_were_made_of", "fast_and_plain_readers_agree"},
    ),
]


CASES += [
    Case(
        broken.CountsReplacements,
        "table newest, key .* should have",
        {"a_replaced_row_is_the_newest"},
        {"fast_and_plain_row_makers_agree"},
    ),
    Case(broken.ConfusesLookups, "there are two lookups device", {"lookups_have_names_of_their_own"}, ALL),
]

QUICK: Mapping[str, Any] = {"derandomize": True, "phases": [Phase.explicit, Phase.generate]}
"""Always the same examples, and no search for the smallest."""


def prove(model: Model, law: str) -> None:
    """Run one law for a model, on SQLite."""
    contract = type("Contract", (ModelContract,), {"model": model})()
    test = getattr(contract, f"test_{law}")
    test(*([SQLITE] if "database" in inspect.signature(test).parameters else []))


@pytest.mark.filterwarnings("ignore:Generating overly large repr")  # examples are not made smaller
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_broken_model_fails_its_law(case: Case) -> None:
    """The law about its fault finds it."""
    for law in sorted(case.breaks):
        with tried(100, **QUICK), pytest.raises((AssertionError, DatabaseError), match=case.says):
            prove(case.model(), law)


@pytest.mark.filterwarnings("ignore:Generating overly large repr")  # examples are not made smaller
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_broken_model_keeps_the_other_laws(case: Case) -> None:
    """A law finds what it is about, and nothing else."""
    with tried(3, **QUICK):
        for law in sorted(ALL - case.breaks - case.may):
            prove(case.model(), law)


def test_every_law_is_broken_by_some_model() -> None:
    """No law is there that has never been seen to fail."""
    laws = {name.removeprefix("test_") for name in vars(ModelContract) if name.startswith("test_")}
    assert laws == ALL == {law for case in CASES for law in case.breaks}


def test_a_law_is_a_sentence() -> None:
    """Each says what must hold."""
    for law in ALL:
        assert (getattr(ModelContract, f"test_{law}").__doc__ or "").endswith(".")


class TestShort(ModelContract):
    """The laws run where and how a subclass says."""

    model = Eav()
    databases = (attrs.evolve(SQLITE, name="spared", thorough=False),)

    def test_the_database_is_the_one_that_was_asked_for(self, database: Database) -> None:
        """A test of the subclass's own gets the databases too."""
        assert str(database) == "spared"
        assert tries(1, database).max_examples < tries(1).max_examples


def test_many_examples_spare_nobody() -> None:
    """A nightly profile tries every database equally hard."""
    with tried(1000):
        assert tries(1, attrs.evolve(SQLITE, thorough=False)).max_examples == 1000


def test_every_database_is_tried() -> None:
    """SQLite and PostgreSQL thoroughly, the others briefly."""
    tried_hard = {str(database): database.thorough for database in ModelContract.databases}
    assert tried_hard == {"sqlite": True, "postgresql": True, "mysql": False, "timescaledb": False}


def test_a_failure_says_what_the_model_did(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model's own error stands in the message, not only that records are lost."""

    def fail(*_: Any) -> Any:
        raise ZeroDivisionError("unlucky")

    monkeypatch.setattr(Document, "maker", lambda *_: fail)
    with pytest.raises(AssertionError, match="a dead letter says: ZeroDivisionError: unlucky"):
        prove(Document(), "the_worst_histories_read_back")
