"""The relational models; a route names one of them, a dotted path to a user's own, or an entry point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

BUILTIN: Final[Mapping[str, str]] = {
    "document": "amqtt_db.models.document.Document",
    "eav": "amqtt_db.models.eav.Eav",
    "narrow": "amqtt_db.models.narrow.Narrow",
    "wide": "amqtt_db.models.wide.Wide",
}
"""Names of the built-in models and where their classes are."""
