"""`metrics:` in the configuration."""

from __future__ import annotations

import logging
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from amqtt_db import config
from amqtt_db.config.broker_file import KEYS
from amqtt_db.config.operation import LogSettings, MetricsSettings, SystemKeep
from amqtt_db.ingest.broker.plugin import Plugin
from tests.config.test_config import problems


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("127.0.0.1:9641", MetricsSettings("127.0.0.1", 9641)),
        ("[::1]:9641", MetricsSettings("::1", 9641)),
        ({"listen": "localhost:1", "max_lag": "5 min"}, MetricsSettings("localhost", 1, 300.0)),
    ],
)
def test_where_metrics_are_served(value: Any, expected: MetricsSettings | None) -> None:
    """An address, or a mapping with one; nowhere without it."""
    assert config.load_section({"metrics": value}).metrics == expected


@pytest.mark.parametrize(
    ("value", "path", "says"),
    [
        (9641, "metrics", "expected an address such as 127.0.0.1:9641, or a mapping with `listen`"),
        ("9641", "metrics", "expected an address such as 127.0.0.1:9641"),
        ("localhost:99999", "metrics", "expected an address"),
        ({}, "metrics.listen", "missing; expected an address"),
        ({"listen": "a:1", "max_lag": 5}, "metrics.max_lag", "expected a length of time"),
        ({"listen": "a:1", "maxlag": "5 s"}, "metrics.maxlag", "did you mean 'max_lag'?"),
    ],
)
def test_what_is_wrong_with_it(value: Any, path: str, says: str) -> None:
    """Each mistake is told with its path."""
    assert says in problems({"metrics": value})[path]


def test_where_the_log_goes() -> None:
    """To stderr as text, at the level of whoever starts it, unless something else is said."""
    assert config.load_section({}).log == LogSettings()
    section = {"level": "debug", "format": "json", "file": "mqtt.log"}
    assert config.load_section({"log": section}).log == LogSettings(logging.DEBUG, "json", Path("mqtt.log"))
    assert problems({"log": {"level": "inf", "format": "xml", "path": "x"}}) == {
        "log.path": "unknown key; valid: file, format, level",
        "log.level": "expected one of debug, info, warning, error, found 'inf'; did you mean 'info'?",
        "log.format": "expected one of text, json, found 'xml'",
    }


def test_the_plugin_takes_every_key() -> None:
    """amqtt hands on only those that it has a field for."""
    assert {field.name for field in fields(Plugin.Config)} == set(KEYS)


def test_keep_is_for_sessions_and_dead_letters() -> None:
    """A length of time is for both, and forever is the default."""
    assert config.load_section({}).keep == SystemKeep()
    assert config.load_section({"keep": "1 h"}).keep == SystemKeep(timedelta(hours=1), timedelta(hours=1))
    assert config.load_section({"keep": {"sessions": "1 h"}}).keep == SystemKeep(timedelta(hours=1))
    assert set(problems({"keep": {"session": "1 h", "dead_letters": 5}})) == {"keep.session", "keep.dead_letters"}
