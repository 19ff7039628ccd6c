"""What decoders remember, in the target database: text by name, with a version that tells whether it has changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import Catalog, key_hash
from amqtt_db.database.engines.base import batched

_NEW = 0  # the version of what is not in the database yet


@attrs.frozen
class Remembered:
    """What is stored under a name: a text, None if there is nothing yet, and its version."""

    text: str | None = None
    version: int = _NEW


def read_memory(connection: sa.Connection, catalog: Catalog, names: Iterable[str]) -> dict[str, Remembered]:
    """Return what is stored under some names; names without anything are missing."""
    table, found = catalog.decoder_memory, {}
    for hashes in batched(map(key_hash, names)):
        for row in connection.execute(sa.select(table).where(table.c.hash.in_(hashes))):
            found[row.name] = Remembered(row.text, row.version)
    return found


def read_all_memory(connection: sa.Connection, catalog: Catalog) -> dict[str, Remembered]:
    """Return all that decoders remember; nothing in a database that is older than what remembers."""
    if not sa.inspect(connection).has_table(catalog.decoder_memory.name):
        return {}
    rows = connection.execute(sa.select(catalog.decoder_memory))
    return {row.name: Remembered(row.text, row.version) for row in rows}


def take_memory(connection: sa.Connection, catalog: Catalog, memory: Mapping[str, Remembered]) -> None:
    """Store what the decoders of another database remember, as far as that has changed more often than what is here."""
    table, here = catalog.decoder_memory, read_all_memory(connection, catalog)
    rows = [
        {"hash": key_hash(name), "name": name, "text": one.text, "version": one.version}
        for name, one in memory.items()
        if one.version > here.get(name, Remembered()).version
    ]
    for some in batched(rows):
        connection.execute(table.delete().where(table.c.hash.in_([row["hash"] for row in some])))
        connection.execute(table.insert(), some)


def write_memory(
    connection: sa.Connection, catalog: Catalog, known: Mapping[str, Remembered], changes: Mapping[str, str]
) -> bool:
    """Store what has changed; return False if something is no longer as it is ``known``, and must be rolled back."""
    table = catalog.decoder_memory
    rows = [
        {"hashed": key_hash(name), "named": name, "new": text, "known": known.get(name, Remembered()).version}
        for name, text in sorted(changes.items())
    ]
    old, new = [row for row in rows if row["known"] != _NEW], [row for row in rows if row["known"] == _NEW]
    if old:
        here = (table.c.hash == sa.bindparam("hashed")) & (table.c.version == sa.bindparam("known"))
        change = table.update().where(here).values(text=sa.bindparam("new"), version=table.c.version + 1)
        if sum(connection.execute(change, row).rowcount for row in old) != len(old):
            return False
    return not new or _insert_memory(connection, table, new)


def _insert_memory(connection: sa.Connection, table: sa.Table, rows: Iterable[Mapping[str, object]]) -> bool:
    added = [{"hash": row["hashed"], "name": row["named"], "text": row["new"], "version": _NEW + 1} for row in rows]
    try:
        with connection.begin_nested():
            connection.execute(table.insert(), added)
    except sa.exc.IntegrityError:  # another writer was faster
        return False
    return True
