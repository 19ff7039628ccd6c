"""Cayenne LPP → records."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from cayennelpp import LppFrame
from hypothesis import given
from hypothesis import strategies as st

from tests.decode.vectors import check_any, decoded, plain_decoder, refusal


@pytest.mark.parametrize(
    ("payload", "record"),
    [
        ("03670110056700ff", {"temperature_3": 27.2, "temperature_5": 25.5}),
        ("0167ffd7067104d2fb2e0000", {"temperature_1": -4.1, "accelerometer_6": {"x": 1.234, "y": -1.234, "z": 0.0}}),
        ("018806765ff2960a0003e8", {"gps_1": {"latitude": 42.3519, "longitude": -87.9094, "altitude": 10.0}}),
        ("0185655413e0", {"unix_time_1": datetime(2023, 11, 15, 0, 42, 8, tzinfo=timezone.utc)}),
        ("0187ff8000", {"colour_1": {"r": 255, "g": 128, "b": 0}}),
        ("0468a0", {"relative_humidity_4": 80.0}),
        ("04732a94", {"barometric_pressure_4": 1090.0}),
        ("0186ff9c00640000", {"gyrometer_1": {"x": -1.0, "y": 1.0, "z": 0.0}}),
        ("ff8e01", {"switch_255": 1}),
    ],
)
def test_a_payload_is_a_record(payload: str, record: dict[str, Any]) -> None:
    """Each value has the name of its type and channel; the first two vectors are from the format's own description."""
    assert decoded("cayenne", bytes.fromhex(payload)) == record


def test_inputs_and_outputs() -> None:
    """They are the first four types."""
    payload = bytes.fromhex("0000010101000202ff9c03037fff")
    assert decoded("cayenne", payload) == {
        "digital_in_0": 1,
        "digital_out_1": 0,
        "analog_in_2": -1.0,
        "analog_out_3": 327.67,
    }


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ("", "empty payload"),
        ("03", "it ends after a channel's number"),
        ("036701", "it ends within temperature_3"),
        ("0367011003670110", "it has temperature_3 twice"),
        ("03630110", "byte 1 is the type 99, which is unknown"),
    ],
)
def test_what_is_not_cayenne_has_a_reason(payload: str, says: str) -> None:
    """The reason says where."""
    assert says in refusal("cayenne", bytes.fromhex(payload))


SIMPLE = {
    "digital_in": ("add_digital_input", 1, 0, 255),
    "digital_out": ("add_digital_output", 1, 0, 255),
    "analog_in": ("add_analog_input", 100, -32768, 32767),
    "analog_out": ("add_analog_output", 100, -32768, 32767),
    "generic": ("add_generic", 1, 0, 2**32 - 1),
    "luminosity": ("add_luminosity", 1, 0, 65535),
    "presence": ("add_presence", 1, 0, 255),
    "temperature": ("add_temperature", 10, -32768, 32767),
    "relative_humidity": ("add_humidity", 2, 0, 255),
    "barometric_pressure": ("add_pressure", 10, 0, 65535),
    "voltage": ("add_voltage", 100, 0, 65535),
    "current": ("add_current", 1000, 0, 65535),
    "frequency": ("add_frequency", 1, 0, 2**32 - 1),
    "percentage": ("add_percentage", 1, 0, 255),
    "altitude": ("add_altitude", 1, -32768, 32767),
    "load": ("add_load", 1000, -(2**23), 2**23 - 1),
    "concentration": ("add_concentration", 1, 0, 65535),
    "power": ("add_power", 1, 0, 65535),
    "distance": ("add_distance", 1000, 0, 2**32 - 1),
    "energy": ("add_energy", 1000, 0, 2**32 - 1),
    "direction": ("add_direction", 1, 0, 65535),
    "switch": ("add_switch", 1, 0, 255),
}
"""Each type: what another library calls it, its values in a unit, and their range."""


@given(st.dictionaries(st.tuples(st.sampled_from([*SIMPLE]), st.integers(0, 255)), st.integers(0, 2**32)))
def test_what_another_library_writes_is_read(values: dict[tuple[str, int], int]) -> None:
    """Each value comes back, to the last digit."""
    frame, expected = LppFrame(), {}
    for (name, channel), number in values.items():
        add, per_unit, smallest, largest = SIMPLE[name]
        raw = smallest + number % (largest - smallest + 1)
        getattr(frame, add)(channel, _just_above(raw, per_unit))
        expected[f"{name}_{channel}"] = raw / per_unit
    if expected:
        assert decoded("cayenne", bytes(frame)) == expected


def _just_above(raw: int, per_unit: int) -> float:
    """Return a number that the other library, which cuts digits off, writes as ``raw``."""
    value = raw / per_unit
    return value if int(value * per_unit) == raw else (raw + (0.5 if raw > 0 else -0.5)) / per_unit


@given(st.binary(max_size=60))
def test_any_bytes_are_decoded_or_refused(payload: bytes) -> None:
    """Whatever is sent, the result is plain data within the bounds, or an error with a reason."""
    check_any(plain_decoder("cayenne"), payload, dict)
