"""An amqtt broker's whole configuration: what is wrong outside the plugin's section, and where that section is."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, Final

from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType

from amqtt_db.config.broker import BROKER_KEYS
from amqtt_db.config.keys import ConfigKey, defined_in, described
from amqtt_db.config.yaml_checks import Node, choice, text

PLUGIN_NAMES: Final = ("amqtt_db.Plugin", "amqtt_db.ingest.broker.plugin.Plugin")
KEYS: Final = {
    "database": ConfigKey(
        "The database's URL; `${NAME}` inserts an environment variable.  Default: sqlite:///mqtt.db.",
        described(type="string", pattern=r"://|\$\{"),
    ),
    "journal": ConfigKey("Where messages wait between the broker and the database.", defined_in("journal")),
    "writer": ConfigKey("Limits for the process that writes to the database.", defined_in("writer")),
    "metrics": ConfigKey(
        "The address at which metrics and health are served.  Default: they are not.", defined_in("metrics")
    ),
    "web": ConfigKey(
        "The address of the page that shows what is stored.  Default: it is not served.", defined_in("web")
    ),
    "log": ConfigKey("What is logged, how, and where to.", defined_in("log")),
    "keep": ConfigKey("How long ended sessions and dead letters are kept.  Default: forever.", defined_in("keep")),
    "routes": ConfigKey(
        "The first route whose filter matches a topic says how its messages are stored.", defined_in("routes")
    ),
    "timezone": ConfigKey("The zone of times without one, such as Europe/Berlin.  Default: UTC.", text),
}
"""The keys of this plugin's section."""

DEFAULT: Final[Mapping[str, Any]] = {
    "listeners": {"default": {"type": "tcp", "bind": "127.0.0.1:1883"}},
    "plugins": {
        "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True},
        "amqtt_db.Plugin": {
            "database": "sqlite:///mqtt.db",
            "journal": {"path": "mqtt.journal"},
            "routes": [{"topic": "#", "model": "wide"}],
        },
    },
}
"""The broker that runs without a configuration file: for this machine only, every topic, a table per topic."""

_BROKER_KEYS: Final = frozenset({field.name for field in fields(BrokerConfig)} | {"topic-check"})
_OF_A_BROKER: Final = "belongs in `broker: {url: …, %s: …}`, for a broker to subscribe to"
OF_BROKERS: Final[Mapping[str, str]] = {key: _OF_A_BROKER % key for key in BROKER_KEYS if key != "url"}
"""What to say of keys of ``broker:`` that are elsewhere."""
_BELONGS: Final[Mapping[str, str]] = {**OF_BROKERS, **dict.fromkeys(KEYS, "belongs under plugins.amqtt_db.Plugin")}
_LISTENER_KEYS: Final = frozenset(field.name for field in fields(ListenerConfig))


def check_broker(root: Node) -> None:
    """Note in ``root``, a whole document, what amqtt would reject in it."""
    before = len(root.problems)
    root.section(_BROKER_KEYS, _BELONGS)
    listeners = root.child("listeners")
    names = listeners.value if isinstance(listeners.value, Mapping) else {}
    for name in names:
        listener = listeners.child(name).section(_LISTENER_KEYS)
        listener.child("type").read(choice(*(kind.value for kind in ListenerType)), None)
    if names and "default" not in names:
        listeners.fail("amqtt needs a listener named `default`")
    if len(root.problems) == before:
        for name in names:
            _try_amqtt(listeners.child(name), {"listeners": {"default": names[name]}})
    if len(root.problems) == before:
        _try_amqtt(root, root.value)


def _try_amqtt(node: Node, document: Mapping[str, Any]) -> None:
    """Note in ``node`` what amqtt rejects in a document made of its value."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            BrokerConfig.from_dict(deepcopy(dict(document)))
    except Exception as error:  # whatever amqtt and dacite raise, it would stop the broker
        node.fail(f"amqtt rejects it: {error}")


_NO_SECTION: Final = "add `amqtt_db.Plugin: {}`, or `broker: mqtt://HOST` to subscribe to another broker"


def plugin_section(root: Node) -> Node | None:
    """Return this plugin's section.  Note a problem and return None if it is missing or there are several."""
    sections = list(_sections(root.child("plugins")))
    for name, section in sections:
        if name in KEYS:
            section.fail("belongs under amqtt_db.Plugin: indent it one level deeper")
    mine = [section for name, section in sections if name in PLUGIN_NAMES]
    if len(mine) == 1:
        return mine[0]
    if mine:
        root.child("plugins").fail(f"this plugin is configured twice: {' and '.join(section.path for section in mine)}")
        return None
    close = get_close_matches(PLUGIN_NAMES[0], [name for name, _ in sections], 1)
    hint = f"found {close[0]!r}; did you mean 'amqtt_db.Plugin'?" if close else _NO_SECTION
    root.child("plugins").fail(f"the section amqtt_db.Plugin is missing; {hint}")
    return None


def other_plugins(root: Node) -> Iterator[tuple[str, Node]]:
    """Yield name and section of each plugin in a document that is not this project's."""
    return ((name, section) for name, section in _sections(root.child("plugins")) if name not in PLUGIN_NAMES)


def _sections(plugins: Node) -> Iterator[tuple[str, Node]]:
    """Return (name, section) for each of ``plugins:``, which is a mapping, or a list of names and mappings."""
    if isinstance(plugins.value, Mapping):
        yield from ((str(name), plugins.child(name)) for name in plugins.value)
        return
    for item in plugins.items():
        if isinstance(item.value, Mapping):
            yield from ((str(name), item.child(name)) for name in item.value)
        elif isinstance(item.value, str):
            yield item.value, Node(None, f"{item.path}.{item.value}", item.problems)
