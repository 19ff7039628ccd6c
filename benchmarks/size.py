"""Bytes on disk per message for each model, of one history, on every engine that can be had.

usage: python benchmarks/size.py [--messages 50000] [--json FILE]

Seven fields a message over 20 topics, as `benchmarks/writer.py` stores them; indexes are counted.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from pathlib import Path

import sqlalchemy as sa
from writer import ROUTES, drain, fill, payload

from amqtt_db.testing.databases import MYSQL, POSTGRESQL, SQLITE, Database
from amqtt_db.testing.starting import Missing, connected

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
"""What tells a database's bytes, and what settles it before."""


def main() -> None:
    """Fill a database for each route on each engine, and look at its size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=50_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rng = random.Random(7)
    payloads = [payload(rng, number) for number in range(arguments.messages)]
    print(f"{'payload':28}{sum(map(len, payloads)) / len(payloads):8.0f} bytes")
    results = {}
    for database in (SQLITE, POSTGRESQL, MYSQL):
        try:
            results[str(database)] = {name: measure(database, payloads, route) for name, route in ROUTES.items()}
        except Missing as missing:
            print(missing)
        for name, size in results.get(str(database), {}).items():
            print(f"{database}, {name:{26 - len(str(database))}}{size:8.0f} bytes")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))


def measure(database: Database, payloads: list[bytes], route: dict[str, object]) -> float:
    """Bytes per message of one route."""
    ask, *settle = SIZES[str(database)]
    with tempfile.TemporaryDirectory() as folder, database.fresh() as url:
        directory = Path(folder)
        fill(directory / "journal", payloads)
        drain(directory, directory / "journal", route, url)
        with connected(url) as connection:
            for statement in settle:
                connection.exec_driver_sql(statement)
            size = connection.execute(sa.text(ask)).scalar_one()
    return float(size) / len(payloads)


if __name__ == "__main__":
    main()
