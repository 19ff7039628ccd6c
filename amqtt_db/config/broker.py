"""``broker:`` and ``brokers:``: the brokers to subscribe to, each a URL or a mapping."""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import unquote, urlsplit

import attrs

from amqtt_db.config.keys import Check, ConfigKey, accepting, defined_in
from amqtt_db.config.yaml_checks import Node, choice, duration, expanded, expanded_url, flag, found, text, whole_number

Protocol = Literal["auto", "5", "3.1.1"]
Scheme = Literal["mqtt", "mqtts", "ws", "wss"]


_PORTS: Final[Mapping[str, int]] = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
_OTHER_SCHEMES: Final[Mapping[str, str]] = {
    "tcp": "write mqtt:// instead of tcp://",
    "ssl": "write mqtts:// instead of ssl://",
    "tls": "write mqtts:// instead of tls://",
    "mqtt+ssl": "write mqtts:// instead of mqtt+ssl://",
    "http": "write ws:// instead of http:// for MQTT over WebSocket, or else mqtt://",
    "https": "write wss:// instead of https:// for MQTT over WebSocket, or else mqtts://",
}
_IN_URL: Final = "is part of the URL: `url: mqtt://HOST:PORT`"
_IN_ROUTES: Final = "topics are not chosen here: the bridge subscribes to what the routes cover"
_BROKER_HINTS: Final[Mapping[str, str]] = {
    "host": _IN_URL,
    "port": _IN_URL,
    "topic": _IN_ROUTES,
    "topics": _IN_ROUTES,
    "version": "unknown key; did you mean `protocol`?",
    "clean_session": "the session is always kept, so that the broker keeps messages while the bridge is away",
}
_NOT_OPTIONAL: Final = "certificates are always verified; to trust one that no known authority signed, name it as `ca`"
_TLS_HINTS: Final[Mapping[str, str]] = {
    "insecure": _NOT_OPTIONAL,
    "verify": _NOT_OPTIONAL,
    "cert": "unknown key; did you mean `certificate`?",
}
_PROTOCOLS: Final[Mapping[object, str]] = {5: "5", "3.1.1": "3.1.1", "5": "5", "auto": "auto"}
_LONGEST_KEEP_ALIVE: Final = 65_535
_NEVER: Final = 2**32 - 1
_GROUP_NAME: Final = re.compile(r"[^/+#]+")
_BRACKETS: Final = "write an IPv6 address in brackets, such as mqtt://[::1]:1883"
_HOST: Final = re.compile(r"[^\s/?#]+")


@accepting(type="string", pattern="://|\\$\\{")
def _broker_address(value: object) -> dict[str, Any]:
    """Return scheme, host, port, user and password of a URL.  Raises ValueError that reveals no part of a password."""
    url = expanded_url(value)
    if "://" not in url:
        raise ValueError(f"expected a URL such as mqtt://localhost or mqtts://example.org:8883{_guess_scheme(url)}")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(_BRACKETS) from None
    scheme = parts.scheme.casefold()
    if scheme not in _PORTS:
        raise ValueError(_OTHER_SCHEMES.get(scheme, f"unknown scheme {scheme[:20]}://; use mqtt, mqtts, ws or wss"))
    is_web = scheme in ("ws", "wss")
    if (parts.path not in ("", "/") and not is_web) or parts.query or parts.fragment:
        allowed = "host, port and path" if is_web else "host and port, where topics are not chosen: the routes do that"
        raise ValueError(f"has something after {allowed}; percent-encode / ? # in a user name or password")
    try:
        port = parts.port
    except ValueError:
        if parts.netloc.rpartition("@")[2].count(":") > 1:
            raise ValueError(_BRACKETS) from None
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


def _guess_scheme(text: str) -> str:
    """Return what to write instead of a host, perhaps with a port; nothing if that might show a password."""
    if "@" in text or not _HOST.fullmatch(text):
        return ""
    return f"; write mqtt{'s' if text.endswith(':8883') else ''}://{text}"


@accepting(type="string", minLength=1)
def _existing_file(value: object) -> Path:
    path = Path(expanded(value))
    if not path.is_file():
        raise ValueError(f"{path} is a directory; name a file" if path.is_dir() else f"the file {path} does not exist")
    return path


@accepting(enum=["auto", "5", "3.1.1", 5])
def _protocol(value: object) -> str:
    name = _PROTOCOLS.get(value) if isinstance(value, str | int) and not isinstance(value, bool) else None
    return name or choice("auto", "5", "3.1.1")(value)


@accepting(type="string", minLength=1)
def _client_id(value: object) -> str:
    name = expanded(value)
    if len(name.encode()) > 65_535:
        raise ValueError("is longer than 65535 bytes")
    return name


@accepting(type="string", pattern="^[^/+#]+$")
def _group_name(value: object) -> str:
    name = expanded(value)
    if not _GROUP_NAME.fullmatch(name):
        raise ValueError("expected a name without / + #")
    return name


def _whole_seconds(most: int) -> Check[int]:
    """Return a check for a length of time in whole seconds, at most ``most``."""

    @accepting(**duration.accepts)
    def check(value: object) -> int:
        count = int(duration(value).total_seconds())
        if count > most:
            raise ValueError(f"expected at most {most} s")
        return count

    return check


TLS_KEYS: Final = {
    "ca": ConfigKey("A file with the certificates to trust.  Default: those that the system trusts.", _existing_file),
    "certificate": ConfigKey("A file with this client's certificate.", _existing_file),
    "key": ConfigKey("A file with the key of this client's certificate.", _existing_file),
    "alpn": ConfigKey("The protocol to name in the TLS handshake, as some cloud brokers require.", text),
}
_BROKER_OPTIONS: Final = {
    "client_id": ConfigKey("The client id.  Default: made from the names of this host and the journal.", _client_id),
    "username": ConfigKey("The user name; `${NAME}` inserts an environment variable.", expanded),
    "password": ConfigKey("The password; `${NAME}` inserts an environment variable.", expanded),
    "protocol": ConfigKey("The version of MQTT.  Default: auto, which is 5 where the broker speaks it.", _protocol),
    "qos": ConfigKey("The quality of service to subscribe with.  Default: 2.", whole_number(0, 2)),
    "window": ConfigKey("Messages that may be unacknowledged.  Default: 1000.", whole_number(1, 65_535)),
    "session": ConfigKey(
        "How long the broker keeps messages while the bridge is disconnected.  Default: 7 days.", _whole_seconds(_NEVER)
    ),
    "keep_alive": ConfigKey(
        "How often the connection is tested.  Default: 1 min.", _whole_seconds(_LONGEST_KEEP_ALIVE)
    ),
    "group": ConfigKey("A shared subscription: all clients of a group share the messages.", _group_name),
    "retained": ConfigKey(
        "What to do with retained messages: store (the default) or ignore.", choice("store", "ignore")
    ),
    "duplicates": ConfigKey(
        "Redelivered messages that may be stored already: drop (the default) or keep.", choice("drop", "keep")
    ),
    "rebirth": ConfigKey("Ask edge nodes of Sparkplug B for births that are missing.  Default: false.", flag),
}
BROKER_KEYS: Final = {
    "url": ConfigKey(
        "Such as mqtt://localhost or mqtts://user:${PASSWORD}@example.org.", _broker_address, is_required=True
    ),
    "tls": ConfigKey("Certificates, with mqtts:// and wss://.", defined_in("tls")),
    **_BROKER_OPTIONS,
}


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
    rebirth: bool = False
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
    if many.value is not None and not isinstance(many.value, Mapping):
        many.fail(f"expected a name for each broker, such as `hall: mqtt://hall.local`, found {found(many.value)}")
        return ()
    nodes += [many.child(name) for name in many.value or ()]
    if not nodes:
        (one if many.value is None else many).fail("names no broker; write a URL such as mqtt://localhost")
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
        section = node.section(BROKER_KEYS, _BROKER_HINTS)
        place = section.child("url")
    else:
        node.fail(f"expected a URL such as mqtt://localhost, or a mapping with `url`, found {found(node.value)}")
        return None
    address = place.require(_broker_address, "a URL such as mqtt://localhost")
    if address is None:
        return None
    tls = _read_tls(section.child("tls"), address["scheme"])
    default = BrokerSettings(**address, client_id="")
    derived = {"client_id": _derived_id(default, journal), "tls": tls, "path": node.path}
    made = attrs.evolve(default, **{**derived, **section.values(_BROKER_OPTIONS)})
    for key in ("username", "password"):
        if address[key] is not None and section.child(key).value is not None:
            section.child(key).fail("is in the URL too; remove one of them")
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


def _read_tls(node: Node, scheme: str) -> TlsSettings:
    section = node.section(TLS_KEYS, _TLS_HINTS)
    if node.value is not None and scheme in ("mqtt", "ws"):
        node.fail(f"has no effect with {scheme}://; write {scheme}s://")
    made = TlsSettings(**section.values(TLS_KEYS))
    if section.child("key").value is not None and section.child("certificate").value is None:
        section.child("key").fail("needs a `certificate` too")
    return made


def _derived_id(broker: BrokerSettings, journal: Path) -> str:
    """Return a client id that stays the same at each start, and differs for each host and journal.

    It has at most 23 letters and digits, which every MQTT 3.1.1 broker must accept.
    """
    name = f"{socket.gethostname()}\0{journal.resolve()}"
    return f"amqttdb{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}"
