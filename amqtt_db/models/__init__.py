"""Relational models: which tables there are, what to write for a record, and how to read it back.

Everything that an author of a model needs can be imported from here.  A route names a built-in model, a dotted path to
the user's own, or an entry point.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from amqtt_db.models.base import Column, Documents, Lookup, Model, OwnColumns, Table, ValueRows
from amqtt_db.record import Record, Shape

if TYPE_CHECKING:
    from amqtt_db.models.document import Document
    from amqtt_db.models.eav import Eav
    from amqtt_db.models.fast import ColumnRows, FastModel
    from amqtt_db.models.narrow import Narrow
    from amqtt_db.models.wide import Wide

__all__ = [
    "BUILTIN",
    "Column",
    "ColumnRows",
    "Document",
    "Documents",
    "Eav",
    "FastModel",
    "Lookup",
    "Model",
    "Narrow",
    "OwnColumns",
    "Record",
    "Shape",
    "Table",
    "ValueRows",
    "Wide",
]

BUILTIN: Final[Mapping[str, str]] = {
    "document": "amqtt_db.models.document.Document",
    "eav": "amqtt_db.models.eav.Eav",
    "narrow": "amqtt_db.models.narrow.Narrow",
    "wide": "amqtt_db.models.wide.Wide",
}
"""Names of the built-in models and where their classes are."""

_LAZY: Final[Mapping[str, str]] = {
    "ColumnRows": "fast",
    "Document": "document",
    "Eav": "eav",
    "FastModel": "fast",
    "Narrow": "narrow",
    "Wide": "wide",
}


def __getattr__(name: str) -> Any:
    """Import a built-in model on first use."""
    if name in _LAZY:
        return getattr(import_module(f"amqtt_db.models.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
