"""The YAML of a first configuration, with comments that say what to change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import yaml

from amqtt_db.draft.routes import RouteDraft
from amqtt_db.errors import format_count

_EDITORS: Final = """\
# Editors complete and check this file after: amqtt-db schema --output amqtt-db.schema.json
# yaml-language-server: $schema=amqtt-db.schema.json
"""

_STORAGE: Final = """\
# Where the records go.  A password belongs into the environment: postgresql://user:${PASSWORD}@localhost/mqtt
database: sqlite:///mqtt.db

# Messages wait here until they are in the database; each of them is on disk before it is acknowledged.
journal: {path: mqtt.journal, max_size: 1 GiB, sync: always}

# Metrics for Prometheus, and /healthz and /readyz:
# metrics: 127.0.0.1:9641

# How long ended connections and dead letters are kept; by default forever.
# keep: {sessions: 90 days, dead_letters: 90 days}
"""

_ROUTES_COMMENT: Final = """\
# How messages are stored: the first route whose topic matches.  `amqtt-db check` shows what a message would become:
#   amqtt-db check --topic home/kitchen/climate --payload '{"temp": 21.5}'
"""

TEMPLATE: Final = f"""\
{_EDITORS}
# The broker that this starts: for clients on this machine, without passwords.
# To store the messages of another broker instead, replace `listeners:` and `plugins:` by this line, and move what is
# under amqtt_db.Plugin to the left edge:
#   broker: mqtt://localhost
listeners:
  default: {{type: tcp, bind: "127.0.0.1:1883"}}

plugins:
  amqtt.plugins.authentication.AnonymousAuthPlugin: {{allow_anonymous: true}}
  amqtt_db.Plugin:
    {_STORAGE.replace(chr(10), chr(10) + "    ").strip()}

    {_ROUTES_COMMENT.replace(chr(10), chr(10) + "    ").strip()}
    routes:
      # A level in braces becomes a column.  Declared properties always have their type; the others get columns too.
      - topic: home/{{room}}/climate
        model: {{wide: {{table: climate}}}}
        entity: {{temp: float, humidity: float}}
        unknown: add
        # keep: 365 days
        # latest: true

      # Everything else: a table per topic, a column per property.
      - topic: "#"
""".replace("\n    \n", "\n\n")
"""A configuration to begin with when there is no broker to listen to."""


def write_yaml(broker: str, drafts: Iterable[RouteDraft], heard: int, seconds: float) -> str:
    """Return a configuration that subscribes to a broker's URL and has these routes.

    They were made of as many messages as were ``heard`` within so many seconds.
    """
    head = [
        *_EDITORS.splitlines(), "",
        f"# Made from {format_count(heard, 'message')} in {seconds:g} s; types and models are guesses: look at them.",
        f"broker: {_scalar(broker)}", "",
        *_STORAGE.splitlines(), "",
        *_ROUTES_COMMENT.splitlines(),
        "routes:",
    ]  # fmt: skip
    return "\n".join([*head, *(line for draft in drafts for line in _route_lines(draft))]).rstrip() + "\n"


def _route_lines(draft: RouteDraft) -> Iterator[str]:
    """Yield the lines of a route, after a comment with the reasons for it."""
    if draft.messages:
        extent = f"{format_count(draft.messages, 'message')} of {format_count(draft.topics, 'topic')}"
        yield f"  # {extent}; {draft.reasons[0]}"
    else:
        yield f"  # {draft.reasons[0]}"
    yield from (f"  # {reason}" for reason in draft.reasons[1:])
    for index, (key, value) in enumerate(draft.route.items()):
        start = "  - " if index == 0 else "    "
        if key == "entity":
            yield f"{start}{key}:"
            yield from (f"      {_scalar(name)}: {_flow(spec)}" for name, spec in value.items())
        else:
            yield f"{start}{key}: {_flow(value)}"
    yield ""


def _flow(value: Any) -> str:
    """Return a value on one line."""
    dumped = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), sort_keys=False, allow_unicode=True)
    return str(dumped).removesuffix("...\n").strip()


def _scalar(text: str) -> str:
    """Return text as one line of YAML, in quotes if need be."""
    plain = _flow(text)
    return (
        plain if "\n" not in plain and not plain.startswith("? ") else yaml.safe_dump(text, default_style='"').strip()
    )
