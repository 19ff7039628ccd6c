"""What an impatient user types wrong is told with what to do, and never with words of a library."""

from __future__ import annotations

from pathlib import Path

import pytest

from amqtt_db.writer.growth import CreatedTable, read_created, read_growth
from tests.cli.test_cli import configuration, feed, invoke


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("status mqtt:/host", "write mqtt://host, which `run`, `check` and `init` take"),
        ("run mqtts:host:8883", "write mqtts://host:8883,"),
        ("export mqtt://host", "the other commands take the YAML file"),
        ("run localhost", "if you mean the broker, write mqtt://localhost"),
        ("check broker:1883", "if you mean the broker, write mqtt://broker:1883"),
        ("status here", "is a directory; write the name of the YAML file, such as here/broker.yaml"),
        ("status empty", "is a directory; write the name of the YAML file"),
        ("status brokr.yaml", "brokr.yaml: does not exist; did you mean broker.yaml?"),
        ("rename broker.yaml a b", "broker.yaml is a file: write the topics first, and the configuration last"),
        ("export --format xml", "'xml' is not one of jsonl, csv, parquet"),
        ("run --log-level loud", "'loud' is not one of debug, info, warning, error"),
        ("dead list --step parse", "'parse' is not one of decode, deserialize, structure, store"),
        ("tail --interval 5q", "'5q' is not a time from 0.05 s to 1 day, such as 2 or 5min"),
        ("export --since soon", "'soon' is not a time"),
        ("topics --topic a/#/b", "'#' must be the last level"),
    ],
)
def test_a_wrong_argument_is_told_with_what_to_do(
    command: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exit code is 2."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    for directory in ("here", "empty"):
        (tmp_path / directory).mkdir()
    for place in (tmp_path, tmp_path / "here"):
        configuration(place)
    result = invoke(*command.split())
    told = " ".join(result.stderr.replace("│", " ").split())
    assert (result.exit_code, says in told, "Value error" in told, "Traceback" in told) == (2, True, False, False), told


def test_a_topic_without_records_has_no_table(tmp_path: Path) -> None:
    """Only empty messages came, and that is said where its table would be."""
    listed = invoke("topics", feed(tmp_path, ("empty/only", b"")))
    assert (listed.exit_code, "no table yet, because no message has become a record" in listed.stdout) == (0, True)


def test_new_tables_and_columns_are_named() -> None:
    """The first ten of each; the others are counted."""
    ddl = [
        *(f"CREATE TABLE t{number} (id BIGINT)" for number in range(12)),
        "ALTER TABLE a ADD COLUMN b REAL, ADD COLUMN c TEXT", "CREATE INDEX x ON a (b)",
    ]  # fmt: skip
    assert str(read_growth(ddl)) == (
        f"new tables: {', '.join(f't{number}' for number in range(10))} and 2 more; new columns: a.b, a.c"
    )
    statement = '\nCREATE TABLE a (\n\tid BIGINT NOT NULL, \n\t"order" REAL, \n\tPRIMARY KEY (id)\n)\n WITHOUT ROWID\n'
    assert list(read_created([statement, *ddl[-2:]])) == [CreatedTable("a", ("id", '"order"'))]
    assert str(read_growth(["ALTER TABLE a ADD COLUMN b REAL"])) == "new columns: a.b"
