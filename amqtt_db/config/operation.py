"""What an operator watches: ``metrics:``, where metrics and health are served, ``log:``, and ``keep:``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal, cast

import attrs

from amqtt_db.config.yaml_checks import Node, choice, duration, expanded, text

METRICS_KEYS: Final = ("listen", "max_lag")
LOG_KEYS: Final = ("level", "format", "file")
KEEP_KEYS: Final = ("sessions", "dead_letters")
LOG_LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR,
}  # fmt: skip

_ADDRESS: Final = "an address such as 127.0.0.1:9641"


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
    section = node.section(KEEP_KEYS)
    return SystemKeep(*(section.child(key).read(duration, None) for key in KEEP_KEYS))


def read_log(section: Node) -> LogSettings:
    """Return what a section says."""
    return LogSettings(
        level=section.child("level").read(lambda value: LOG_LEVELS[choice(*LOG_LEVELS)(value)], None),
        format=cast(Any, section.child("format").read(choice("text", "json"), "text")),
        file=section.child("file").read(lambda value: Path(expanded(value)), None),
    )


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


def _listen_address(value: object) -> tuple[str, int]:
    """Return host and port.  Raises ValueError."""
    host, colon, port = text(value).rpartition(":")
    if not (colon and host and port.isdecimal() and int(port) <= 65_535):
        raise ValueError(f"expected {_ADDRESS}")
    return host.strip("[]"), int(port)
