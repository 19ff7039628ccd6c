"""Lookup tables have names like all others: nothing else gets them, and no other table loses its name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import pytest

from amqtt_db.errors import DatabaseError
from amqtt_db.models import Column, Lookup, Wide
from amqtt_db.record import Record
from tests.config.test_config import problems
from tests.database.engines.servers import Site
from tests.workbench import Workbench


@attrs.frozen
class ByDevice(Wide):
    """A column of ids over a lookup, whose name is an option."""

    table: str | None = "readings"
    lookup: str = "device"

    def extra_columns(self) -> Iterable[Column]:
        """The device."""
        yield Column("device", lookup=self.lookup)

    def extra_values(self, record: Record) -> Mapping[str, Any]:
        """The last level of the topic."""
        return {"device": record.topic.rpartition("/")[2]}


@attrs.frozen
class ByPlace(Wide):
    """A lookup of the same name with other columns."""

    table: str | None = "places"

    def extra_columns(self) -> Iterable[Column]:
        """The place."""
        yield Column("place", lookup=Lookup("device", ["site", "room"]))


MODEL = f"{__name__}.ByDevice"
DEVICES = {"topic": "home/+", "model": MODEL}
ALL = {"topic": "#", "model": "wide"}
HERE, THERE = ("home/lamp", {"v": 1}), ("device", {"hash": "x", "v": 2})


@pytest.mark.slow
@pytest.mark.parametrize("order", [(HERE, THERE), (THERE, HERE)], ids=["lookup first", "topic first"])
@pytest.mark.parametrize("together", [True, False])
def test_a_topic_with_the_name_of_a_lookup(order: tuple[Any, Any], together: bool, site: Site) -> None:
    """Both are stored, whichever comes first: the topic's table has another name."""
    bench = Workbench(site, DEVICES, ALL)
    for sent in [order] if together else [(one,) for one in order]:
        bench.send(*sent)
    assert sorted(map(str, bench.data())) == ["{'hash': 'x', 'v': 2.0}", "{'v': 1.0}"]
    assert bench.sql("SELECT d.device FROM readings r JOIN device d ON d.id = r.device") == [("lamp",)]
    assert not bench.dead()


def test_a_topic_that_was_there_before(site: Site) -> None:
    """The writer reports that at once and names the lookup; another name works."""
    bench = Workbench(site, ALL)
    bench.send(THERE)
    with pytest.raises(DatabaseError, match="table device, which a model names for a lookup of device, already holds"):
        bench.restart(DEVICES, ALL)
    bench.restart({**DEVICES, "model": {MODEL: {"lookup": "gadget"}}}, ALL)
    bench.send(HERE, THERE)
    assert bench.sql("SELECT gadget FROM gadget") == [("lamp",)]
    assert len(bench.records()) == 3


def test_a_lookup_that_was_there_before(site: Site) -> None:
    """A writer that knows nothing of it leaves it alone."""
    bench = Workbench(site, DEVICES)
    bench.send(HERE)
    bench.restart(ALL)
    bench.send(THERE)
    assert bench.sql("SELECT device FROM device") == [("lamp",)]
    assert len(bench.records()) == 2


@pytest.mark.parametrize(
    ("routes", "path", "why"),
    [
        ([DEVICES, {"topic": "b", "model": {"wide": {"table": "device"}}}], "routes[0].model", "the name of another"),
        ([DEVICES, {"topic": "b", "model": f"{__name__}.ByPlace"}], "routes[1].model", "the name of another"),
        (
            [{**DEVICES, "model": {MODEL: {"table": "device"}}}],
            f"routes[0].model.{MODEL}.table",
            "a table and a lookup",
        ),
        (
            [{**DEVICES, "model": {MODEL: {"lookup": "mqtt_topic"}}}],
            f"routes[0].model.{MODEL}.lookup",
            "amqtt_db's own tables",
        ),
    ],
)
def test_names_that_meet_are_a_mistake(routes: list[dict[str, Any]], path: str, why: str) -> None:
    """`check` finds them: with tables of other routes, with other lookups, with tables of the project."""
    found = problems({"database": "sqlite:///x.db", "routes": routes})
    assert any(why in message for message in found.values()), found
    assert all(one.startswith(path.rpartition(".model")[0]) for one in found)
