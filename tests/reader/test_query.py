"""A user's own SQL: it reads, and nothing else, on every engine."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from amqtt_db.cli import app
from amqtt_db.errors import DatabaseError
from amqtt_db.reader.query import run_query
from tests.database.engines.servers import Site
from tests.workbench import Workbench

CHANGES = (
    "DELETE FROM climate",
    "INSERT INTO climate (id, part) VALUES (1, 2)",
    "CREATE TABLE mine (id INTEGER)",
    "DROP TABLE climate",
    "SELECT 1; DELETE FROM climate",
    "COMMIT; DELETE FROM climate",
    "COMMIT",
)
"""Statements that a query may not be."""


def test_it_reads_and_changes_nothing(site: Site) -> None:
    """A SELECT answers with names and rows; anything else is an error of one line, and the tables stay as they were."""
    bench = Workbench(site, {"topic": "home/#", "model": {"wide": {"table": "climate"}}})
    bench.send(("home/a", {"temp": 21.5}), ("home/b", {"temp": 18}))
    found = run_query(bench.url, "SELECT topic, temp FROM climate WHERE topic LIKE 'home/%' ORDER BY topic")
    assert (found.columns, list(map(tuple, found.rows))) == (
        ("topic", "temp"), [("home/a", 21.5), ("home/b", 18.0)]
    )  # fmt: skip
    for statement in CHANGES:
        with pytest.raises(DatabaseError) as error:
            run_query(bench.url, statement)
        assert "\n" not in str(error.value)
    assert len(bench.records()) == 2
    with pytest.raises(DatabaseError, match=r"the database answers: .*nowhere.*; there are climate, climate_view"):
        run_query(bench.url, "SELECT * FROM nowhere")
    with pytest.raises(DatabaseError, match=r"; did you mean climate or climate_view\?"):
        run_query(bench.url, "SELECT * FROM climat")


def test_a_long_query_is_stopped(site: Site) -> None:
    """After the seconds that it may take."""
    bench = Workbench(site, {"topic": "home/#", "model": {"wide": {"table": "climate"}}})
    bench.send(*(("home/a", {"n": number}) for number in range(300)))
    many = ", ".join(f"climate AS t{number}" for number in range(6))
    with pytest.raises(DatabaseError):
        run_query(bench.url, f"SELECT COUNT(*) FROM {many} WHERE t0.n + t1.n + t2.n + t3.n + t4.n + t5.n = -1", 0.2)


@pytest.mark.parametrize(
    "statement",
    [
        "PRAGMA journal_mode = DELETE",
        "PRAGMA query_only = OFF",
        "ATTACH DATABASE 'other.db' AS other",
        "VACUUM",
        "VACUUM INTO 'other.db'",
        "EXPLAIN DELETE FROM t",
    ],
)
def test_sqlite_has_other_ways_to_write(statement: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And none of them works."""
    monkeypatch.chdir(tmp_path)
    bench = Workbench(tmp_path, {"topic": "#"})
    bench.send(("t", {"n": 1}))
    with pytest.raises(DatabaseError):
        run_query(bench.url, statement)
    assert not (tmp_path / "other.db").exists()


def invoke(tmp_path: Path, *arguments: str) -> Result:
    """The command on the database of a directory."""
    (tmp_path / "c.yaml").write_text(f"broker: mqtt://localhost\ndatabase: sqlite:///{tmp_path}/mqtt.db\n")
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, ["query", *arguments, str(tmp_path / "c.yaml")])


def test_the_formats(tmp_path: Path) -> None:
    """A table for people, CSV and JSON for programs, with odd values."""
    bench = Workbench(tmp_path, {"topic": "#", "decode": "bytes"})
    bench.send(("t", b"\x00\xff"), ("t", b'"\r\n'))
    statement = "SELECT value AS payload, NULL AS missing, 'a,\"b\"' AS text, 9e999 AS big FROM t ORDER BY id"
    table = invoke(tmp_path, statement)
    assert (table.exit_code, "missing" in table.stdout, "\\x00" in table.stdout) == (0, True, True), table.output
    rows = list(csv.reader(io.StringIO(invoke(tmp_path, statement, "--format", "csv").stdout)))
    assert rows == [["payload", "missing", "text", "big"], ["AP8=", "", 'a,"b"', "inf"], ["Ig0K", "", 'a,"b"', "inf"]]
    found = json.loads(invoke(tmp_path, statement, "--json").stdout)
    assert found[0] == {"payload": "AP8=", "missing": None, "text": 'a,"b"', "big": None}


def test_a_users_mistake_is_one_line(tmp_path: Path) -> None:
    """Wrong SQL, two columns of one name in JSON, a database that is not there."""
    assert "does not exist yet" in invoke(tmp_path, "SELECT 1").stderr
    Workbench(tmp_path, {"topic": "#"}).send(("t", {"n": 1}))
    for arguments, told in (
        (("SELEKT 1",), 'near "SELEKT": syntax error'),
        (("SELECT 1 AS a, 2 AS a", "--format", "json"), "two columns are named a"),
        (("DROP TABLE t",), "only queries are allowed"),
    ):
        result = invoke(tmp_path, *arguments)
        assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (1, "", 1)
        assert told in result.stderr
