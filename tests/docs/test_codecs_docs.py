"""The recipes by format work: each payload is stored as the page shows it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import yaml

from amqtt_db.decode.formats import FORMATS
from amqtt_db.models import BUILTIN
from tests.docs.codec_files import PAGE, write_codec_files
from tests.workbench import Workbench

TABLE_OF_ITS_OWN: Final = re.compile(r"```sql\n(.*?)\n```\n\n((?:\|[^\n]*\n)+)", re.DOTALL)
PUBLISHED: Final = re.compile(
    r"^Published to `(.*?)`(, in hexadecimal)?:\n\n```text\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
ELSEWHERE: Final = {"auto", "json", "text", "bytes", "struct", "gzip", "zlib", "deflate", "msgpack", "cbor", "bson"}
"""The decoders that the page on configuration shows."""


@attrs.frozen
class Recipe:
    """A section of the page."""

    title: str
    text: str

    @property
    def routes(self) -> list[dict[str, Any]]:
        """The routes of its YAML."""
        blocks = re.findall(r"```yaml\n(.*?)```", self.text, re.DOTALL)
        return [route for block in blocks for route in yaml.safe_load(block)["routes"]]

    @property
    def messages(self) -> list[tuple[str, bytes]]:
        """Topics and payloads."""
        found = PUBLISHED.findall(self.text)
        return [(topic, bytes.fromhex(text) if is_hex else text.encode()) for topic, is_hex, text in found]


RECIPES: Final = [Recipe(*part.split("\n", 1)) for part in PAGE.split("\n## ")[1:]]


@pytest.fixture(params=RECIPES, ids=[recipe.title for recipe in RECIPES])
def recipe(request: pytest.FixtureRequest) -> Recipe:
    """Return each recipe of the page in turn."""
    found: Recipe = request.param
    return found


@pytest.mark.slow
def test_a_recipe_stores_what_the_page_shows(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row by row, an empty cell for NULL."""
    write_codec_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    bench = Workbench(tmp_path, *recipe.routes)
    bench.send(*recipe.messages)
    assert bench.dead() == []
    queries = TABLE_OF_ITS_OWN.findall(recipe.text)
    assert recipe.messages
    assert queries
    for query, table in queries:
        shown = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()[2:]]
        assert [["" if value is None else str(value) for value in row] for row in bench.sql(query)] == shown


@pytest.mark.slow
def test_every_model_holds_the_same_records(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a decoder makes of a payload comes back from each model, with its types."""
    write_codec_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    found = {model: _stored_by(model, recipe, tmp_path / model) for model in BUILTIN}
    assert found["wide"]
    assert all(records == found["wide"] for records in found.values())


def _stored_by(model: str, recipe: Recipe, path: Path) -> list[dict[str, Any]]:
    path.mkdir()
    bench = Workbench(path, *({**route, "model": model} for route in recipe.routes))
    bench.send(*recipe.messages)
    return [record.to_dict() for record in bench.records()]


def test_every_format_has_a_recipe() -> None:
    """Each decoder is on the page, or in the reference."""
    found = {name for recipe in RECIPES for route in recipe.routes for name in _names(route["decode"])}
    assert FORMATS.keys() - ELSEWHERE - found == {"tsv"}


def _names(spec: Any) -> set[str]:
    return {spec} if isinstance(spec, str) else set(spec)
