"""A journal whose database is lost for good: what is in it, whether it is sound, and its messages, by command."""

from __future__ import annotations

import base64
import json
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from amqtt_db.cli import app
from amqtt_db.journal import Journal, Progress, write_progress
from amqtt_db.journal.inspection import find_problems, read_journal_info
from amqtt_db.message import CONNECT, PUBLISH, flags
from tests.cli.test_cli import configuration, feed

SECOND = 1_000_000


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A journal with two openings: a connection with three messages, then a message without a connection."""
    path = tmp_path / "mqtt.journal"
    first = Journal.open(path, max_size=2**30, sync="never")
    session = first.append(flags(CONNECT), 1, 0, b"", b'{"client_id": "c\\u001b[31m"}')
    for second, payload in enumerate((b'{"v": 1}', bytes(range(256)), "ä\n".encode())):
        first.append(flags(PUBLISH, second, second == 1), second * SECOND + 5, session, b"a/b", payload)
        first.commit()
    first.close()
    second_ = Journal.open(path, max_size=2**30, sync="never")
    second_.append(flags(PUBLISH, 1), 9 * SECOND, 0, b"w", b"gone")
    second_.refuse(2)
    second_.commit()
    second_.close()
    return path


def invoke(command: str, *arguments: object) -> Result:
    """One journal command in a narrow terminal."""
    return CliRunner(env={"COLUMNS": "40"}).invoke(app, ["journal", command, *map(str, arguments)])


def test_info_tells_openings_positions_bytes_and_progress(journal: Path, tmp_path: Path) -> None:
    """The numbers are those of the journal, as text in whole lines and as JSON."""
    found = read_journal_info(journal)
    assert [(one.first, one.end, one.entries, one.messages) for one in found.generations] == [
        (1, 6, 5, 3),
        (6, 8, 2, 1),
    ]
    assert (found.messages, found.refused, found.progress) == (4, 2, None)
    write_progress(journal, found.generations[0].token, 4)
    assert read_journal_info(journal).progress == Progress(found.generations[0].token, 4)
    config = configuration(tmp_path)
    told = invoke("info", config)
    assert (told.exit_code, f"{journal}: 4 messages, {found.bytes} bytes" in told.stdout) == (0, True)
    assert f"generation {found.generations[0].token}: 3 messages, positions 1 to 5" in told.stdout
    assert "everything before position 4 of generation" in told.stdout
    assert [one["messages"] for one in json.loads(invoke("info", config, "--json").stdout)["generations"]] == [3, 1]


def test_info_of_a_journal_that_was_emptied_in_order(journal: Path) -> None:
    """Messages that were stored and deleted are reported as such."""
    owner = Journal.open(journal, max_size=2**30, sync="never")
    owner.trim(Progress(owner.token, owner.next))
    while owner.busy:
        owner.commit()
    owner.close()
    assert "empty, everything is stored" in invoke("info", "--journal", journal).stdout
    assert read_journal_info(journal).messages == 0


def test_export_gives_every_message_as_it_came(journal: Path, tmp_path: Path) -> None:
    """Topic, payload as text or base 64, time, QoS, retain and client, in order, to a file or standard output."""
    output = tmp_path / "rescued.jsonl"
    assert invoke("export", "--journal", journal, "--output", output).exit_code == 0
    assert output.read_text() == invoke("export", "--journal", journal).stdout
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    first = {"topic": "a/b", "payload": '{"v": 1}', "time": "1970-01-01T00:00:00.000005+00:00"}
    assert lines[0] == {**first, "qos": 0, "retain": False, "client": "c\x1b[31m"}
    assert base64.b64decode(lines[1]["payload_base64"]) == bytes(range(256))
    assert (lines[1]["qos"], lines[1]["retain"], lines[2]["payload"]) == (1, True, "ä\n")
    assert (lines[3]["payload"], lines[3]["client"]) == ("gone", None)


def test_verify_names_what_is_damaged_and_export_gives_the_rest(journal: Path, tmp_path: Path) -> None:
    """A changed byte and a missing group: exit status 1, with their positions; everything else is exported."""
    assert list(find_problems(journal)) == []
    sound = invoke("verify", configuration(tmp_path))
    assert (sound.exit_code, "4 messages, all readable" in sound.stdout) == (0, True)
    raw = bytearray(journal.read_bytes())
    raw[raw.index(bytes(range(256))) + 7] ^= 1
    journal.write_bytes(raw)
    with sqlite3.connect(journal) as connection:
        connection.execute("DELETE FROM entries WHERE first = 2")
    connection.close()
    told = invoke("verify", "--journal", journal)
    assert told.exit_code == 1
    assert told.stdout.splitlines() == ["positions 2 to 3 are missing", "positions 4 to 4 are damaged"]
    assert f"{journal}: 2 problems" in told.stderr
    lines = [json.loads(line) for line in invoke("export", "--journal", journal).stdout.splitlines()]
    assert [line["payload"] for line in lines] == ["ä\n", "gone"]


@pytest.mark.parametrize("command", ["info", "verify", "export"])
def test_a_journal_that_is_none(command: str, tmp_path: Path) -> None:
    """One line that names the file, exit status 1, and nothing is made."""
    told = invoke(command, "--journal", tmp_path / "nowhere")
    assert told.exit_code == 1
    assert f"journal {tmp_path / 'nowhere'}: it does not exist" in told.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_list_of_dead_letters_keeps_its_lines(tmp_path: Path) -> None:
    """However narrow the terminal: an id, its topic and its reason can be searched for with grep."""
    path = feed(tmp_path, ("home/kitchen/climate", b"{no json at all"), ("a" * 150, b"{"))
    told = CliRunner(env={"COLUMNS": "20"}).invoke(app, ["dead", "list", str(path)])
    newest, reason, oldest, _ = told.stdout.splitlines()
    assert "a" * 150 in newest
    assert "(route #, 1 byte)" in newest
    assert reason.startswith("    decode: ")
    assert "home/kitchen/climate  (route home/{room}/climate, 15 bytes)" in oldest


def test_a_list_of_dead_letters_for_programs(tmp_path: Path) -> None:
    """JSON with the same facts, and nothing but JSON where there are none."""
    path = feed(tmp_path, ("t", b"{"), ("t", {"v": 1}))
    (letter,) = json.loads(CliRunner().invoke(app, ["dead", "list", str(path), "--json"]).stdout)
    assert {name: letter[name] for name in ("topic", "filter", "step", "size", "client")} == {
        "topic": "t", "filter": "#", "step": "decode", "size": 1, "client": None,
    }  # fmt: skip
    CliRunner().invoke(app, ["dead", "purge", str(path), "--yes"])
    assert json.loads(CliRunner().invoke(app, ["dead", "list", str(path), "--json"]).stdout) == []
