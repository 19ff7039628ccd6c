"""What is decided for the topics that one filter covers."""

from __future__ import annotations

from typing import Literal

import attrs

from amqtt_db.decode import Decoder
from amqtt_db.entity import Entity
from amqtt_db.models.base import Model
from amqtt_db.topics import TopicFilter

Unknown = Literal["add", "extra", "ignore", "reject"]
Mismatch = Literal["variant", "null", "reject"]


@attrs.frozen
class Route:
    """One entry of ``routes:``, ready for use.

    ``filter`` covers its topics; ``decode``, ``entity`` and ``model`` are the three rooms its messages pass.  ``time``
    is the path of the property that is the event's time, ``each`` the path of a list whose items become records of
    their own (``""``: the payload itself is the list).  ``unknown`` and ``mismatch`` say what becomes of properties
    that the entity does not declare and of values that do not have the declared type.  ``max_columns`` is None for the
    engine's own limit; ``max_tables`` bounds a model that makes a table per topic.
    """

    filter: TopicFilter
    model: Model
    decode: Decoder
    entity: Entity | None = None
    time: str | None = None
    each: str | None = None
    unknown: Unknown = "add"
    mismatch: Mismatch = "variant"
    max_columns: int | None = None
    max_tables: int = 1000
