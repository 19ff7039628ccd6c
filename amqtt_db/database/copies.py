"""What a database that was copied from another one notes about that, in ``mqtt_meta``.

While a database is changed over, its writer must not go on before everything that the old one stored is there: else
decoders would read what comes with what they knew before, and routes would compare it with old values.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from amqtt_db.database.catalog import Catalog
from amqtt_db.errors import DatabaseError
from amqtt_db.journal import Progress

_COPIED: Final = "copied/"  # begins the names of notes
_UNFINISHED: Final = "copying"


def read_done(connection: sa.Connection, catalog: Catalog) -> dict[int, int]:
    """Return up to which position of each journal's number earlier copies are done."""
    return {int(name): int(value) for name, value in read_copied(connection, catalog).items()}


def read_copied(connection: sa.Connection, catalog: Catalog, kind: str = "") -> dict[str, str]:
    """Return the notes of a kind that :func:`note_copied` has written."""
    name, prefix = catalog.meta.c.name, f"{_COPIED}{kind}"
    here = name.startswith(prefix, autoescape=True) & name.not_like(f"{prefix}%/%")
    rows = connection.execute(sa.select(catalog.meta).where(here))
    return {row.name.removeprefix(prefix): row.value for row in rows}


def note_copied(connection: sa.Connection, catalog: Catalog, name: str, value: str) -> None:
    """Note something about what has been copied; the position that is done is noted under a journal's number.

    A kind of notes has names that begin with the same word and a slash.
    """
    _write_note(connection, catalog, f"{_COPIED}{name}", value)


def note_unfinished(connection: sa.Connection, catalog: Catalog, *, unfinished: bool) -> None:
    """Note whether a copy has moved the checkpoints, and has not yet brought all that lies before them."""
    if unfinished:
        _write_note(connection, catalog, _UNFINISHED, "yes")
    else:
        connection.execute(catalog.meta.delete().where(catalog.meta.c.name == _UNFINISHED))


def require_whole_copy(connection: sa.Connection, catalog: Catalog, progress: Progress | None) -> None:
    """Raise DatabaseError if a copied database lacks what the old one has stored of a journal.

    ``progress`` is what the journal's last writer has reported, None if nothing is known.
    """
    meta, journal = catalog.meta, catalog.journal
    is_copy = meta.c.name.startswith(_COPIED, autoescape=True) | (meta.c.name == _UNFINISHED)
    if progress is None or connection.scalar(sa.select(meta.c.name).where(is_copy).limit(1)) is None:
        return
    is_unfinished = connection.scalar(sa.select(meta.c.value).where(meta.c.name == _UNFINISHED)) is not None
    here = connection.scalar(sa.select(journal.c.position).where(journal.c.token == progress.token))
    if is_unfinished or here is None or here < progress.position:
        raise DatabaseError(
            "this database is a copy, and lacks what the old one has stored of this journal: run `amqtt-db copy` once "
            "more, --from the old one (if that is lost, remove the file that ends in .progress beside the journal)"
        )


def _write_note(connection: sa.Connection, catalog: Catalog, name: str, value: str) -> None:
    connection.execute(catalog.meta.delete().where(catalog.meta.c.name == name))
    connection.execute(catalog.meta.insert(), {"name": name, "value": value})
