"""The configuration: YAML → frozen types, with every mistake reported at once.

The broker's process reads it too, so nothing here imports SQLAlchemy.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, Final, cast

import attrs

from amqtt_db.config.broker import BrokerSettings, read_brokers
from amqtt_db.config.broker_file import DEFAULT, KEYS, OF_BROKERS, check_broker, plugin_section
from amqtt_db.config.idle_keys import find_idle_keys
from amqtt_db.config.keys import ConfigKey, defined_in
from amqtt_db.config.operation import (
    KEEP_ALL,
    LOG_DEFAULTS,
    LOG_KEYS,
    LogSettings,
    MetricsSettings,
    SystemKeep,
    WebSettings,
    read_keep,
    read_metrics,
    read_web,
)
from amqtt_db.config.payload import read_zone
from amqtt_db.config.routes import read_routes
from amqtt_db.config.storage import storage_problems
from amqtt_db.config.yaml_checks import FILE, Node, choice, expanded_url, read_yaml, seconds, size
from amqtt_db.config.yaml_lines import located_in
from amqtt_db.database.engines.urls import check_url, dialect_of, file_of
from amqtt_db.errors import Problem
from amqtt_db.journal import Sync
from amqtt_db.routing.route import Route

JOURNAL_KEYS: Final = {
    "path": ConfigKey("The journal's file; each broker or bridge needs its own.  Default: mqtt.journal.", FILE),
    "max_size": ConfigKey("The largest size of all waiting messages, such as 512 MiB.  Default: 1 GiB.", size("16 kB")),
    "max_payload": ConfigKey("The largest payload that is accepted.  Default: 256 MiB.", size("1 kB")),
    "sync": ConfigKey(
        "A message is acknowledged when it has reached the disk (always, the default), or when it is written, which is "
        "forced to disk every second (1s) or when the operating system likes (never).",
        choice("always", "1s", "never"),
    ),
}
WRITER_KEYS: Final = {
    "time_limit": ConfigKey("Seconds that your own code may take for a batch of messages.  Default: 30.", seconds),
    "memory_limit": ConfigKey("Memory that the writer's process may use.  Default: 2 GiB.", size("64 MiB")),
}
DATABASE: Final = "sqlite:///mqtt.db"
BRIDGE_KEYS: Final = {
    "broker": ConfigKey("The broker to subscribe to: a URL, or a mapping with `url`.", defined_in("broker")),
    "brokers": ConfigKey("Several brokers, each under a name.", defined_in("brokers")),
}
"""The keys that name brokers to subscribe to; in such a document the plugin's keys are at the same level."""

_ELSEWHERE: Final = {
    "path": "belongs in `journal: {path: …}`",
    "max_size": "belongs in `journal: {max_size: …}`",
    "max_payload": "belongs in `journal: {max_payload: …}`",
    "sync": "belongs in `journal: {sync: …}`",
    "time_limit": "belongs in `writer: {time_limit: …}`",
    "memory_limit": "belongs in `writer: {memory_limit: …}`",
    "listen": "belongs in `metrics: {listen: …}` or `web: {listen: …}`",
    "token": "belongs in `web: {token: …}`",
    "max_lag": "belongs in `metrics: {max_lag: …}`",
    "level": "belongs in `log: {level: …}`",
    "topic": "belongs in an entry of the list `routes:`",
}
_BESIDE_BROKERS: Final = {**OF_BROKERS, **_ELSEWHERE}
_PASSWORD: Final = re.compile(r"(://[^:/@]*):.*@", re.DOTALL)
_SECRET_QUERY: Final = re.compile(r"([?&][^=&]*(?:pass|pwd|secret|token|key)[^=&]*=)[^&]*", re.IGNORECASE)


def masked(url: str) -> str:
    """Return a database URL without its passwords; ``***`` for text that is not a URL."""
    return _SECRET_QUERY.sub(r"\1***", _PASSWORD.sub(r"\1:***@", url, count=1)) if "://" in url else "***"


@attrs.frozen
class JournalSettings:
    """The ``journal:`` section: the file, the limits in bytes on it and on a payload, and when a commit is on disk."""

    path: Path = Path("mqtt.journal")
    max_size: int = 2**30
    sync: Sync = "always"
    max_payload: int = 2**28


@attrs.frozen
class WriterSettings:
    """The ``writer:`` section: limits on the seconds of user code per batch, and on the bytes of memory."""

    time_limit: float = 30.0
    memory_limit: int = 2**31


@attrs.frozen
class Settings:
    """The plugin's section of the broker's YAML.

    ``database`` is a URL with its environment variables filled in; the repr hides its password.  Without ``metrics``
    and ``web`` nothing is served; ``keep`` is about sessions and dead letters.  ``notes`` are remarks on settings that
    are valid but have no effect.
    """

    database: str = attrs.field(repr=masked)
    journal: JournalSettings
    routes: tuple[Route, ...]
    writer: WriterSettings = WriterSettings()
    notes: tuple[Problem, ...] = ()
    metrics: MetricsSettings | None = None
    log: LogSettings = LOG_DEFAULTS
    keep: SystemKeep = KEEP_ALL
    web: WebSettings | None = None


def load_section(mapping: Mapping[str, Any] | None, where: str = "plugins.amqtt_db.Plugin") -> Settings:
    """Return the settings in a plugin section; ``where`` is its path in the YAML, for messages.

    None means absent: for the section, and for each value in it.  Raises ConfigError with every mistake.
    """
    return _settings(Node(mapping, where))


def load_settings(path: Path | str) -> Settings:
    """Return the settings in an amqtt broker's YAML file.

    Raises ConfigError with every mistake in the file, also if it has no section for this plugin.
    """
    document = read_yaml(Path(path))
    with located_in(Path(path)):
        return load_document(document, str(path))


def broker_config(path: Path | str | None) -> dict[str, Any]:
    """Return the configuration for amqtt's ``Broker`` from a file, or the built-in default if ``path`` is None.

    Raises ConfigError with every mistake in the file.
    """
    if path is None:
        return deepcopy(dict(DEFAULT))
    document = read_yaml(Path(path))
    with located_in(Path(path)):
        load_document(document, str(path))
    return cast(dict[str, Any], document)


def load_document(document: Any, file: str = "the configuration") -> Settings:
    """Return the settings in a broker's whole configuration; ``file`` names it in messages.  Raises ConfigError."""
    root = Node({} if document is None else document, "")
    if not isinstance(root.value, Mapping):
        root = Node(root.value, file)
        root.section(())
        root.done()
    if is_bridge(root.value):
        return load_bridge(root.value)[0]
    check_broker(root)
    section = plugin_section(root)
    return _settings(section or Node(None, "", root.problems))


def is_bridge(document: Any) -> bool:
    """Return True for a document that names brokers to subscribe to, rather than listeners of its own."""
    return isinstance(document, Mapping) and any(key in document for key in BRIDGE_KEYS)


def load_bridge(document: Mapping[str, Any]) -> tuple[Settings, tuple[BrokerSettings, ...]]:
    """Return the settings in a document that names brokers, and those brokers.  Raises ConfigError."""
    root = Node(document, "")
    journal = _journal(Node(document.get("journal"), "journal"))
    brokers = read_brokers(root, journal.path)
    root.section({**KEYS, **BRIDGE_KEYS}, _BESIDE_BROKERS)
    known = {key: value for key, value in plugin_config(document)[1].items() if key in KEYS}
    return _settings(Node(known, "", root.problems)), brokers


def bridge_to(url: str) -> dict[str, Any]:
    """Return the document that a broker's URL means: all its topics, in an SQLite database in this directory."""
    return {"broker": url, **deepcopy(dict(DEFAULT["plugins"]["amqtt_db.Plugin"]))}


def plugin_config(broker: Mapping[str, Any]) -> tuple[str, Any]:
    """Return the path and the content of this plugin's section in a valid configuration."""
    if is_bridge(broker):
        return "", {key: value for key, value in broker.items() if key not in BRIDGE_KEYS}
    section = plugin_section(Node(broker, ""))
    return ("", None) if section is None else (section.path, section.value)


def _settings(node: Node) -> Settings:
    section = node.section(KEYS, _ELSEWHERE)
    url = section.child("database")
    database = DATABASE if url.value is None else url.read(_database, "")
    journal = _journal(section.child("journal"))
    writer = WriterSettings(**section.child("writer").section(WRITER_KEYS).values(WRITER_KEYS))
    metrics = read_metrics(section.child("metrics"))
    log = LogSettings(**section.child("log").section(LOG_KEYS).values(LOG_KEYS))
    keep = read_keep(section.child("keep"))
    web = read_web(section.child("web"))
    if _share_a_file(journal.path, database):
        place = Node(None, f"{section.path}.journal.path", node.problems)
        place.fail("is the database's file too; give the journal its own file, such as mqtt.journal")
    zone = section.child("timezone").read(read_zone, None)
    routes = {path: route.with_timezone(zone) for path, route in read_routes(section.child("routes")).items()}
    node.problems.extend(storage_problems(routes.values(), dialect_of(database)))
    remarks = tuple(find_idle_keys(section.child("routes"), routes))
    section.done(remarks)
    return Settings(database, journal, tuple(routes.values()), writer, remarks, metrics, log, keep, web)


def _journal(node: Node) -> JournalSettings:
    if isinstance(node.value, str):
        node.fail("expected a mapping such as `{path: mqtt.journal}`, found text")
        return JournalSettings()
    return JournalSettings(**node.section(JOURNAL_KEYS).values(JOURNAL_KEYS))


def _share_a_file(journal: Path, database: str) -> bool:
    """Return True if a journal and an SQLite database would use the same files."""
    name = file_of(database)
    if name is None:
        return False
    one, other = (os.path.realpath(path) for path in (journal, name))
    return any(one == other + end or other == one + end for end in ("", "-wal", "-shm", "-journal"))


def _database(value: object) -> str:
    url = expanded_url(value)
    check_url(url)
    return url
