"""What a key of the YAML may hold, said once: Python checks it, and JSON Schema describes it for editors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import attrs

T = TypeVar("T")

JsonSchema = Mapping[str, Any]
"""A JSON Schema, or a part of one."""


@attrs.frozen
class Check(Generic[T]):
    """``read`` returns what a value means or raises ValueError; ``accepts`` describes the values that it accepts."""

    read: Callable[[Any], T]
    accepts: JsonSchema

    def __call__(self, value: Any) -> T:
        """Return what the value means.  Raises ValueError."""
        return self.read(value)


@attrs.frozen
class ConfigKey:
    """A key of a section: what it means, and the check of its value, as far as the value can be judged alone."""

    meaning: str
    check: Check[Any]
    is_required: bool = False


def accepting(**accepts: Any) -> Callable[[Callable[[Any], T]], Check[T]]:
    """Return a decorator that makes a check of a function; ``accepts`` is the JSON Schema of what it accepts."""
    return lambda read: Check(read, accepts)


def described(**accepts: Any) -> Check[Any]:
    """Return a check that accepts everything, for a value that can only be judged together with others."""
    return Check(lambda value: value, accepts)


def defined_in(name: str) -> Check[Any]:
    """Return the same for a value that the part ``name`` of the whole schema describes."""
    return described(**{"$ref": f"#/$defs/{name}"})
