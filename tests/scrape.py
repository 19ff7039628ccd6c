"""Asks a process for its metrics and health, as Prometheus and an orchestrator do."""

from __future__ import annotations

import http.client
import re
from contextlib import closing


def ask(port: int, target: str, method: str = "GET") -> tuple[int, str]:
    """Return status and text of an answer."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request(method, target)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def scrape(port: int) -> dict[str, float]:
    """Return every sample of the metrics by its name and labels."""
    status, text = ask(port, "/metrics")
    assert status == 200
    return {name: float(value) for name, value in re.findall(r"^([a-z_]+(?:\{.*\})?) (\S+)$", text, re.MULTILINE)}
