"""What an operator watches: ``metrics:``, where metrics and health are served, ``log:``, and ``keep:``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal

import attrs

from amqtt_db.config.keys import Check, ConfigKey, accepting
from amqtt_db.config.yaml_checks import FILE, Node, choice, duration, text

LOG_LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR,
}  # fmt: skip

_ADDRESS: Final = "an address such as 127.0.0.1:9641"


@accepting(type="string", pattern=r":\d+$")
def _listen_address(value: object) -> tuple[str, int]:
    """Return host and port.  Raises ValueError."""
    host, colon, port = text(value).rpartition(":")
    if not (colon and host and port.isdecimal() and int(port) <= 65_535):
        raise ValueError(f"expected {_ADDRESS}")
    return host.strip("[]"), int(port)


METRICS_KEYS: Final = {
    "listen": ConfigKey("Host and port at which metrics and health are served.", _listen_address, is_required=True),
    "max_lag": ConfigKey(
        "How long messages may wait while nothing is stored before /readyz reports it.  Default: 1 min.", duration
    ),
}
LOG_KEYS: Final = {
    "level": ConfigKey(
        "Log from this level on.  Default: info.",
        Check(lambda value: LOG_LEVELS[choice(*LOG_LEVELS)(value)], choice(*LOG_LEVELS).accepts),
    ),
    "format": ConfigKey("text (the default), or json: an object per line.", choice("text", "json")),
    "file": ConfigKey("A file to append to.  Default: stderr.", FILE),
}
KEEP_KEYS: Final = {
    "sessions": ConfigKey(
        "How long connections that have ended are kept, such as 30 days.  Default: forever.", duration
    ),
    "dead_letters": ConfigKey("How long messages that could not be stored are kept.  Default: forever.", duration),
}


@attrs.frozen
class MetricsSettings:
    """Where metrics and health are served, and how many seconds messages may wait while nothing is stored."""

    host: str
    port: int
    max_lag: float = 60.0
    path: str = attrs.field(default="metrics", eq=False)


@attrs.frozen
class LogSettings:
    """What is logged, how, and where to: to stderr without a ``file``."""

    level: int | None = None
    format: Literal["text", "json"] = "text"
    file: Path | None = None


LOG_DEFAULTS: Final = LogSettings()


@attrs.frozen
class SystemKeep:
    """How long ended sessions and dead letters are kept; None: forever."""

    sessions: timedelta | None = None
    dead_letters: timedelta | None = None

    @property
    def has_limit(self) -> bool:
        """True if anything is ever deleted."""
        return self.sessions is not None or self.dead_letters is not None


KEEP_ALL: Final = SystemKeep()


def read_keep(node: Node) -> SystemKeep:
    """Return what a section says, or a length of time in its place, which is for both."""
    if node.value is not None and not isinstance(node.value, Mapping):
        both = node.read(duration, None)
        return SystemKeep(both, both)
    return SystemKeep(**node.section(KEEP_KEYS).values(KEEP_KEYS))


def read_metrics(node: Node) -> MetricsSettings | None:
    """Return the settings in a section, or in an address in its place; None if there is neither."""
    if node.value is None:
        return None
    if isinstance(node.value, Mapping):
        section = node.section(METRICS_KEYS)
        place = section.child("listen")
    elif isinstance(node.value, str):
        section, place = Node({}, node.path, node.problems), node
    else:
        node.fail(f"expected {_ADDRESS}, or a mapping with `listen`")
        return None
    address = place.require(_listen_address, _ADDRESS)
    max_lag = section.child("max_lag").read(lambda value: duration(value).total_seconds(), 60.0)
    return None if address is None else MetricsSettings(*address, max_lag, place.path)
