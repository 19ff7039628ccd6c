"""Bytes on disk per message for each model, for the same messages, on every available engine.

usage: python benchmarks/size.py [--messages 50000] [--engines sqlite,postgresql,mysql] [--json FILE]

Messages of seven fields over 20 topics, as in `benchmarks/writer.py`; indexes are included.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import sqlalchemy as sa
from common import ENGINES, ROUTES, Message, Storing, at_hand, batches, climate, save, show

from amqtt_db.testing.databases import Database
from amqtt_db.testing.starting import connected

WIDTHS = (-12, -23, 8)
SIZES = {
    "sqlite": ("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size", "COMMIT", "VACUUM"),
    "postgresql": (
        "SELECT sum(pg_total_relation_size(oid)) FROM pg_class "
        "WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace",
        "VACUUM ANALYZE",
    ),
    "mysql": (
        "SELECT sum(file_size) FROM information_schema.innodb_sys_tablespaces WHERE name LIKE CONCAT(DATABASE(), '/%')",
        "FLUSH TABLES",
    ),
}
"""(query for a database's size in bytes, statement to run before it)."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Fill a database for each route on each engine and print its size."""
    parser = argparse.ArgumentParser(description="Bytes on disk per message.")
    parser.add_argument("--messages", type=int, default=50_000)
    parser.add_argument("--engines", default=ENGINES)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    messages = climate(options.messages)
    rows = [{"engine": "", "route": "payload", "bytes": sum(len(payload) for _, payload in messages) / len(messages)}]
    show(rows[0], WIDTHS, head=True)
    for database in at_hand(options.engines):
        for name, route in ROUTES.items():
            size = measure(database, messages, route) / len(messages)
            rows.append({"engine": database.name, "route": name, "bytes": size})
            show(rows[-1], WIDTHS, head=False)
    save(options.json, rows)


def measure(database: Database, messages: Sequence[Message], route: Mapping[str, object]) -> float:
    """Return the bytes that the messages of one route take."""
    ask, *settle = SIZES[database.name]
    with database.fresh() as url:
        with Storing(url, route) as storing:
            storing.register("a", 1)
            for batch in batches(messages):
                storing.store(batch)
        with connected(url) as connection:
            for statement in settle:
                connection.exec_driver_sql(statement)
            return float(connection.execute(sa.text(ask)).scalar_one())


if __name__ == "__main__":
    main()
