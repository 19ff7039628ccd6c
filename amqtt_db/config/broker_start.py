"""What lets amqtt's broker refuse to start, or lets in more clients than one would expect: its plugins and listeners.

This imports the plugins, so it is for `check`; `run` leaves it to amqtt.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import fields, is_dataclass
from inspect import iscoroutinefunction
from ipaddress import ip_address
from typing import Any, Final

from amqtt.contexts import BaseContext
from amqtt.plugins.authentication import AnonymousAuthPlugin, FileAuthPlugin
from amqtt.plugins.base import BaseAuthPlugin, BasePlugin, BaseTopicPlugin
from dacite import DaciteError, MissingValueError, WrongTypeError, from_dict

from amqtt_db.config.broker_file import other_plugins
from amqtt_db.config.yaml_checks import TYPE_NAMES, Node, found
from amqtt_db.errors import Problem
from amqtt_db.registry import load_path

_EVERY_ADDRESS: Final = "0.0.0.0:1883"


def find_start_problems(document: Mapping[str, Any]) -> tuple[Problem, ...]:
    """Return why amqtt would not start with a document that is valid otherwise."""
    root = Node(document, "")
    for name, section in other_plugins(root):
        _check_plugin(name, section)
    listeners = root.child("listeners")
    for name in listeners.value if isinstance(listeners.value, Mapping) else ():
        _check_tls(listeners.child(name))
    return tuple(root.problems)


def find_surprises(document: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield remarks on a document that amqtt accepts but that does not do what one would expect."""
    plugins = [(_find_class(name), section) for name, section in other_plugins(Node(document, ""))]
    doormen = [(plugin, section) for plugin, section in plugins if plugin is None or issubclass(plugin, BaseAuthPlugin)]
    if not doormen:
        yield Problem(
            "plugins",
            "no plugin authenticates clients, so amqtt refuses every client; to let clients in without a password, add "
            "`amqtt.plugins.authentication.AnonymousAuthPlugin: {allow_anonymous: true}`",
        )
    elif all(_lets_anybody_in(plugin, section) for plugin, section in doormen):
        yield from _open_doors(document, doormen[0][1].path)


def _open_doors(document: Mapping[str, Any], path: str) -> Iterator[Problem]:
    given = document.get("listeners")
    listeners = given if given and isinstance(given, Mapping) else {"default": {}}
    for name, listener in listeners.items():
        options = listener if isinstance(listener, Mapping) else {}
        bind = str(options.get("bind") or _EVERY_ADDRESS)
        if options.get("type") != "external" and not _is_loopback(bind):
            yield Problem(
                f"listeners.{name}",
                f"whoever reaches {bind} may publish and subscribe without a password, because of {path}; bind to "
                "127.0.0.1, or use a plugin that asks for a password",
            )


def _is_loopback(bind: str) -> bool:
    host = bind.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _lets_anybody_in(plugin: type | None, section: Node) -> bool:
    options = section.value if isinstance(section.value, Mapping) else {}
    return plugin is AnonymousAuthPlugin and options.get("allow_anonymous", True) is True


def _find_class(name: str) -> type | None:
    """Return a plugin's class, None if it cannot be known here."""
    try:
        plugin = load_path(name)
    except ValueError:
        return None
    return plugin if isinstance(plugin, type) else None


def _check_plugin(name: str, section: Node) -> None:
    """Note in a plugin's section what amqtt would reject when it makes the plugin."""
    before = len(section.problems)
    plugin = Node(name, section.path, section.problems).read(load_path, None)
    if plugin is None:
        return
    if not (isinstance(plugin, type) and issubclass(plugin, BasePlugin)):
        section.fail("is not a plugin for amqtt: expected a subclass of amqtt.plugins.base.BasePlugin")
        return
    for kind, method in ((BaseAuthPlugin, "authenticate"), (BaseTopicPlugin, "topic_filtering")):
        if issubclass(plugin, kind) and not iscoroutinefunction(getattr(plugin, method)):
            section.fail(f"amqtt rejects it: {method} must be `async def`")
    options = _read_options(plugin, section)
    if options is not None and len(section.problems) == before and issubclass(plugin, FileAuthPlugin):
        _check_password_file(plugin, options, section)


def _read_options(plugin: Any, section: Node) -> Any:
    """Return a plugin's options as amqtt makes them; note what is wrong with them."""
    made: Any = plugin.Config
    if not is_dataclass(made):
        section.fail("amqtt rejects it: its class `Config` is not a dataclass")
        return None
    given = section.section({field.name for field in fields(made)}).value
    try:
        return from_dict(plugin.Config, dict(given) if isinstance(given, Mapping) else {})
    except MissingValueError as error:
        section.fail(f"needs the option {error.field_path}")
    except WrongTypeError as error:
        wanted = TYPE_NAMES.get(error.field_type, str(error.field_type))
        section.child(error.field_path).fail(f"expected {wanted}, found {found(error.value)}")
    except (DaciteError, TypeError, ValueError) as error:
        section.fail(f"amqtt rejects its options: {type(error).__name__}")
    return None


def _check_password_file(plugin: type[FileAuthPlugin], options: Any, section: Node) -> None:
    """Note why the plugin cannot read its file; making it does nothing else."""
    context = copy(BaseContext())
    context.config = options
    try:
        plugin(context)  # type: ignore[arg-type]
    except Exception as error:  # amqtt stops at any
        section.child("password_file").fail(str(error))


def _check_tls(listener: Node) -> None:
    """Note in a listener's section why it cannot use TLS."""
    options = listener.value if isinstance(listener.value, Mapping) else {}
    if not options.get("ssl"):
        return
    if options.get("certfile") is None:
        listener.child("certfile").fail("missing; `ssl: true` needs the files of a certificate and its key")
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(options["certfile"], options.get("keyfile"))
    except (OSError, ValueError, TypeError) as error:
        listener.child("certfile").fail(f"cannot be used with its key: {error}")
