"""The built-in models keep every law of the contract."""

from __future__ import annotations

from amqtt_db.models.document import Document
from amqtt_db.models.eav import Eav
from amqtt_db.models.narrow import Narrow
from amqtt_db.models.wide import Wide
from amqtt_db.testing import ModelContract


class TestWide(ModelContract):
    """A table per topic."""

    model = Wide()


class TestWideInOneTable(ModelContract):
    """One table for all topics."""

    model = Wide(table="everything")


class TestEav(ModelContract):
    """A row per value."""

    model = Eav()


class TestDocument(ModelContract):
    """A document per record."""

    model = Document()


class TestNarrow(ModelContract):
    """A row per point."""

    model = Narrow()
