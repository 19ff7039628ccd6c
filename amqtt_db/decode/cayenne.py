"""Cayenne LPP, as LoRaWAN devices send it: a channel, a type and a value, again and again.

A value becomes the property that its type and channel name, such as ``temperature_1``; a position or an acceleration
becomes an object.  The types beyond the first twelve are those that libraries for devices have added since.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, Final

import attrs

from amqtt_db.decode.checks import Decoder
from amqtt_db.errors import DecodeError


@attrs.frozen
class _Quantity:
    """A type of value: its name and size, and what makes a value of its bytes."""

    name: str
    size: int
    read: Callable[[bytes], Any]


def cayenne_format() -> Decoder:
    """Return a decoder of Cayenne LPP."""
    return _decode_cayenne


def _decode_cayenne(payload: bytes) -> dict[str, Any]:
    if not payload:
        raise DecodeError("empty payload")
    record: dict[str, Any] = {}
    position = 0
    while position < len(payload):
        quantity = _quantity_at(payload, position)
        start, position = position + 2, position + 2 + quantity.size
        name = f"{quantity.name}_{payload[start - 2]}"
        if position > len(payload):
            raise DecodeError(f"not Cayenne LPP: it ends within {name}")
        if name in record:
            raise DecodeError(f"not Cayenne LPP: it has {name} twice")
        record[name] = quantity.read(payload[start:position])
    return record


def _quantity_at(payload: bytes, position: int) -> _Quantity:
    if position + 1 == len(payload):
        raise DecodeError("not Cayenne LPP: it ends after a channel's number")
    quantity = _QUANTITIES.get(payload[position + 1])
    if quantity is None:
        raise DecodeError(f"not Cayenne LPP: byte {position + 1} is the type {payload[position + 1]}, which is unknown")
    return quantity


def _unsigned(name: str, size: int, per_unit: int = 1) -> _Quantity:
    return _scaled(name, size, per_unit, signed=False)


def _signed(name: str, size: int, per_unit: int = 1) -> _Quantity:
    return _scaled(name, size, per_unit, signed=True)


def _scaled(name: str, size: int, per_unit: int, *, signed: bool) -> _Quantity:
    def read_integer(raw: bytes) -> int:
        return int.from_bytes(raw, "big", signed=signed)

    def read_scaled(raw: bytes) -> float:
        return int.from_bytes(raw, "big", signed=signed) / per_unit

    return _Quantity(name, size, read_integer if per_unit == 1 else read_scaled)


def _vector(name: str, size: int, **per_unit: int) -> _Quantity:
    """Return a type with several signed values of ``size`` bytes."""

    def read_vector(raw: bytes) -> dict[str, float]:
        parts = (raw[start : start + size] for start in range(0, len(raw), size))
        return {
            part: int.from_bytes(value, "big", signed=True) / unit
            for (part, unit), value in zip(per_unit.items(), parts, strict=True)
        }

    return _Quantity(name, size * len(per_unit), read_vector)


def _read_moment(raw: bytes) -> datetime:
    return datetime.fromtimestamp(int.from_bytes(raw, "big"), timezone.utc)


def _read_colour(raw: bytes) -> dict[str, int]:
    return dict(zip(("r", "g", "b"), raw, strict=True))


_QUANTITIES: Final = {
    0: _unsigned("digital_in", 1),
    1: _unsigned("digital_out", 1),
    2: _signed("analog_in", 2, 100),
    3: _signed("analog_out", 2, 100),
    100: _unsigned("generic", 4),
    101: _unsigned("luminosity", 2),
    102: _unsigned("presence", 1),
    103: _signed("temperature", 2, 10),
    104: _unsigned("relative_humidity", 1, 2),
    113: _vector("accelerometer", 2, x=1000, y=1000, z=1000),
    115: _unsigned("barometric_pressure", 2, 10),
    116: _unsigned("voltage", 2, 100),
    117: _unsigned("current", 2, 1000),
    118: _unsigned("frequency", 4),
    120: _unsigned("percentage", 1),
    121: _signed("altitude", 2),
    122: _signed("load", 3, 1000),
    125: _unsigned("concentration", 2),
    128: _unsigned("power", 2),
    130: _unsigned("distance", 4, 1000),
    131: _unsigned("energy", 4, 1000),
    132: _unsigned("direction", 2),
    133: _Quantity("unix_time", 4, _read_moment),
    134: _vector("gyrometer", 2, x=100, y=100, z=100),
    135: _Quantity("colour", 3, _read_colour),
    136: _vector("gps", 3, latitude=10_000, longitude=10_000, altitude=100),
    142: _unsigned("switch", 1),
}
