"""Other brokers than Mosquitto, each in a process of its own: NATS, RabbitMQ, aedes and amqtt."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import yaml

from tests.integration.bridge import LocalBroker
from tests.ports import free_port

_SCRIPTS: Final = str(Path(sys.executable).parent)
NATS: Final = shutil.which("nats-server", path=f"{_SCRIPTS}{os.pathsep}{os.environ['PATH']}")
RABBITMQ: Final = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
EPMD: Final = shutil.which("epmd")
NODE: Final = shutil.which("node")
AEDES: Final = next(
    (path for root in ("/usr", "/usr/local") if (path := Path(f"{root}/lib/node_modules/aedes/aedes.js")).exists()),
    None,
)
_AEDES_PROGRAM: Final = """
import {{ createServer }} from 'node:net'
import {{ Aedes }} from '{module}'
const broker = await Aedes.createBroker({{ maxClientsIdLength: 100 }})
createServer(broker.handle).listen({port}, '127.0.0.1')
"""


class Nats(LocalBroker):
    """A NATS server that keeps sessions and messages on disk.

    After a reconnection it redelivers what was not acknowledged within ``ack_wait``, 30 s unless it is set.
    """

    name = "NATS"

    def __init__(self, directory: Path, routes: Sequence[int] = ()) -> None:
        """``routes``: the ports at which the servers of a cluster know each other, this one's first."""
        self._routes = routes
        super().__init__(directory)

    def _write_configuration(self) -> list[str]:
        replicas = f", stream_replicas: {len(self._routes)}" if self._routes else ""
        lines = [
            f"server_name: n{self.port}", f"listen: 127.0.0.1:{free_port()}",
            f'jetstream {{ store_dir: "{self.directory}/nats" }}',
            f'mqtt {{ listen: "127.0.0.1:{self.port}", ack_wait: "3s"{replicas} }}',
        ]  # fmt: skip
        if self._routes:
            own, *others = (f"127.0.0.1:{port}" for port in self._routes)
            lines.append(
                f"cluster {{ name: c, listen: '{own}', routes: [{', '.join(f'nats://{one}' for one in others)}] }}"
            )
        path = self.directory / "nats.conf"
        path.write_text("\n".join(lines) + "\n")
        return [str(NATS), "-c", str(path)]


class RabbitMq(LocalBroker):
    """RabbitMQ with its MQTT plugin, and a port mapper of its own, which ends with it."""

    name = "RabbitMQ"
    patience = 90.0

    def __init__(self, directory: Path) -> None:
        self._mapper_port = free_port()
        self._mapper: subprocess.Popen[bytes] | None = None
        super().__init__(directory)

    def _write_configuration(self) -> list[str]:
        (self.directory / "enabled_plugins").write_text("[rabbitmq_mqtt].\n")
        (self.directory / "rabbitmq.conf").write_text(
            f"listeners.tcp = none\nmqtt.listeners.tcp.1 = 127.0.0.1:{self.port}\nmqtt.allow_anonymous = true\n"
            f"mqtt.prefetch = 1000\nlog.file.level = warning\n"
        )
        return [str(RABBITMQ)]

    def _environment(self) -> dict[str, str]:
        own = self.directory
        return {
            **os.environ, "HOME": str(own), "ERL_EPMD_PORT": str(self._mapper_port), "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"r{self.port}@localhost", "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_CONFIG_FILE": str(own / "rabbitmq.conf"), "RABBITMQ_MNESIA_BASE": str(own / "mnesia"),
            "RABBITMQ_LOG_BASE": str(own / "log"), "RABBITMQ_ENABLED_PLUGINS_FILE": str(own / "enabled_plugins"),
        }  # fmt: skip

    def start(self) -> None:
        """Start the port mapper too."""
        if self._mapper is None:
            command = [str(EPMD), "-port", str(self._mapper_port), "-address", "127.0.0.1"]
            self._mapper = subprocess.Popen(command)
        super().start()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        if self._mapper is not None:
            self._mapper.terminate()
            self._mapper.wait(self.patience)


class Aedes(LocalBroker):
    """aedes, which keeps everything in memory."""

    name = "aedes"

    def _write_configuration(self) -> list[str]:
        path = self.directory / "aedes.mjs"
        path.write_text(_AEDES_PROGRAM.format(module=AEDES, port=self.port))
        return [str(NODE), str(path)]


class Amqtt(LocalBroker):
    """amqtt's own broker without the plugin; it keeps no sessions for those whom it admits as anonymous."""

    name = "amqtt"
    username = "anybody"

    def _write_configuration(self) -> list[str]:
        path = self.directory / "amqtt.yaml"
        named = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": False}}
        listeners = {"default": {"type": "tcp", "bind": f"127.0.0.1:{self.port}"}}
        path.write_text(yaml.safe_dump({"listeners": listeners, "plugins": named}))
        return [f"{_SCRIPTS}/amqtt", "-c", str(path)]
