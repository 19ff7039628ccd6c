"""The relational models; a route names one of them, a dotted path to a user's own, or an entry point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

BUILTIN: Final[Mapping[str, str]] = {"wide": "amqtt_db.models.wide.Wide"}
"""Names of the built-in models and where their classes are."""
