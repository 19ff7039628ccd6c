"""The MQTT 5 properties of a message that its publisher has set, as JSON for the journal."""

from __future__ import annotations

from typing import Any, Final

import orjson

from amqtt_db.ingest.bridge.packets import USER_PROPERTY, Properties
from amqtt_db.journal.inspection import readable_bytes

_PROPERTY_NAMES: Final = {0x03: "content_type", 0x08: "response_topic", 0x02: "message_expiry"}
_CORRELATION_DATA: Final = 0x09


def encode_properties(properties: Properties) -> bytes:
    """Return a message's properties as a JSON object; empty if there are none.

    ``message_expiry`` is in seconds; ``user_properties`` are pairs, because names may be repeated and have an order;
    ``correlation_data`` is text, or ``correlation_data_base64`` if it is not UTF-8.
    """
    found: dict[str, Any] = {name: properties[code] for code, name in _PROPERTY_NAMES.items() if code in properties}
    if _CORRELATION_DATA in properties:
        found.update(readable_bytes("correlation_data", properties[_CORRELATION_DATA]))
    if USER_PROPERTY in properties:
        found["user_properties"] = properties[USER_PROPERTY]
    return orjson.dumps(found) if found else b""
