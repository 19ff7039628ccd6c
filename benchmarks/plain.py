"""What one writes without this project: paho, and a database's driver.

usage: python benchmarks/plain.py URL PORT SECONDS

Each message of ``site/+/climate`` becomes a row of the table ``climate``.  With 0 SECONDS there is a commit for each
message, before it is acknowledged; otherwise a thread stores what has arrived in the meantime, and what was
acknowledged but not yet stored is lost if the program ends.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections import deque
from collections.abc import Callable, Iterable
from time import sleep
from typing import Any, Final

import psycopg
import sqlalchemy as sa
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

FIELDS: Final = {
    "topic": "TEXT", "seq": "BIGINT", "temp": "REAL", "rh": "REAL", "press": "REAL", "ok": "BOOLEAN", "unit": "TEXT",
    "time": "BIGINT",
}  # fmt: skip
CREATE: Final = (
    f"CREATE TABLE climate ({', '.join(f'{name} {kind}' for name, kind in FIELDS.items())})",
    "CREATE INDEX climate_time ON climate (topic, time)",
)
INSERT: Final = f"INSERT INTO climate ({', '.join(FIELDS)}) VALUES ({{}})"
Row = tuple[Any, ...]
Store = Callable[[Iterable[Row]], None]


def create(url: str) -> None:
    """Create the table; let SQLite use WAL mode."""
    database = sa.create_engine(url)
    if database.dialect.name == "sqlite":
        with database.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    with database.begin() as connection:
        for statement in CREATE:
            connection.exec_driver_sql(statement)
    database.dispose()


def connect(url: str) -> Store:
    """Return a function that stores rows in a transaction."""
    parsed = sa.make_url(url)
    is_file = parsed.get_backend_name() == "sqlite"
    connection: Any = (
        sqlite3.connect(str(parsed.database), check_same_thread=False)
        if is_file
        else psycopg.connect(parsed.set(drivername="postgresql").render_as_string(hide_password=False))
    )
    statement = INSERT.format(", ".join(["?" if is_file else "%s"] * len(FIELDS)))

    def store(rows: Iterable[Row]) -> None:
        connection.cursor().executemany(statement, rows)
        connection.commit()

    return store


def row_of(message: Any) -> Row:
    """Return the row of a message."""
    values = json.loads(message.payload)
    return (message.topic, *(values[name] for name in FIELDS if name != "topic"))


def subscribe(port: int, take: Callable[[Row], None]) -> None:
    """Give each message's row to a function, in paho's thread."""
    client = Client(CallbackAPIVersion.VERSION2, "plain", clean_session=False)
    client.on_connect = lambda *_: client.subscribe("site/+/climate", qos=1)
    client.on_message = lambda _, __, message: take(row_of(message))
    client.connect("127.0.0.1", port)
    client.loop_start()


def main(url: str, port: int, seconds: float) -> None:
    """Run until somebody ends the process."""
    store = connect(url)
    waiting: deque[Row] = deque()
    subscribe(port, waiting.append if seconds else lambda row: store([row]))
    while True:
        sleep(seconds or 3600)
        if waiting:
            store([waiting.popleft() for _ in range(len(waiting))])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
