"""What an operator watches: ``metrics:``, where metrics and health are served, ``web:``, ``log:``, and ``keep:``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Literal

import attrs

from amqtt_db.config.keys import Check, ConfigKey, accepting
from amqtt_db.config.yaml_checks import FILE, Node, choice, duration, expanded, text
from amqtt_db.decode.libraries import require_library

LOG_LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR,
}  # fmt: skip

_ADDRESS: Final = "an address such as 127.0.0.1:9641"
_SHORTEST_TOKEN: Final = 16  # characters


@accepting(type="string", pattern=r":\d+$")
def _listen_address(value: object) -> tuple[str, int]:
    """Return host and port.  Raises ValueError."""
    host, colon, port = (str(value) if type(value) is int else text(value)).rpartition(":")
    if not (port.isdecimal() and int(port) <= 65_535):
        raise ValueError(f"expected {_ADDRESS}")
    if not (colon and host):
        raise ValueError(f"expected a host, too: write 127.0.0.1:{port} for this machine only")
    return host.strip("[]"), int(port)


@accepting(type="string")
def _token(value: object) -> str:
    """Return a token, with environment variables filled in.  Raises ValueError."""
    token = expanded(value)
    if len(token) < _SHORTEST_TOKEN or not (token.isascii() and token.isprintable()):
        raise ValueError(f"expected {_SHORTEST_TOKEN} ASCII characters or more, such as `openssl rand -hex 16` prints")
    return token


METRICS_KEYS: Final = {
    "listen": ConfigKey("Host and port at which metrics and health are served.", _listen_address, is_required=True),
    "max_lag": ConfigKey(
        "How long messages may wait while nothing is stored before /readyz reports it.  Default: 1 min.", duration
    ),
}
WEB_KEYS: Final = {
    "listen": ConfigKey("Host and port at which the page is served.", _listen_address, is_required=True),
    "token": ConfigKey("What a browser must give; needed unless only this machine can reach the address.", _token),
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
class WebSettings:
    """Where the page is served, and the token that it asks for, None: it asks for none."""

    host: str = "127.0.0.1"
    port: int = 8083
    token: str | None = attrs.field(default=None, repr=False)
    path: str = attrs.field(default="web", eq=False)

    @property
    def url(self) -> str:
        """The address for a browser."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}/"


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
    elif isinstance(node.value, str) or type(node.value) is int:
        section, place = Node({}, node.path, node.problems), node
    else:
        node.fail(f"expected {_ADDRESS}, or a mapping with `listen`")
        return None
    address = place.require(_listen_address, _ADDRESS)
    max_lag = section.child("max_lag").read(lambda value: duration(value).total_seconds(), 60.0)
    return None if address is None else MetricsSettings(*address, max_lag, place.path)


def read_web(node: Node) -> WebSettings | None:
    """Return the settings in a section, or in an address in its place; None if there is neither."""
    if node.value is None:
        return None
    node.read(lambda _: require_web(), None)
    is_section = isinstance(node.value, Mapping)
    section = node.section(WEB_KEYS) if is_section else Node({}, node.path, node.problems)
    place = section.child("listen") if is_section else node
    address = place.require(_listen_address, _ADDRESS)
    token = section.child("token").read(_token, None)
    if address is not None and token is None and not is_loopback(address[0]):
        place.fail("other machines can reach this address: give `token:` too, or listen on 127.0.0.1")
    return None if address is None else WebSettings(*address, token, place.path)


def require_web() -> None:
    """Raise ValueError, saying which extra to install, if a library for the page is missing."""
    for library in ("jinja2", "starlette", "uvicorn"):
        require_library("web", library)


def is_loopback(host: str) -> bool:
    """Return True if a host is this machine, and no other can reach it."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
