"""The fixture that runs a scenario in a broker of this process."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from amqtt_db.ingest.broker.plugin import Plugin
from tests.ingest.broker.setup import IDLE_CHILD, Scenario, Setup


@pytest.fixture
def in_house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Setup]]:
    """Runs a scenario in a broker, and shuts the broker down; the writer is a child that does nothing."""
    monkeypatch.setattr(Plugin, "command", IDLE_CHILD)

    def run(
        scenario: Scenario, *, plugins: dict[str, Any] | None = None, listener: str = "tcp", **journal: Any
    ) -> Setup:
        setup = Setup(tmp_path, journal, plugins or {}, listener)

        async def live() -> None:
            await setup.open()
            try:
                await scenario(setup)
            finally:
                await setup.broker.shutdown()

        asyncio.run(live())
        return setup

    yield run
    gc.collect()
