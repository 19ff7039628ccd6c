"""After the cause is fixed, a replay stores exactly what can be stored now, and keeps the rest."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from amqtt_db.cli import app
from tests.faults.conftest import Count
from tests.faults.load import Ledger
from tests.faults.scene import Scene
from tests.integration.broker import RawClient

BROKEN = "import json\ndef decode(payload):\n    return {'n': int(payload)}\n"
MENDED = BROKEN.replace("int(payload)", "int(payload.strip(b'\"'))")


@pytest.mark.fault("dead letters replayed after the decoder was mended")
def test_replay_stores_what_was_mended(
    tmp_path: Path, count: Count, round_: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers in quotes were dead letters, and are now stored once each; other text stays dead, with the reason."""
    decoder = tmp_path / "decoders.py"
    decoder.write_text(BROKEN)
    payloads: list[Any] = [number if number % 3 else str(number) for number in range(30)]
    payloads[7] = "no number"
    scene = Scene(tmp_path, routes=[{"topic": "t", "decode": "decoders.decode"}])
    with scene:
        with RawClient(scene.port, "c") as client:
            client.publish("t", payloads, 1)
            assert len(client.acknowledged(30)) == 30
        scene.settle()
        assert scene.sql("SELECT count(*) FROM t") == [(19,)]
    assert [(one.stored, one.dead) for one in scene.status().counters or ()] == [(19, 11)]
    decoder.write_text(MENDED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "decoders", raising=False)
    assert len(json.loads(_run(scene, "dead", "list", "--json"))) == 11
    assert _run(scene, "dead", "replay", status=1).splitlines()[-1] == "10 stored, 1 dead letter left"
    assert _run(scene, "dead", "replay", status=1).splitlines()[-1] == "0 stored, 1 dead letter left"
    assert scene.sql("SELECT n FROM t ORDER BY n") == [(number,) for number in range(30) if number != 7]
    (letter,) = json.loads(_run(scene, "dead", "list", "--json"))
    assert "ValueError" in letter["reason"]
    assert [(one.stored, one.dead) for one in scene.status().counters or ()] == [(29, 1)]
    count(scene.verdict(Ledger(acknowledged={(0, number) for number in range(30)}), 29, 1))
    assert _run(scene, "dead", "purge", "--yes") == "1 deleted\n"


def _run(scene: Scene, *command: str, status: int = 0) -> str:
    done = CliRunner().invoke(app, [*command, str(scene.config)])
    assert done.exit_code == status, done.stderr
    return done.stdout
