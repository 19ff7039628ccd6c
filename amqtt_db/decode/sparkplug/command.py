"""Commands to edge nodes of Sparkplug B; import this module only when it is needed."""

from __future__ import annotations

from amqtt_db.decode.sparkplug.layout import make_payload_class

_BOOLEAN = 11  # the data type's number in the specification


def encode_rebirth(milliseconds: int) -> bytes:
    """Return the payload of a command, sent at a time since 1970, that asks an edge node for its births."""
    payload = make_payload_class()(timestamp=milliseconds)
    payload.metrics.add(name="Node Control/Rebirth", timestamp=milliseconds, datatype=_BOOLEAN, boolean_value=True)
    encoded: bytes = payload.SerializeToString()
    return encoded
