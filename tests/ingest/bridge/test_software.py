"""What the bridge knows of a broker by its name and version."""

from __future__ import annotations

import pytest

from amqtt_db.ingest.bridge.software import ignores_window


@pytest.mark.parametrize(
    ("software", "ignores"),
    [
        ("mosquitto version 1.6.9", True), ("mosquitto version 2.0.11", True), ("mosquitto version 2.0.12", True),
        ("mosquitto version 2.0.13", False), ("mosquitto version 2.1.2", False), ("mosquitto version 10.0.0", False),
        ("mosquitto version", False), ("HMQTT 2.0.1", False), ("", False),
    ],
)  # fmt: skip
def test_a_mosquitto_before_2_0_13_ignores_the_window(software: str, ignores: bool) -> None:
    """Later ones keep to it, and of others nothing is known."""
    assert ignores_window(software) is ignores
