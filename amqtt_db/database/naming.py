"""Names that SQL users want to type, for topics and properties that can be anything.

A name is lower case, consists of letters, digits and underscores, is no longer than the engine allows, and differs from
every other name in its scope even for an engine that ignores case and accents.  The first one gets the plain name, a
later one the plain name and six characters of a hash.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Collection
from typing import Final

from amqtt_db.database.reserved_words import RESERVED_WORDS
from amqtt_db.record import Kind

SYSTEM_TABLES: Final = frozenset(
    {
        "mqtt_assignment",
        "mqtt_catalog",
        "mqtt_counter",
        "mqtt_dead_letter",
        "mqtt_dead_segment",
        "mqtt_decoder_memory",
        "mqtt_device",
        "mqtt_document",
        "mqtt_journal",
        "mqtt_latest",
        "mqtt_latest_value",
        "mqtt_message",
        "mqtt_meta",
        "mqtt_point",
        "mqtt_property",
        "mqtt_series",
        "mqtt_raw",
        "mqtt_rollup",
        "mqtt_rollup_due",
        "mqtt_rollup_expired",
        "mqtt_rollup_note",
        "mqtt_rollup_series",
        "mqtt_rollup_state",
        "mqtt_session",
        "mqtt_table",
        "mqtt_topic",
        "mqtt_typing",
        "mqtt_value",
        "mqtt_view",
        "mqtt_view_due",
    }
)
"""The project's own tables: no topic or ``table:`` may have their names."""

LONGEST: Final = 63
"""The limit in bytes on a name in a route: PostgreSQL's, which is portable."""

_SYSTEM_COLUMNS: Final = frozenset({"_rowid_", "cmax", "cmin", "ctid", "oid", "rowid", "tableoid", "xmax", "xmin"})
_SYSTEM_PREFIXES: Final = ("sqlite_", "pg_")
_NOT_WORD = re.compile(r"\W+")
_TAG = 6


def fold(name: str) -> str:
    """Return a name without case and accents, which some engines ignore: folded names in a table must differ."""
    if name.isascii():
        return name.lower()
    letters = unicodedata.normalize("NFKD", name.casefold())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def clean(text: str) -> str:
    """Return text as an SQL identifier: ``Home/Living Room`` → ``home_living_room``; never empty, no digit first."""
    name = _NOT_WORD.sub("_", text.lower()).strip("_")
    return f"_{name}" if not name or name[0].isdigit() else name


def column_name(path: str, kind: Kind, *, plain: bool, taken: Collection[str], limit: int) -> str:
    """Return a name for a property's column that needs no quotes.

    ``plain`` is true for the kind that owns the property's plain column, others get ``<name>__<kind>``.  ``taken``
    holds the folded names in use, ``limit`` is the engine's limit in UTF-8 bytes.
    """
    suffix = "" if plain else f"__{kind}"
    name = _clean_end(path, limit - len(suffix)) + suffix
    if fold(name) in taken or name in _SYSTEM_COLUMNS or name in RESERVED_WORDS:
        name = f"{name}_"
    return unique(name, f"{path}\n{kind}", lambda candidate: fold(candidate) in taken, limit)


def table_name(wish: str, *, is_taken: Callable[[str], bool], limit: int, is_prefix: bool = False) -> str:
    """Return a name for the table of a topic, or for the view that ``wish`` describes.

    ``is_taken`` returns True if a candidate is in use, ``limit`` is the engine's limit in UTF-8 bytes; a prefix will be
    extended.
    """
    name = clean(wish)
    if fold(name).startswith(_SYSTEM_PREFIXES):
        name = f"_{name}"
    elif name in RESERVED_WORDS and not is_prefix:
        name = f"{name}_"
    return unique(name, wish, lambda candidate: fold(candidate) in SYSTEM_TABLES or is_taken(candidate), limit)


def unique(name: str, source: str, is_taken: Callable[[str], bool], limit: int) -> str:
    """Return ``name``; if it is too long or taken, its beginning and a hash of ``source``, within ``limit`` bytes."""
    if len(name.encode()) <= limit and not is_taken(name):
        return name
    for attempt in range(1000):
        tag = hashlib.sha256(f"{source}\n{attempt}".encode("utf-8", "surrogatepass")).hexdigest()[:_TAG]
        candidate = f"{_shorten(name, limit - _TAG - 1)}_{tag}"
        if not is_taken(candidate):
            return candidate
    raise RuntimeError(f"no free name for {name}")


def _clean_end(path: str, limit: int) -> str:
    """Return a name for the whole path, or for as many of its last keys as there is room for: they say what it is."""
    keys = path.strip("{}").split(".")
    names = (clean(".".join(keys[first:])) for first in range(len(keys)))
    return next((name for name in names if len(name.encode()) <= limit), clean(keys[-1]))


def _shorten(name: str, limit: int) -> str:
    return name.encode()[:limit].decode(errors="ignore").rstrip("_")
