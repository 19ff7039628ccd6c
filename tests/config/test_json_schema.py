"""The JSON Schema for editors: it accepts whatever the configuration accepts, and rejects what it can know."""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any, Final

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from amqtt_db import config
from amqtt_db.config import JOURNAL_KEYS, WRITER_KEYS
from amqtt_db.config.broker import BROKER_KEYS
from amqtt_db.config.broker_file import KEYS
from amqtt_db.config.json_schema import make_schema
from amqtt_db.config.operation import KEEP_KEYS, LOG_KEYS, METRICS_KEYS, WEB_KEYS
from amqtt_db.config.rollup import ROLLUP_KEYS
from amqtt_db.config.routes import ROUTE_KEYS
from amqtt_db.config.storage import HYPERTABLE_KEYS
from amqtt_db.errors import ConfigError

SCHEMA: Final = make_schema()
VALIDATOR: Final = jsonschema.Draft202012Validator(SCHEMA)

BRIDGE: Final = yaml.safe_load("""
broker: {url: mqtts://example.org, username: me, password: secret, qos: 1, session: 1 day, tls: {alpn: mqtt},
         protocol: 5, window: 10, keep_alive: 30 s, retained: ignore, duplicates: keep, rebirth: true, client_id: me}
database: postgresql://user:password@localhost/mqtt
journal: {path: my.journal, max_size: 1 GiB, max_payload: 1000000, sync: 1s}
writer: {time_limit: 1.5, memory_limit: 512 MiB}
metrics: {listen: "127.0.0.1:9641", max_lag: 1 min}
web: {listen: "127.0.0.1:8083", token: secret-and-long-enough}
log: {level: debug, format: json, file: a.log}
keep: {sessions: 30 days, dead_letters: 2 weeks}
timezone: Europe/Berlin
routes:
  - {topic: quiet/#, store: false}
  - topic: home/{room}/climate
    model: {wide: {table: climate}}
    decode: [{gzip: {max_size: 1000}}, json]
    entity:
      temp: {type: float, from: a.temp, scale: 0.1, offset: 1, unit: W, comma: true, text: true}
      door: {type: bool, true: [open, ON], false: shut}
      when: {type: datetime, format: epoch_s}
      mode: {type: "str?", map: {0: idle}}
      pos: {lat: float, lon: float, tags: {type: list, items: str}}
      type: {type: {type: str}}
    time: when
    unknown: reject
    mismatch: null
    hypertable: {chunk: 1 day, compress_after: 7 days, segment_by: room, order_by: [time DESC]}
    keep: 90 days
    indexes: [session, [room, time]]
    latest: [room]
    only: changes
    deadband: {temp: 0.1}
    at_least_every: 10 min
    raw: true
    properties: true
  - {topic: "shellies/{device}/{property}", property: "{property}", gather: 10 s, latest: true, max_columns: 5,
     rollup: [{every: 5 min, keep: 730 days}, {every: 1 day}]}
  - {topic: g/1, each: readings, prefix: false, drop: [a, "b.*"], rename: {a: b}, max_tables: 3, root: x}
  - {topic: g/2, zip: [t, v], booleans: {true: [ON], false: [OFF]}, numbers: [comma, unit], timezone: UTC}
  - {topic: g/3, pairs: {list: items, name: id}, decode: {struct: {format: "<f", names: [a]}}, model: eav}
  - {topic: g/4, decode: {csv: {names: [a, b], delimiter: ";", numbers: false}}, model: {narrow: {prefix: x}}}
  - {topic: "#", model: document, hypertable: true}
""")
BROKER: Final = yaml.safe_load("""
listeners: {default: {type: tcp, bind: "127.0.0.1:1883"}}
plugins:
  amqtt.plugins.authentication.AnonymousAuthPlugin: {allow_anonymous: true}
  amqtt_db.Plugin: {database: "sqlite:///a.db", metrics: "127.0.0.1:9641", keep: 3 days, routes: [{topic: "#"}]}
""")
BROKERS: Final = yaml.safe_load("""
brokers: {one: mqtt://localhost, two: {url: "ws://localhost", group: us}}
routes: [{topic: a, entity: {a: any}, latest: true}]
""")
DOCUMENTS: Final = (BRIDGE, BROKER, BROKERS)

VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, 5, -1, 1.5, "", "x", "a.b", "10 days", "1 GiB", "wide", "json", "struct", "int", "reject",
    "1s", "{room}", [], ["x"], [1], [[]], {}, {"x": 1}, {"wide": None}, {"type": "int"}, "127.0.0.1:80", "mqtt://localhost",
)  # fmt: skip
NEEDS_MORE: Final = re.compile(
    r"expected (one character|a name such as Europe|an attrs class|at most|a length of time from|whole seconds"
    r"|.* or more|seconds|a number of bytes above|a number from .* found|text, found)|a dotted path"
)
"""Mistakes that JSON Schema does not see, or that are about something else than a value's form."""


def is_accepted(document: Any) -> tuple[bool, list[str]]:
    """Return the configuration's verdict, and what it says."""
    try:
        config.load_document(deepcopy(document))
    except ConfigError as error:
        return False, [str(problem) for problem in error.problems]
    return True, []


def as_json(value: Any) -> Any:
    """Return what an editor's JSON Schema sees: keys are text."""
    if isinstance(value, dict):
        return {str(key).lower() if isinstance(key, bool) else str(key): as_json(one) for key, one in value.items()}
    return list(map(as_json, value)) if isinstance(value, list) else value


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of everything in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in items:
        yield (*path, key)
        yield from paths(one, (*path, key))


@st.composite
def mutated(draw: st.DrawFn) -> tuple[Any, tuple[Any, ...]]:
    """Return a valid document with one change, and where."""
    document = deepcopy(draw(st.sampled_from(DOCUMENTS)))
    path = draw(st.sampled_from([*paths(document)]))
    *way, last = path
    holder = document
    for key in way:
        holder = holder[key]
    how = draw(st.sampled_from(["replace", "rename", "remove"]))
    if how == "replace" or not isinstance(holder, dict):
        holder[last] = draw(st.sampled_from(VALUES))
    elif how == "rename":
        holder[f"{last}x"] = holder.pop(last)
    else:
        del holder[last]
    return document, path


@pytest.mark.parametrize("document", DOCUMENTS)
def test_valid_documents_are_valid(document: Any) -> None:
    """Both say that they are right."""
    assert is_accepted(document) == (True, [])
    assert list(VALIDATOR.iter_errors(as_json(document))) == []


def test_every_key_is_in_one_of_the_documents() -> None:
    """So every key takes part in the comparison."""
    used = {path[-1] for document in DOCUMENTS for path in paths(document)}
    tables = (KEYS, ROUTE_KEYS, JOURNAL_KEYS, WRITER_KEYS, METRICS_KEYS, WEB_KEYS, LOG_KEYS, KEEP_KEYS, HYPERTABLE_KEYS)
    assert {key for table in (*tables, BROKER_KEYS, ROLLUP_KEYS) for key in table} <= used


def test_the_schema_is_one() -> None:
    """It is valid JSON Schema itself."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.slow
@settings(max_examples=300)
@given(mutated())
def test_what_the_configuration_accepts_is_valid(change: tuple[Any, tuple[Any, ...]]) -> None:
    """And a value of the wrong type, or an unknown key, is invalid in both."""
    document, path = change
    accepted, said = is_accepted(document)
    errors = [error.message for error in VALIDATOR.iter_errors(as_json(document))]
    if accepted:
        assert not errors, path
    elif any("unknown key" in line or ("expected" in line and not NEEDS_MORE.search(line)) for line in said):
        assert errors, (path, said)
