"""A model as text, as the catalogue remembers it, and back."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import attrs
import cattrs
import orjson

from amqtt_db import registry
from amqtt_db.models import BUILTIN
from amqtt_db.models.base import Destination, Model
from amqtt_db.models.binding import BoundModel, bind

_GROUP: Final = "amqtt_db.models"
_TIMED: Final = "timed"
_converter: Final = cattrs.Converter()


@lru_cache(1024)
def to_spec(model: Model, *, timed: bool = False) -> str:
    """Return a model's registered name (its dotted path if it has none) and its options, as text.

    ``timed`` means that its tables have the time in their keys; it is stored with the options.
    """
    options: dict[str, Any] = attrs.asdict(model)  # type: ignore[arg-type]
    name = registry.name_of(type(model), BUILTIN, _GROUP)
    options.update({_TIMED: True} if timed else {})
    return orjson.dumps({name: options}, option=orjson.OPT_SORT_KEYS, default=str).decode()


@lru_cache(1024)
def from_spec(spec: str) -> tuple[Model, bool]:
    """Return the model that :func:`to_spec` described, and whether its tables have the time in their keys.

    Raises ValueError if its class cannot be loaded, or is not a model.
    """
    ((name, options),) = orjson.loads(spec).items()
    found = registry.load(name, BUILTIN, _GROUP)
    if not (isinstance(found, type) and issubclass(found, Model)):
        raise ValueError(f"{name} is not a model")
    timed = bool(options.pop(_TIMED, False))
    return _converter.structure(options, found), timed


@lru_cache(1024)
def bound_model(spec: str, key: str, route: str) -> BoundModel:
    """Return the model of an assignment with its tables.  Raises ValueError if it cannot be loaded.

    The last ones are remembered, with their tables: whoever works on many topics asks several times for each.
    """
    model, timed = from_spec(spec)
    return bind(model, Destination(key, route), timed=timed)
