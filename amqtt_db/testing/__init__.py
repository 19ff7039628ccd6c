"""Test your own model: laws that check it, and the generators of their examples.

::

    class TestMine(ModelContract):
        model = Mine()

Install it with the extra ``testing``.
"""

from __future__ import annotations

from amqtt_db.testing.contract import ModelContract
from amqtt_db.testing.databases import DATABASES, SQLITE, Database

__all__ = ["DATABASES", "SQLITE", "Database", "ModelContract"]
