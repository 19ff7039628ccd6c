"""`metrics:` in the configuration."""

from __future__ import annotations

import logging
import sys
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from amqtt_db import config
from amqtt_db.config.broker_file import KEYS
from amqtt_db.config.operation import LogSettings, MetricsSettings, SystemKeep, WebSettings
from amqtt_db.ingest.broker.plugin import Plugin
from amqtt_db.registry import install_hint
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
        ([], "metrics", "expected an address such as 127.0.0.1:9641, or a mapping with `listen`"),
        ("9641", "metrics", "expected a host, too: write 127.0.0.1:9641 for this machine only"),
        ("localhost:99999", "metrics", "expected an address"),
        ({}, "metrics.listen", "missing; expected an address"),
        ({"listen": "a:1", "max_lag": 5}, "metrics.max_lag", "expected a length of time"),
        ({"listen": "a:1", "maxlag": "5 s"}, "metrics.maxlag", "did you mean 'max_lag'?"),
    ],
)
def test_what_is_wrong_with_it(value: Any, path: str, says: str) -> None:
    """Each mistake is told with its path."""
    assert says in problems({"metrics": value})[path]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("127.0.0.1:8083", WebSettings()),
        ("localhost:1", WebSettings("localhost", 1)),
        ({"listen": "0.0.0.0:1", "token": "0123456789abcdef"}, WebSettings("0.0.0.0", 1, "0123456789abcdef")),  # noqa: S104
        ({"listen": "[::1]:1", "token": None}, WebSettings("::1", 1)),
    ],
)
def test_where_the_page_is_served(value: Any, expected: WebSettings | None) -> None:
    """An address, or a mapping with one; nowhere without it."""
    assert config.load_section({"web": value}).web == expected


@pytest.mark.parametrize(
    ("value", "path", "says"),
    [
        (8083, "web", "expected a host, too: write 127.0.0.1:8083"),
        ("http", "web", "expected an address such as"),
        ({}, "web.listen", "missing; expected an address"),
        ("0.0.0.0:8083", "web", "other machines can reach this address: give `token:` too"),
        ({"listen": "example.org:1"}, "web.listen", "or listen on 127.0.0.1"),
        ({"listen": "[::]:1", "token": "short"}, "web.token", "expected 16 ASCII characters or more"),
        ({"listen": "a:1", "tokens": "0123456789abcdef"}, "web.tokens", "did you mean 'token'?"),
    ],
)
def test_what_is_wrong_with_the_page(value: Any, path: str, says: str) -> None:
    """Each mistake is told with its path; no other machine is let in without a token."""
    assert says in problems({"web": value})[path]


def test_the_page_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, the message says how to install it."""
    monkeypatch.setattr("amqtt_db.decode.libraries.find_spec", lambda name: None if name == "uvicorn" else sys)
    assert f"needs the library uvicorn: {install_hint('web')}" in problems({"web": "127.0.0.1:1"})["web"]


def test_a_token_is_not_shown() -> None:
    """Not where settings are printed."""
    token = "0123456789abcdef"  # noqa: S105 - it opens nothing
    assert token not in repr(config.load_section({"web": {"listen": "a:1", "token": token}}))


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
