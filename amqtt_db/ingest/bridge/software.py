"""What is known of brokers by the name and version that they publish in `$SYS/broker/version`."""

from __future__ import annotations

import re
from typing import Final

_MOSQUITTO: Final = re.compile(r"mosquitto version (\d+)\.(\d+)\.(\d+)", re.ASCII).match
_KEEPS_TO_WINDOW: Final = (2, 0, 13)


def ignores_window(software: str) -> bool:
    """Return True if a broker sends more messages than `window` allows: with MQTT 5, far more.

    Messages of QoS 2 may then be stored twice: 32,767 packet ids at most can be told apart.
    """
    version = _MOSQUITTO(software)
    return version is not None and tuple(map(int, version.groups())) < _KEEPS_TO_WINDOW
