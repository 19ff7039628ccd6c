"""The built-in models keep every law of the contract."""

from __future__ import annotations

import attrs
import pytest

from amqtt_db.models.document import Document
from amqtt_db.models.eav import Eav
from amqtt_db.models.narrow import Narrow
from amqtt_db.models.wide import Wide
from amqtt_db.testing import ModelContract
from amqtt_db.testing.databases import SQLITE, TIMESCALEDB

FEWER = (attrs.evolve(SQLITE, thorough=False), TIMESCALEDB)
"""For models that differ from another one by their keys, as hypertables need them: a few examples do."""


class TestWide(ModelContract):
    """A table per topic."""

    model = Wide()


@pytest.mark.slow
class TestWideInOneTable(ModelContract):
    """One table for all topics."""

    model = Wide(table="everything")


class TestEav(ModelContract):
    """A row per value."""

    model = Eav()


@pytest.mark.slow
class TestDocument(ModelContract):
    """A document per record."""

    model = Document()


@pytest.mark.slow
class TestNarrow(ModelContract):
    """A row per point."""

    model = Narrow()


@pytest.mark.slow
class TestTimedWide(ModelContract):
    """The time in the key, a table per topic."""

    model = Wide()
    timed = True
    databases = FEWER


@pytest.mark.slow
class TestTimedWideInOneTable(ModelContract):
    """The time in the key, one table for all topics."""

    model = Wide(table="everything")
    timed = True
    databases = FEWER


@pytest.mark.slow
class TestTimedEav(ModelContract):
    """The time in the keys of messages and values."""

    model = Eav(prefix="timed")
    timed = True
    databases = FEWER


@pytest.mark.slow
class TestTimedDocument(ModelContract):
    """The time in the key of documents."""

    model = Document(prefix="timed")
    timed = True
    databases = FEWER


@pytest.mark.slow
class TestTimedNarrow(ModelContract):
    """The time in the keys of messages and points."""

    model = Narrow(prefix="timed")
    timed = True
    databases = FEWER
