"""``narrow``: what a query finds in a point."""

from __future__ import annotations

from decimal import Decimal

import pytest

from amqtt_db.models.narrow import Narrow
from amqtt_db.record import Kind, Record, Shape
from tests.database.engines.servers import Site
from tests.workbench import Sent, Workbench


def test_declared_numbers_are_in_value_too(site: Site) -> None:
    """A query of the table adds them up; a reader has them exactly."""
    entity = {"watts": "int", "price": "decimal", "large": "int", "temp": "float"}
    bench = Workbench(site, {"topic": "#", "model": "narrow", "entity": entity})
    bench.send(Sent("m", b'{"watts": 100, "price": 1.50, "large": 36893488147419103233, "temp": 20.5, "on": true}'))
    points = bench.sql(
        "SELECT s.property, x.value FROM mqtt_point x JOIN mqtt_series s ON s.id = x.series ORDER BY s.property"
    )
    assert points == [("large", 2.0**65), ("on", None), ("price", 1.5), ("temp", 20.5), ("watts", 100.0)]
    (record,) = bench.records()
    exact = {"large": 36893488147419103233, "on": True, "price": Decimal("1.5"), "temp": 20.5, "watts": 100}
    assert {path: value for path, (_, value) in record.properties().items()} == exact


@pytest.mark.parametrize(
    ("kind", "value", "nearest"),
    [
        ("int64", 2**63 - 1, 2.0**63),
        ("bigint", 10**400, None),
        ("decimal", Decimal("1e400"), None),
        ("decimal", Decimal("NaN"), None),
        ("decimal", Decimal("sNaN"), None),
        ("decimal", Decimal("-0"), 0.0),
        ("text", "1", None),
    ],
)
def test_only_what_every_database_holds_is_in_value(kind: Kind, value: object, nearest: float | None) -> None:
    """Neither infinity, nor NaN, nor −0.0."""
    record = Record(1, 0, 0, "t", None, 0, False, (value,), Shape((("p", kind),)))
    (row,) = [row for name, row in Narrow().write(record) if "series" in row]
    assert repr(row["value"]) == repr(nearest)
