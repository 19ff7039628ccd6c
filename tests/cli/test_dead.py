"""Dead letters: chosen, shown, replayed and deleted."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import attrs
import pytest
import yaml

from amqtt_db.config import load_settings
from amqtt_db.database.dead_letters import letters
from amqtt_db.writer.lock import acquire_lock
from tests.cli.test_cli import feed, invoke
from tests.cli.test_habits import on_terminal

STRICT: dict[str, Any] = {"topic": "#", "entity": {"v": "float"}, "mismatch": "reject"}
BINARY = b'{"v": "\x1b\xff'
SENT = (("a/b", {"v": "hot"}), ("c", BINARY), ("a/c", {"v": "warm"}), ("a/b", {"v": 1}))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The configuration of a database with dead letters: of a/b, c and a/c, in this order."""
    return feed(tmp_path, *SENT, routes=[STRICT])


def _mend(path: Path) -> None:
    """Let the route accept every value."""
    document = yaml.safe_load(path.read_text())
    document["plugins"]["amqtt_db.Plugin"]["routes"] = [{**STRICT, "mismatch": "variant"}]
    path.write_text(yaml.safe_dump(document))


def _ids(path: Path) -> list[int]:
    return [letter.id for letter in letters(load_settings(path).database)][::-1]


def test_letters_are_chosen_by_id_topic_step_and_time(path: Path) -> None:
    """Options together select what has all of them; the limit counts what is selected."""
    first, second, third = _ids(path)
    cases: list[tuple[tuple[object, ...], list[int]]] = [
        ((), [third, second, first]),
        (("--topic", "a/#"), [third, first]),
        (("--step", "decode"), [second]),
        (("--topic", "a/+", "--limit", "1"), [third]),
        (("--id", first, "--id", second), [second, first]),
        (("--id", first, "--topic", "c"), []),
        (("--since", "1h"), []),
        (("--since", "2020-01-01", "--step", "deserialize"), [third, first]),
    ]
    for options, expected in cases:
        found = [letter["id"] for letter in json.loads(invoke("dead", "list", path, "--json", *options).stdout)]
        assert (options, found) == (options, expected)
    assert "c  (route" in invoke("dead", "list", path, "--step", "decode").stdout
    assert invoke("dead", "list", path, "--step", "nonsense").exit_code == 2


def test_the_newest_that_is_chosen_is_shown(path: Path) -> None:
    """By its id, or by what it has; without an id the first argument is the configuration."""
    first, second, _ = _ids(path)
    chosen: list[tuple[object, ...]] = [(first, path), (path, "--id", first), (path, "--topic", "a/b")]
    for arguments in chosen:
        assert "hot" in invoke("dead", "show", *arguments).stdout
    shown = invoke("dead", "show", path, "--topic", "a/#")
    assert "warm" in shown.stdout
    nothing: list[tuple[object, ...]] = [(path, "--topic", "x"), (second, path, "--topic", "a/#")]
    for arguments in nothing:
        missing = invoke("dead", "show", *arguments)
        assert (missing.exit_code, "amqtt-db dead list" in missing.stderr) == (1, True)
    assert invoke("dead", "show", "first", path).exit_code == 2


@pytest.mark.slow
def test_a_payload_is_written_byte_for_byte(path: Path) -> None:
    """To a file or a pipe, but not to a terminal, which its bytes might command."""
    assert invoke("dead", "show", path, "--topic", "c", "--payload").stdout_bytes == BINARY
    refused = on_terminal("dead", "show", path, "--topic", "c", "--payload")
    assert b"> FILE" in refused
    assert BINARY not in refused


def test_a_rehearsed_replay_changes_nothing_and_foresees_the_real_one(path: Path) -> None:
    """Both exit with 1 as long as letters are left, and with 0 afterwards."""
    _mend(path)
    rehearsed = invoke("dead", "replay", path, "--dry-run")
    assert len(_ids(path)) == 3
    replayed = invoke("dead", "replay", path)
    assert len(_ids(path)) == 1
    assert (rehearsed.exit_code, replayed.exit_code) == (1, 1)
    *kept, summary = rehearsed.stdout.splitlines()
    assert (kept, summary) == (replayed.stdout.splitlines()[:-1], "2 would be stored, 1 dead letter would be left")
    assert replayed.stdout.splitlines()[-1] == "2 stored, 1 dead letter left"
    assert invoke("dead", "replay", path, "--topic", "a/#").exit_code == 0


def test_a_replay_beside_a_writer_with_other_routes_is_refused(path: Path) -> None:
    """It would store by routes that the writer does not know; a rehearsal harms nobody."""
    settings = load_settings(path)
    (route,) = settings.routes
    lock = acquire_lock(settings.journal.path, [attrs.evolve(route, time="when")])
    try:
        refused = invoke("dead", "replay", path)
        assert (refused.exit_code, "different routes" in refused.stderr) == (1, True)
        assert "Traceback" not in refused.stderr
        assert invoke("dead", "replay", path, "--dry-run").stderr == ""
    finally:
        os.close(lock)


def test_a_selection_is_purged_after_a_question_with_its_number(path: Path) -> None:
    """All the others stay."""
    asked = invoke("dead", "purge", path, "--topic", "a/#")
    assert (asked.exit_code, "Delete 2 dead letters in sqlite:" in asked.stderr) == (1, True)
    assert asked.stderr.endswith("nothing was deleted, because the answer was not yes; --yes skips the question\n")
    assert invoke("dead", "purge", path, "--topic", "a/#", "--yes").stdout == "2 deleted\n"
    assert invoke("dead", "purge", path, "--since", "1h").stdout == "0 deleted\n"
    assert len(_ids(path)) == 1


def test_a_decoders_own_error_names_its_file_and_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last line of the user's own code, not that of a library which it calls."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "plc.py").write_text("import json\n\n\ndef decode(payload):\n    return json.loads(payload)\n")
    path = feed(tmp_path, ("a", b"{"), routes=[{"topic": "#", "decode": "plc.decode"}])
    (found,) = json.loads(invoke("dead", "list", path, "--json").stdout)
    assert re.fullmatch(r"plc\.decode fails with JSONDecodeError: .* \(plc\.py, line 5\)", found["reason"])
