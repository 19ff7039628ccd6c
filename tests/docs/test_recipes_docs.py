"""The recipes work: their routes together store what devices really send, as the page shows it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from amqtt_db.models import BUILTIN
from tests.database.engines.servers import Site
from tests.workbench import Workbench

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = (ROOT.parent / "docs" / "recipes.md").read_text(encoding="utf-8")
ROUTES: Final[list[dict[str, Any]]] = [
    route for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) for route in yaml.safe_load(block)["routes"]
]
MESSAGES: Final = [json.loads(line) for line in (ROOT / "fixtures" / "payloads.jsonl").read_text().splitlines()]
QUERIES: Final[list[tuple[str, str]]] = re.findall(r"```sql\n(.*?)\n```\n\n((?:\|.*\n)+)", PAGE)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    """Return a database with all messages, stored by all recipes."""
    bench = Workbench(tmp_path_factory.mktemp("home"), *ROUTES)
    bench.send(*((message["topic"], message["payload"].encode()) for message in MESSAGES))
    return bench


@pytest.mark.slow
def test_no_message_is_lost(home: Workbench) -> None:
    """One is empty, one is Home Assistant's discovery; all others are stored."""
    assert home.dead() == []
    counts = home.counts().values()
    assert sum(count.get("stored", 0) for count in counts) == len(MESSAGES) - 2
    assert sum(count.get("empty", 0) for count in counts) == 1
    assert home.counts()["homeassistant/#"] == {"ignored": 1}


def test_the_routes_fit_on_a_screen() -> None:
    """All families need fifty lines of YAML together, and no Python."""
    lines = sum(len(block.splitlines()) - 1 for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
    assert lines <= 50
    assert not [route for route in ROUTES if "decode" in route or "entity" in route]


@pytest.mark.parametrize(("query", "table"), QUERIES, ids=[query.split(" FROM ")[1].split()[0] for query, _ in QUERIES])
def test_a_query_gives_what_the_page_shows(query: str, table: str, home: Workbench) -> None:
    """Row by row, an empty cell for NULL."""
    shown = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()[2:]]
    assert [["" if value is None else str(value) for value in row] for row in home.sql(query)] == shown


@pytest.mark.slow
@pytest.mark.parametrize("model", BUILTIN)
def test_every_model_holds_the_same_records(model: str, home: Workbench, site: Site) -> None:
    """On each engine, the same data comes back from each model as from the recipes' own."""
    routes = [{**route, "model": model} if route.get("store", True) else route for route in ROUTES]
    bench = Workbench(site, *routes)
    bench.send(*((message["topic"], message["payload"].encode()) for message in MESSAGES))
    assert bench.dead() == []
    found, expected = bench.records(), home.records()
    assert [record.to_dict() | {"session": None} for record in found] == [
        record.to_dict() | {"session": None} for record in expected
    ]
