"""A model as text, as the catalogue remembers it, and back."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import cattrs
import orjson

from amqtt_db import registry
from amqtt_db.models import BUILTIN
from amqtt_db.models.base import Model

_converter: Final = cattrs.Converter()


@lru_cache(1024)
def model_of(spec: str) -> Model:
    """The model that a placement names.  Raises ValueError if its class cannot be loaded, or is no model."""
    ((name, options),) = orjson.loads(spec).items()
    found = registry.load(name, BUILTIN, "amqtt_db.models")
    if not (isinstance(found, type) and issubclass(found, Model)):
        raise ValueError(f"{name} is not a model")
    return _converter.structure(options, found)
