"""Export and import: what comes back is what was there, and each record is there once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from typer.testing import CliRunner, Result

import amqtt_db
from amqtt_db.cli import app
from amqtt_db.message import CONNECT, Batch, Message, flags
from amqtt_db.reader.export import format_line
from amqtt_db.reader.parquet import write_parquet
from amqtt_db.reader.record_file import read_file_records, record_of_line
from amqtt_db.record import PROPERTIES_PATH, Record, Shape
from amqtt_db.testing import strategies
from tests.reader.test_arrow import told
from tests.values import same
from tests.workbench import Workbench

ROUTES: list[dict[str, Any]] = [{"topic": "home/{room}", "latest": True}, {"topic": "#", "model": "eav"}]
HISTORY: list[tuple[str, Any]] = [
    ("home/attic", {"temp": 21.5, "door": {"open": True}, "list": [1, {"a": None}]}),
    ("home/cellar", {"temp": "cold", "big": 2**70, "text": "\x00"}),
    ("other", {"temp": -0.0, "n": 2**60, "empty": {}}),
    ("other", {}),
]


def require_same(one: Record, other: Record) -> None:
    """Two records have the same envelope, kinds and values, −0.0 and NaN included."""
    ((left, values),), ((right, others),) = told([one]), told([other])
    assert (left, values.keys()) == (right, others.keys())
    assert all(same(values[pair], others[pair]) for pair in values)


def stored_shapes() -> Any:
    """Shapes of what readers return."""
    return strategies.shapes().filter(lambda shape: "tagged" not in shape.kinds)


def as_read(record: Record) -> Record:
    """Return a record as readers do: numbers are doubles, without absent properties."""
    pairs = {(path, kind): value for path, (kind, value) in record.properties().items()}
    return record.with_values({pair: float(value) if pair[1] == "number" else value for pair, value in pairs.items()})


def newest(url: str) -> dict[str, Any]:
    """The newest values by device."""
    return {state.device: dict(state.values) for state in amqtt_db.latest(url)}


def test_a_line_of_json_keeps_everything() -> None:
    """Every kind, whatever the value."""

    @given(strategies.records(stored_shapes()))
    def law(record: Record) -> None:
        require_same(record_of_line(format_line(as_read(record))), as_read(record))

    law()


def test_a_line_of_json_keeps_the_properties_of_mqtt() -> None:
    """In `properties`, beside the levels and the data."""
    shape = Shape(((PROPERTIES_PATH, "json"), ("n", "number"), ("{room}", "text")))
    values = ({"content_type": "text/plain", "user_properties": [["a", "b"]]}, 1.0, "hall")
    record = Record(1, 0, 0, "a", None, 1, False, values, shape)
    assert json.loads(format_line(record))["properties"] == values[0]
    require_same(record_of_line(format_line(record)), record)


def test_a_parquet_file_keeps_everything(tmp_path: Path) -> None:
    """Every kind, whatever the value."""

    @given(strategies.records(stored_shapes()))
    def law(record: Record) -> None:
        file = tmp_path / "file.parquet"
        with file.open("wb") as opened:
            assert write_parquet(lambda: [as_read(record)], opened.write) == 1
        (found,) = read_file_records(file)
        require_same(found, as_read(record))

    law()


def invoke(directory: Path, *arguments: object) -> Result:
    """A command on the database of a directory."""
    config = directory / "c.yaml"
    document = {
        "broker": "mqtt://localhost",
        "database": f"sqlite:///{directory}/mqtt.db",
        "journal": {"path": f"{directory}/mqtt.journal"},
        "routes": ROUTES,
    }
    config.write_text(json.dumps(document))
    name, *others = map(str, arguments)
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [name, *others, str(config)])


@pytest.fixture
def home(tmp_path: Path) -> Workbench:
    """A database with some records."""
    bench = Workbench(tmp_path, *ROUTES)
    bench.send(*HISTORY)
    return bench


@pytest.mark.slow
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_there_and_back(form: str, home: Workbench, tmp_path: Path) -> None:
    """Into an empty database: the same records, ids and newest values; importing again stores nothing."""
    new, file = tmp_path / "new", tmp_path / f"file.{form}"
    new.mkdir()
    assert invoke(tmp_path, "export", "--format", form, "--output", file).exit_code == 0
    for told_first, arguments in (("4 records would be stored, 0", ["--dry-run"]), ("4 records stored, 0", [])):
        result = invoke(new, "import", file, *arguments)
        assert (result.exit_code, result.stdout) == (0, f"{told_first} there before\n"), result.output
    url = f"sqlite:///{new}/mqtt.db"
    for one, other in zip(amqtt_db.read(url), amqtt_db.read(home.url), strict=True):
        require_same(one, other)
    assert newest(url) == newest(home.url)
    assert invoke(new, "import", file).stdout == "0 records stored, 4 there before\n"
    assert json.loads(invoke(new, "import", file, "--json").stdout) == {"new": 0, "same": 4}


def test_a_new_journal_does_not_get_the_numbers_of_imported_records(home: Workbench, tmp_path: Path) -> None:
    """What arrives afterwards has ids of its own."""
    new, file = tmp_path / "new", tmp_path / "file"
    new.mkdir()
    invoke(tmp_path, "export", "--output", file)
    assert invoke(new, "import", file).exit_code == 0
    bench = Workbench(new, *ROUTES, token="b")
    bench.send(*HISTORY)
    assert len({record.id for record in bench.records()}) == 2 * len(HISTORY)


def test_what_was_deleted_comes_back(home: Workbench, tmp_path: Path) -> None:
    """Into the database that it comes from, beside what is still there."""
    before = home.records()
    invoke(tmp_path, "export", "--output", tmp_path / "file")
    home.close()
    assert invoke(tmp_path, "delete", "--topic", "home/#", "--yes").exit_code == 0
    assert invoke(tmp_path, "import", tmp_path / "file").stdout == "2 records stored, 2 there before\n"
    assert home.records() == before


@pytest.mark.slow
def test_ids_of_another_database(home: Workbench, tmp_path: Path) -> None:
    """They are refused as they are, and get others under a name, the same ones whenever they are imported again."""
    other = tmp_path / "other"
    other.mkdir()
    bench = Workbench(other, *ROUTES, token="b")
    bench.send(("garden/rain", {"mm": 1}), ("home/attic", {"temp": 3}))
    invoke(other, "export", "--output", tmp_path / "file")
    result = invoke(tmp_path, "import", tmp_path / "file")
    assert (result.exit_code, "--source NAME" in result.stderr) == (1, True)
    assert len(home.records()) == len(HISTORY)
    for answer in ("2 records stored, 0 there before\n", "0 records stored, 2 there before\n"):
        result = invoke(tmp_path, "import", tmp_path / "file", "--source", "garden")
        assert result.stdout == answer, result.output
    found = home.records()
    assert len({record.id for record in found}) == len(found) == len(HISTORY) + 2
    bench.send(("garden/rain", {"mm": 2}))
    invoke(other, "export", "--output", tmp_path / "file")
    result = invoke(tmp_path, "import", tmp_path / "file", "--source", "garden")
    assert result.stdout == "1 record stored, 2 there before\n"
    home.send(("other", {"n": 1}))
    assert len(home.records()) == len(HISTORY) + 4


def test_ids_that_a_journal_is_still_to_give(home: Workbench, tmp_path: Path) -> None:
    """They would be another message's."""
    line = format_line(home.records()[0]).replace(str(home.records()[0].id), str(home.records()[0].id + 1000), 1)
    (tmp_path / "file").write_text(line)
    result = invoke(tmp_path, "import", tmp_path / "file")
    assert (result.exit_code, "still to give" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("content", "told_wrong"),
    [
        (b"{}\n", "line 1: it is not a record as `amqtt-db export` writes it: the key 'data' is missing"),
        (b'\n{"id":1,"part', "line 2: it is not a record as `amqtt-db export` writes it: it is not JSON, or"),
        (b"[1]", "line 1: it is not a record"),
        (b"\xff\n", "line 1: it is not a record"),
        (b"PAR1 and no more", "it is not a file as"),
        (b"id,part,time,topic,session,qos,retain,n\r\n", "this is CSV"),
        (b'{"id":-1,"part":0,"time":"2024-01-01T00:00:00+00:00","topic":"t","session":null,"qos":0,"retain":false,'
         b'"levels":{},"data":{}}', "line 1: it is not a record"),
    ],
)  # fmt: skip
def test_another_file_is_a_mistake(content: bytes, told_wrong: str, home: Workbench, tmp_path: Path) -> None:
    """One line says where; nothing is stored."""
    (tmp_path / "file").write_bytes(content)
    result = invoke(tmp_path, "import", tmp_path / "file")
    assert (result.exit_code, len(result.stderr.splitlines()), told_wrong in result.stderr) == (1, 1, True), (
        result.stderr
    )
    assert invoke(tmp_path, "import", tmp_path / "nowhere").exit_code == 1


def test_a_topic_without_a_route(tmp_path: Path) -> None:
    """The error names it."""
    record = Record(2**40 + 1, 0, 0, "$SYS/x", None, 0, False, (), Shape(()))
    (tmp_path / "file").write_text(format_line(record))
    result = invoke(tmp_path, "import", tmp_path / "file")
    assert (result.exit_code, "no route stores topic '$SYS/x'" in result.stderr) == (1, True), result.output
    assert not (tmp_path / "mqtt.db").exists()


def test_the_ids_of_dead_letters_and_sessions_are_taken(home: Workbench, tmp_path: Path) -> None:
    """A dead letter may still become a record, and a record's session is found by its id."""
    home.send(("home/attic", b"{"))
    home.store(Batch.of("a", Message(home.position, 0, flags(CONNECT), 0, b"", b"{}")))
    record = home.records()[0]
    for id_, told_wrong in ((home.dead()[0].id, "is a dead letter"), (1 << 40 | home.position, "the id of a session")):
        (tmp_path / "file").write_text(format_line(attrs.evolve(record, id=id_)))
        result = invoke(tmp_path, "import", tmp_path / "file")
        assert (result.exit_code, told_wrong in result.stderr) == (1, True), result.output
        assert invoke(tmp_path, "import", tmp_path / "file", "--source", f"s{id_}").exit_code == 0
