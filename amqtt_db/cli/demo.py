"""``amqtt-db demo``: run a broker with simulated devices for a few seconds, then show the tables."""

from __future__ import annotations

import asyncio
import json
import math
import shlex
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import yaml
from amqtt.client import MQTTClient
from amqtt.errors import ClientError
from rich.console import Console
from rich.text import Text

from amqtt_db.cli import show
from amqtt_db.cli.serve import serve
from amqtt_db.config.operation import require_web
from amqtt_db.errors import AmqttDbError

HOST: Final = "127.0.0.1"


@attrs.frozen
class Device:
    """A device that publishes ``reading(n)`` for n = 0, 1, 2, … to ``topic``, every ``interval`` seconds."""

    topic: str
    interval: float
    reading: Callable[[int], dict[str, Any]]


def _climate(temp: float, humidity: int) -> Callable[[int], dict[str, Any]]:
    def reading(n: int) -> dict[str, Any]:
        return {"temp": round(temp + math.sin(n / 5), 1), "humidity": humidity + n % 4}

    return reading


def _meter(n: int) -> dict[str, Any]:
    """Return a reading; from the sixth on, as if after an update, it includes the voltage."""
    reading = {"watts": round(430 + 60 * math.sin(n / 3), 1), "tariff": "night" if n % 9 < 2 else "day"}
    return reading if n < 5 else {**reading, "grid": {"volts": 229 + n % 5}}


def _door(n: int) -> dict[str, Any]:
    return {"open": n % 3 == 0, "battery": max(0, 97 - n)}


DEVICES: Final = (
    Device("home/kitchen/climate", 0.2, _climate(21.5, 46)),
    Device("home/bedroom/climate", 0.3, _climate(18.2, 55)),
    Device("meters/main", 0.25, _meter),
    Device("garage/door", 0.5, _door),
)


def make_config(directory: Path, port: int, page: int | None = None) -> dict[str, Any]:
    """Return the configuration of the demo's broker, with its files in ``directory``; ``page`` is the page's port."""
    return {
        "listeners": {"default": {"type": "tcp", "bind": f"{HOST}:{port}"}},
        "plugins": {
            "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True},
            "amqtt_db.Plugin": {
                "database": f"sqlite:///{directory / 'mqtt.db'}",
                "journal": {"path": str(directory / "mqtt.journal")},
                "routes": [
                    {"topic": "home/{room}/climate", "model": {"wide": {"table": "climate"}}, "latest": True},
                    {"topic": "#"},
                ],
                **({} if page is None else {"web": f"{HOST}:{page}"}),
            },
        },
    }


def free_port() -> int:
    """Return a port that nothing is listening on."""
    with socket.socket() as trial:
        trial.bind((HOST, 0))
        return int(trial.getsockname()[1])


async def play(config: dict[str, Any], port: int, seconds: float, console: Console) -> int:
    """Run the broker and its devices for ``seconds`` or until Ctrl-C; return how many messages it acknowledged."""
    counts: list[int] = []
    devices: list[asyncio.Task[None]] = []
    stop = asyncio.Event()
    with console.status("devices are publishing"):
        until = "until Ctrl-C" if math.isinf(seconds) else f"for {seconds:g} seconds"
        console.print(f"[bold]{len(DEVICES)} devices[/] publish to [bold]mqtt://{HOST}:{port}[/] {until}:")
        await serve(
            config,
            started=lambda: devices.append(asyncio.create_task(_publish_all(port, seconds, counts, console, stop))),
            stop=stop,
        )
    (task,) = devices
    task.cancel()
    (outcome,) = await asyncio.gather(task, return_exceptions=True)
    if isinstance(outcome, ClientError):
        raise AmqttDbError(f"a device cannot publish: {outcome}") from outcome
    return len(counts)


async def _publish_all(port: int, seconds: float, counts: list[int], console: Console, stop: asyncio.Event) -> None:
    try:
        await asyncio.gather(*(_publish(device, port, seconds, counts, console) for device in DEVICES))
    except ClientError:
        if not stop.is_set():  # else Ctrl-C has stopped the broker
            raise
    finally:
        stop.set()


async def _publish(device: Device, port: int, seconds: float, counts: list[int], console: Console) -> None:
    client = MQTTClient(config={"auto_reconnect": False, "plugins": {}})
    await client.connect(f"mqtt://{HOST}:{port}")
    loop = asyncio.get_running_loop()
    end, n = loop.time() + seconds, 0
    while loop.time() < end:
        payload = json.dumps(device.reading(n))
        await client.publish(device.topic, payload.encode(), qos=1)
        counts.append(n)
        if n == 0:
            console.print(Text(f"  {device.topic:<22} ← {payload}", style="dim"))
        n += 1
        await asyncio.sleep(device.interval)
    await client.disconnect()


def print_report(database: Path, acknowledged: int, console: Console) -> None:
    """Print what is in the database, where it is, and how to query it."""
    tables = list(show.read_glimpses(database))
    stored = sum(table.count for table in tables)
    console.print(f"\n[bold]{acknowledged}[/] messages acknowledged, [bold]{stored}[/] rows in the database.\n")
    for line in _render_tables(tables):
        console.print(line)
    if any("grid_volts" in table.columns for table in tables):
        console.print(
            "Halfway, the meter began to report its voltage: the column [bold]grid_volts[/] was added then.\n"
        )
    console.print("All of this is in one SQLite file:")
    console.print(Text(f"  {database}", style="bold"), soft_wrap=True)
    if tables:
        console.print("Query it yourself:")
        console.print(Text(f"  {show.make_query(database, tables[0])}", style="bold"), soft_wrap=True)
    console.print(f"Run your own broker: [bold]{Path(sys.argv[0])} run[/]", soft_wrap=True)


def write_config(directory: Path, broker: Mapping[str, Any]) -> Path:
    """Write the demo's configuration, so that other commands can use it; return the file."""
    path = directory / "broker.yaml"
    section = {key: value for key, value in broker["plugins"]["amqtt_db.Plugin"].items() if key != "web"}
    path.write_text(yaml.safe_dump({**broker, "plugins": {**broker["plugins"], "amqtt_db.Plugin": section}}))
    return path


def print_command(path: Path, console: Console) -> None:
    """Print how to look at it in a browser, and what that needs if it is not there."""
    command = shlex.join([sys.argv[0], "web", str(path)])
    try:
        require_web()
        console.print("Look at it in a browser:")
    except ValueError as error:
        console.print(Text(f"To look at it in a browser, amqtt-db {error}", style="bold"), soft_wrap=True)
    console.print(Text(f"  {command}", style="bold"), soft_wrap=True)


def _render_tables(tables: list[show.Glimpse]) -> Iterator[Any]:
    for table in tables:
        yield show.render_glimpse(table)
        yield ""
