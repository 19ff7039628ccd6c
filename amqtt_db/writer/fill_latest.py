"""Fill the tables of newest values with what was stored before a route kept them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from amqtt_db.config import Settings
from amqtt_db.reader import read
from amqtt_db.record import Record
from amqtt_db.routing.route import Route
from amqtt_db.routing.topics import first_match
from amqtt_db.writer.lock import require_same_routes
from amqtt_db.writer.one_off import open_writer
from amqtt_db.writer.transaction import COLLISIONS, AssignmentsMoved
from amqtt_db.writer.writer import Writer

_RECORDS_AT_ONCE: Final = 2000


def fill_latest(settings: Settings, *topics: str) -> None:
    """Keep the newest values of all stored records whose topics some filters cover, if their routes say so.

    It may be stopped and started again, even while messages arrive: an older value never replaces a newer one.  Raises
    DatabaseError if the database cannot be used, AmqttDbError if a writer is running with other routes.
    """
    require_same_routes(settings.journal.path, settings.routes)
    with open_writer(settings.database, settings.routes) as writer:
        for topic in topics:
            found = read(settings, topic)
            while records := list(islice(found, _RECORDS_AT_ONCE)):
                _fill(writer, records)
        writer.finish_views(lambda: False)


def refill_latest(settings: Settings, topics: Iterable[str]) -> None:
    """Find the newest values again of the devices that some topics belong to, after records were deleted or changed.

    Raises what :func:`fill_latest` raises.
    """
    filters = {text for topic in topics for text in _device_filters(settings.routes, topic)}
    if filters:
        fill_latest(settings, *sorted(filters))


def _device_filters(routes: Sequence[Route], topic: str) -> Iterator[str]:
    """Yield a filter that covers all topics of a topic's device, if its route keeps newest values."""
    match = first_match([route.filter for route in routes], topic)
    route = None if match is None else routes[match[0]]
    if route is not None and route.latest is not None:
        yield route.filter.mqtt if route.latest.paths else route.siblings_of(topic)


def _fill(writer: Writer, records: Sequence[Record]) -> None:
    for _ in range(COLLISIONS):
        try:
            writer.fill_latest(records)
            return
        except AssignmentsMoved:
            writer.reset()
        except Exception as error:
            if not writer.is_collision(error):
                raise
    writer.fill_latest(records)
