"""A model as text: what the catalogue remembers of it, and what it still understands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from amqtt_db.models import BUILTIN, Document, Eav, Model, Narrow, Wide
from amqtt_db.models.spec import from_spec, to_spec
from tests.workbench import Workbench


@pytest.mark.parametrize("model", [Wide(), Wide(table="x"), Eav(), Document(prefix="d"), Narrow()], ids=str)
@pytest.mark.parametrize("timed", [False, True])
def test_a_built_in_model_has_its_registered_name(model: Model, timed: bool) -> None:
    """No module is named, so modules may move; the time in the keys is remembered."""
    text = to_spec(model, timed=timed)
    ((name, options),) = json.loads(text).items()
    assert name in BUILTIN
    assert options.get("timed", False) == timed
    assert from_spec(text) == (model, timed)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"amqtt_db.models.wide.Wide": {"table": null, "timed": false}}', (Wide(), False)),
        ('{"amqtt_db.models.wide.Wide": {"table": "x", "timed": true}}', (Wide(table="x"), True)),
        ('{"amqtt_db.models.eav.Eav": {"prefix": "a", "timed": true}}', (Eav(prefix="a"), True)),
        ('{"amqtt_db.models.document.Document": {"prefix": "mqtt"}}', (Document(), False)),
    ],
)
def test_older_texts_mean_the_same(text: str, expected: tuple[Model, bool]) -> None:
    """With the module's path, and the time in the keys as an option."""
    assert from_spec(text) == expected


def test_a_topic_stays_where_an_older_text_put_it(tmp_path: Path) -> None:
    """Its assignment is not replaced: it is the same model."""
    bench = Workbench(tmp_path, {"topic": "#", "model": {"wide": {"table": "x"}}})
    bench.send(("t", {"v": 1}))
    assert bench.sql("SELECT model FROM mqtt_assignment") == [('{"wide":{"table":"x"}}',)]
    bench.close()
    bench.sql("""UPDATE mqtt_assignment SET model = '{"amqtt_db.models.wide.Wide":{"table":"x","timed":false}}'""")
    bench.restart()
    bench.send(("t", {"v": 2}))
    assert bench.sql("SELECT count(*), count(DISTINCT sequence) FROM mqtt_assignment") == [(1, 1)]
    assert bench.data() == [{"v": 1.0}, {"v": 2.0}]
