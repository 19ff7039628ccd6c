"""A socket that answers as a broker of another kind would, for answers that no broker at hand gives."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import closing
from threading import Thread

V311, V5 = 4, 5
ACCEPTED = {V311: b"\x20\x02\x00\x00", V5: b"\x20\x03\x00\x00\x00"}


class ScriptedBroker:
    """Answers CONNECT by MQTT version, or closes the connection if there is no answer; answers SUBSCRIBE by codes.

    It sends ``then`` behind that.
    """

    def __init__(self, answers: Mapping[int, bytes], codes: bytes = b"\x02", then: bytes = b"") -> None:
        self._then = then
        self._answers = answers
        self._codes = codes
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"mqtt://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = Thread(target=self._serve, daemon=True)

    def __enter__(self) -> ScriptedBroker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with closing(client):
                self._answer(client)

    def _answer(self, client: socket.socket) -> None:
        level = client.recv(4096)[8]  # behind the fixed header and the name of the protocol
        client.sendall(self._answers.get(level, b""))
        while level in self._answers and (packet := client.recv(4096)):
            if packet[0] == 0x82:
                body = packet[2:4] + (b"\x00" if level == V5 else b"") + self._codes
                client.sendall(bytes((0x90, len(body))) + body + self._then)
