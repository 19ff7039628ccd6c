"""Another decoder for each value of an MQTT 5 property: the content type, or a user property."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs
import orjson

from amqtt_db.decode.checks import Decoder
from amqtt_db.errors import DecodeError

BY_CONTENT_TYPE: Final = "content_type"
"""Names the content type among a message's properties."""


@attrs.frozen(eq=False)
class DecoderByProperty:
    """The decoders for the values of a user property, or of the content type if ``user_property`` is None.

    ``other`` is for all other values, and for messages without the property; None if these are refused.  Only
    the media type of a content type counts, in lower case: ``text/csv`` is also ``Text/CSV; header=present``.
    """

    decoders: Mapping[str, Decoder]
    user_property: str | None = None
    other: Decoder | None = None

    def decode(self, payload: bytes, properties: bytes) -> Any:
        """Return the data of a payload; ``properties`` are the message's as JSON, or empty.  Raises DecodeError."""
        value = self._find(orjson.loads(properties)) if properties else None
        decode = self.other if value is None else self.decoders.get(value, self.other)
        if decode is None:
            known = ", ".join(self.decoders)
            raise DecodeError(f"`decode` has no decoder for {self._describe(value)}, only for {known}")
        return decode(payload)

    def _find(self, properties: Mapping[str, Any]) -> str | None:
        if self.user_property is None:
            found = properties.get(BY_CONTENT_TYPE)
            return None if found is None else media_type(found)
        pairs = properties.get("user_properties", ())
        return next((value for name, value in pairs if name == self.user_property), None)

    def _describe(self, value: str | None) -> str:
        what = "content type" if self.user_property is None else f"user property {self.user_property!r}"
        return f"a message without a {what}" if value is None else f"this {what}"


def media_type(content_type: str) -> str:
    """Return the media type in a content type, without its parameters; letter case has no meaning in it (RFC 9110)."""
    return content_type.partition(";")[0].strip().lower()
