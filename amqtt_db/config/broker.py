"""``broker:`` and ``brokers:``: the brokers to subscribe to, each a URL or a mapping."""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, cast
from urllib.parse import unquote, urlsplit

import attrs

from amqtt_db.config.yaml_checks import Node, choice, duration, expanded, expanded_url, found, text, whole_number

Protocol = Literal["auto", "5", "3.1.1"]
Scheme = Literal["mqtt", "mqtts", "ws", "wss"]

BROKER_KEYS: Final = (
    "url", "client_id", "username", "password", "tls", "protocol", "qos", "window", "session", "keep_alive",
    "group", "retained", "duplicates",
)  # fmt: skip
TLS_KEYS: Final = ("ca", "certificate", "key", "alpn")

_PORTS: Final[Mapping[str, int]] = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
_OTHER_SCHEMES: Final[Mapping[str, str]] = {
    "tcp": "write mqtt:// instead of tcp://",
    "ssl": "write mqtts:// instead of ssl://",
    "tls": "write mqtts:// instead of tls://",
}
_PROTOCOLS: Final[Mapping[object, str]] = {5: "5", "3.1.1": "3.1.1", "5": "5", "auto": "auto"}
_LONGEST_KEEP_ALIVE: Final = 65_535
_NEVER: Final = 2**32 - 1
_GROUP_NAME: Final = re.compile(r"[^/+#]+")
_HOST: Final = re.compile(r"[^\s/?#]+")


@attrs.frozen
class TlsSettings:
    """Certificates for a TLS connection; without ``ca``, those that the system trusts."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    alpn: str | None = None


@attrs.frozen
class BrokerSettings:
    """A broker to subscribe to.

    ``target`` is the path of its WebSocket; all clients of a ``group`` share the messages.  ``session`` and
    ``keep_alive`` are in seconds; ``path`` is its place in the YAML.
    """

    scheme: Scheme
    host: str
    port: int
    client_id: str
    target: str = "/mqtt"
    username: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    tls: TlsSettings = TlsSettings()
    protocol: Protocol = "auto"
    qos: int = 2
    window: int = 1000
    session: int = 7 * 86_400
    keep_alive: int = 60
    group: str | None = None
    retained: Literal["store", "ignore"] = "store"
    duplicates: Literal["drop", "keep"] = "drop"
    path: str = attrs.field(default="broker", eq=False)

    @property
    def url(self) -> str:
        """Scheme, host and port; for WebSocket also the path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.target if self.scheme in ('ws', 'wss') else ''}"


def read_brokers(root: Node, journal: Path) -> tuple[BrokerSettings, ...]:
    """Return the brokers that a document names; missing client ids are derived from ``journal``."""
    one, many = root.child("broker"), root.child("brokers")
    if one.value is not None and many.value is not None:
        many.fail("cannot be used together with `broker`; move that broker here and give it a name")
    nodes = [one] if one.value is not None else []
    if many.value is not None:
        nodes += [
            many.child(name) for name in many.section(many.value if isinstance(many.value, Mapping) else ()).value
        ]
    read = [(node, made) for node in nodes if (made := _read_broker(node, journal)) is not None]
    seen: dict[tuple[str, int, str], str] = {}
    for node, made in read:
        other = seen.setdefault((made.host, made.port, made.client_id), node.path)
        if other != node.path:
            node.fail(f"has the same broker and client id as {other}; each would disconnect the other")
    return tuple(made for _, made in read)


def _read_broker(node: Node, journal: Path) -> BrokerSettings | None:
    before = len(node.problems)
    if isinstance(node.value, str):
        section = Node({"url": node.value}, node.path, node.problems)
        place = node
    elif isinstance(node.value, Mapping):
        section = node.section(BROKER_KEYS)
        place = section.child("url")
    else:
        node.fail(f"expected a URL such as mqtt://localhost, or a mapping with `url`, found {found(node.value)}")
        return None
    address = place.require(_broker_address, "a URL such as mqtt://localhost")
    if address is None:
        return None
    tls = _read_tls(section.child("tls"), address["scheme"])
    default = BrokerSettings(**address, client_id="")
    made = attrs.evolve(
        default,
        client_id=section.child("client_id").read(_client_id, _derived_id(default, journal)),
        username=section.child("username").read(expanded, default.username),
        password=section.child("password").read(expanded, default.password),
        tls=tls,
        protocol=cast(Protocol, section.child("protocol").read(_protocol, default.protocol)),
        qos=section.child("qos").read(whole_number(0, 2), default.qos),
        window=section.child("window").read(whole_number(1, 65_535), default.window),
        session=section.child("session").read(partial(_whole_seconds, _NEVER), default.session),
        keep_alive=section.child("keep_alive").read(partial(_whole_seconds, _LONGEST_KEEP_ALIVE), default.keep_alive),
        group=section.child("group").read(_group_name, default.group),
        retained=cast(Any, section.child("retained").read(choice("store", "ignore"), default.retained)),
        duplicates=cast(Any, section.child("duplicates").read(choice("drop", "keep"), default.duplicates)),
        path=node.path,
    )
    if made.password is not None and made.username is None:
        section.child("password").fail("needs a `username` too: MQTT 3.1.1 has no password without one")
    made = _with_group(made, section.child("group"))
    return made if len(node.problems) == before else None


def _with_group(broker: BrokerSettings, node: Node) -> BrokerSettings:
    """Require MQTT 5 if a broker has a group: with older versions it may grant one and deliver nothing."""
    if broker.group is None:
        return broker
    if broker.protocol == "3.1.1":
        node.fail("needs MQTT 5: remove `protocol`, or remove the group")
    return attrs.evolve(broker, protocol="5")


def _group_name(value: object) -> str:
    name = expanded(value)
    if not _GROUP_NAME.fullmatch(name):
        raise ValueError("expected a name without / + #")
    return name


def _broker_address(value: object) -> dict[str, Any]:
    """Return scheme, host, port, user and password of a URL.  Raises ValueError that reveals no part of a password."""
    url = expanded_url(value)
    if "://" not in url:
        raise ValueError("expected a URL such as mqtt://localhost or mqtts://example.org:8883")
    parts = urlsplit(url)
    scheme = parts.scheme.casefold()
    if scheme not in _PORTS:
        raise ValueError(_OTHER_SCHEMES.get(scheme, f"unknown scheme {scheme[:20]}://; use mqtt, mqtts, ws or wss"))
    is_web = scheme in ("ws", "wss")
    if (parts.path not in ("", "/") and not is_web) or parts.query or parts.fragment:
        raise ValueError("has something after host and port; percent-encode / ? # in a user name or password")
    try:
        port = parts.port
    except ValueError:
        raise ValueError("has a port that is not a number from 1 to 65535") from None
    if not parts.hostname or port == 0 or not _HOST.fullmatch(parts.hostname):
        raise ValueError("has no host, or port 0; expected a URL such as mqtt://localhost")
    username = None if parts.username is None else unquote(parts.username)
    password = None if parts.password is None else unquote(parts.password)
    return {
        "scheme": scheme,
        "host": parts.hostname,
        "port": port or _PORTS[scheme],
        "target": parts.path if parts.path not in ("", "/") else "/mqtt",
        "username": username,
        "password": password,
    }


def _read_tls(node: Node, scheme: str) -> TlsSettings:
    section = node.section(TLS_KEYS)
    if node.value is not None and scheme in ("mqtt", "ws"):
        node.fail(f"has no effect with {scheme}://; write {scheme}s://")
    made = TlsSettings(
        ca=section.child("ca").read(_existing_file, None),
        certificate=section.child("certificate").read(_existing_file, None),
        key=section.child("key").read(_existing_file, None),
        alpn=section.child("alpn").read(text, None),
    )
    if section.child("key").value is not None and section.child("certificate").value is None:
        section.child("key").fail("needs a `certificate` too")
    return made


def _existing_file(value: object) -> Path:
    path = Path(expanded(value))
    if not path.is_file():
        raise ValueError(f"the file {path} does not exist")
    return path


def _protocol(value: object) -> str:
    name = _PROTOCOLS.get(value) if isinstance(value, str | int) and not isinstance(value, bool) else None
    return name or choice("auto", "5", "3.1.1")(value)


def _client_id(value: object) -> str:
    name = expanded(value)
    if len(name.encode()) > 65_535:
        raise ValueError("is longer than 65535 bytes")
    return name


def _whole_seconds(most: int, value: object) -> int:
    seconds = int(duration(value).total_seconds())
    if seconds > most:
        raise ValueError(f"expected at most {most} s")
    return seconds


def _derived_id(broker: BrokerSettings, journal: Path) -> str:
    """Return a client id that stays the same at each start, and differs for each host and journal.

    It has at most 23 letters and digits, which every MQTT 3.1.1 broker must accept.
    """
    name = f"{socket.gethostname()}\0{journal.resolve()}"
    return f"amqttdb{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}"
