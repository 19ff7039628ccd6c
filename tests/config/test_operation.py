"""`metrics:` in the configuration."""

from __future__ import annotations

from typing import Any

import pytest

from amqtt_db import config
from amqtt_db.config.operation import MetricsSettings
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
