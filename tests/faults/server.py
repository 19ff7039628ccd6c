"""What a database server must put up with in the fault suite, whichever it is."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import ClassVar, Final, Protocol

NAMES: Final = ("PostgreSQL", "MariaDB")
"""The servers that each of the faults with ``{server}`` in its name happens to."""


class Server(Protocol):
    """A server of the fault suite.  Methods that take a URL affect only that account and its database, if possible.

    The contexts end the fault; those of a refusal yield what the database says meanwhile.
    """

    name: ClassVar[str]

    def start(self) -> None:
        """Start it, if it does not run."""

    def stop(self) -> None:
        """Stop it in order."""

    def crash(self) -> None:
        """End it in the middle of whatever it does."""

    def paused(self) -> AbstractContextManager[None]:
        """All its processes are paused: connections stay open, but nothing answers."""

    def account(self) -> AbstractContextManager[str]:
        """The URL of a new database for its owner, who is not a superuser."""

    def crowded(self, url: str) -> AbstractContextManager[str]:
        """The account has lost its connections, and gets no other."""

    def read_only(self, url: str) -> AbstractContextManager[str]:
        """Nothing can be written, as after a fail-over to a standby."""

    def unprivileged(self, url: str) -> AbstractContextManager[str]:
        """The account may not write into its table ``loads``."""
