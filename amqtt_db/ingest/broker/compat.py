"""Everything that the plugin needs from amqtt's internals, and a check that it is still there.

Written for amqtt 0.12.  To move to another version of amqtt, run the tests and look here first.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextvars import ContextVar
from importlib.metadata import version
from typing import Any, Final, cast

import attrs
from amqtt.adapters import BufferReader, BufferWriter, ReaderAdapter, StreamReaderAdapter, WriterAdapter
from amqtt.broker import Broker, BrokerContext
from amqtt.contexts import ListenerConfig
from amqtt.errors import AMQTTError
from amqtt.mqtt.connect import ConnectPacket
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.mqtt.pubcomp import PubcompPacket
from amqtt.mqtt.publish import PublishPacket
from amqtt.mqtt.pubrel import PubrelPacket
from amqtt.plugins.manager import PluginManager
from amqtt.session import ApplicationMessage, Session
from websockets.asyncio.server import ServerConnection

from amqtt_db.errors import AmqttDbError
from amqtt_db.ingest.broker.websocket import WebSocketReader, WebSocketWriter

logger = logging.getLogger(__name__)

_BYTES_REPR: Final = re.compile(r"""b(['"]).*\\x[89a-f][0-9a-f].*\1""", re.DOTALL)
_CHUNK: Final = 2**16
_QOS_2: Final = 4  # bit in the flags of a PUBLISH
_NOT_AUTHORIZED: Final = b"\x20\x02\x00\x05"  # CONNACK
_TRIAL_SECONDS: Final = 0.02  # a QoS 2 message waits for its PUBREL, which never comes

_STORING: Final = "no message can be stored before it is acknowledged"
_EXACTLY_ONCE: Final = "messages of QoS 2 cannot be stored before PUBREC"
_PERMISSIONS: Final = "it is unknown who may publish what"
_WILLS: Final = "wills are not stored"
_ENDS: Final = "ends of connections are noticed late"
_GREETINGS: Final = "clients that speak MQTT 5 are not refused but hang"
_LOGINS: Final = "failed logins are neither logged nor counted, and end the session of the client that they name"
_WEBSOCKETS: Final = "a connection over WebSocket that breaks may leave a message that nobody sent"
_SPEED: Final = "reading is slower"

_let_in: Final[ContextVar[Session | None]] = ContextVar("amqtt_db_let_in", default=None)
"""Who has logged in on the connection that the current task serves."""


@attrs.frozen
class _Missing:
    """A part of amqtt that is no longer there; without a vital part the plugin cannot keep its promise."""

    name: str
    loss: str
    is_vital: bool


def require_amqtt(context: BrokerContext) -> None:
    """Log an error if a part of amqtt is missing; raise AmqttDbError if the promise cannot be kept without it."""
    missing = list(_missing_parts(context))
    if not missing:
        return
    message = _complain("; ".join(f"{part.name} is missing, so {part.loss}" for part in missing))
    if any(part.is_vital for part in missing):
        raise AmqttDbError(message)
    logger.error("%s", message)


async def check_order(loop: asyncio.AbstractEventLoop) -> None:
    """Try a message of each QoS without a network; log an error if amqtt acknowledges it before the plugin has it."""
    early = []
    for qos in range(3):
        trial = _Trial()
        handler = BrokerProtocolHandler(cast(PluginManager[BrokerContext], trial), loop=loop)
        session = Session()
        session.client_id, session.delivered_message_queue = "amqtt_db", trial
        handler.attach(session, BufferReader(b""), trial.writer)
        intercept_qos_2(handler, trial.take, trial.release)
        publishing = asyncio.create_task(handler.handle_publish(PublishPacket.build("a", b"", 1, False, qos, False)))
        await asyncio.wait([publishing], timeout=_TRIAL_SECONDS)
        publishing.cancel()
        await asyncio.wait([publishing])
        if not trial.is_first:
            early.append(str(qos))
    if early:
        loss = f"it acknowledges QoS {', '.join(early)} before the plugin has the message, which may be lost"
        logger.error("%s", _complain(loss))


class _Trial(asyncio.Queue[ApplicationMessage]):
    """Stands in for a session's queue, other plugins and the network, and notes the order of amqtt's actions."""

    def __init__(self) -> None:
        super().__init__()
        self.writer = BufferWriter()
        self.is_first = False

    async def put(self, item: ApplicationMessage) -> None:
        self.put_nowait(item)

    def put_nowait(self, item: ApplicationMessage) -> None:
        self.is_first = not self.writer.get_buffer()

    async def take(self, packet: PublishPacket) -> None:
        self.is_first = not self.writer.get_buffer()

    async def release(self, packet_id: int) -> None:
        pass

    async def fire_event(self, *_: object, **__: object) -> None:
        pass


def _complain(losses: str) -> str:
    return (
        f"amqtt {version('amqtt')} is not an amqtt that this version of amqtt_db knows: {losses}; install another"
        " version of amqtt (0.12.1 is known to work) or a newer amqtt_db"
    )


def _missing_parts(context: BrokerContext) -> Iterator[_Missing]:
    """Yield those parts that this module uses and that are missing."""
    broker = getattr(context, "_broker_instance", None)
    stream = StreamReaderAdapter(asyncio.StreamReader(loop=context.loop))
    plugins: PluginManager[BrokerContext] = getattr(broker, "plugins_manager", None)  # type: ignore[assignment]
    handler, session = BrokerProtocolHandler(plugins, loop=context.loop), Session()
    for owner, name, kind, loss, is_vital in (
        (context, "_broker_instance", object, _STORING, True),
        (broker, "sessions", dict, _STORING, True),
        (session, "delivered_message_queue", asyncio.Queue, _STORING, True),
        (handler, "handle_publish", Callable, _EXACTLY_ONCE, True),
        (handler, "handle_pubrel", Callable, _EXACTLY_ONCE, True),
        (handler, "_pubrel_waiters", dict, _EXACTLY_ONCE, True),
        (handler, "_send_packet", Callable, _EXACTLY_ONCE, True),
        (PluginManager, "is_topic_filtering_enabled", Callable, _PERMISSIONS, True),
        (PluginManager, "map_plugin_topic", Callable, _PERMISSIONS, True),
        (broker, "_broadcast_queue", asyncio.Queue, _WILLS, False),
        (broker, "_authenticate", Callable, _LOGINS, False),
        (broker, "_initialize_client_session", Callable, _GREETINGS, False),
        (broker, "ws_connected", Callable, _WEBSOCKETS, False),
        (broker, "external_connected", Callable, _WEBSOCKETS, False),
        (handler, "_reader_stopped", asyncio.Event, _ENDS, False),
        (stream, "_reader", asyncio.StreamReader, _SPEED, False),
    ):
        if not isinstance(getattr(owner, name, None), kind):  # type: ignore[arg-type]
            owning = owner if isinstance(owner, type) else type(owner)
            yield _Missing(f"{owning.__name__}.{name}", loss, is_vital)


def broker_of(context: BrokerContext) -> Broker:
    """Return the broker that a plugin's context belongs to: only it has the handlers of its sessions."""
    return context._broker_instance  # noqa: SLF001


def is_ill_formed(text: str | None) -> bool:
    """Return True if text in a CONNECT packet was not UTF-8: amqtt then uses the repr of its bytes."""
    return text is not None and _BYTES_REPR.fullmatch(text) is not None


def has_ended(handler: BrokerProtocolHandler) -> bool:
    """Return True if a connection has ended, whether or not the broker has fired an event about it."""
    stopped: asyncio.Event | None = getattr(handler, "_reader_stopped", None)
    return stopped is not None and stopped.is_set()


def receiver(reader: ReaderAdapter) -> Callable[[int], Awaitable[bytes]]:
    """Return a function that receives at least one byte, unless the stream ends; its argument is how many are missing.

    amqtt's own adapter only returns exact numbers of bytes, which takes several calls of the stream for each packet.
    """
    if isinstance(reader, WebSocketReader):
        return lambda _: reader.receive()
    stream = getattr(reader, "_reader", None)
    if not isinstance(reader, StreamReaderAdapter) or not isinstance(stream, asyncio.StreamReader):
        return lambda missing: reader.read(min(missing, _CHUNK))
    return lambda missing: stream.read(max(missing, _CHUNK))


def intercept_ends(broker: Broker) -> None:
    """Close the socket of each connection that the broker has finished with, or that broke.

    amqtt leaves it open if the client sent nothing or reset the connection.  On Python 3.12 such a socket keeps the
    broker from shutting down.
    """
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter, str], Awaitable[None]] | None
    serve = getattr(broker, "stream_connected", None)
    if serve is None:
        return

    async def serve_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str) -> None:
        try:
            await serve(reader, writer, listener_name)
        except OSError as error:  # else asyncio logs a traceback
            logger.debug("a connection broke: %s", error)
        finally:
            writer.close()

    broker.stream_connected = serve_and_close  # type: ignore[method-assign]


def intercept_websockets(broker: Broker) -> None:
    """Read and write WebSockets with the plugin's own adapters."""
    serve: Callable[[ReaderAdapter, WriterAdapter, str], Awaitable[None]] | None
    serve = getattr(broker, "external_connected", None)
    if serve is None:
        return

    async def serve_websocket(websocket: ServerConnection, listener_name: str) -> None:
        await serve(WebSocketReader(websocket), WebSocketWriter(websocket), listener_name)

    broker.ws_connected = serve_websocket  # type: ignore[method-assign]


def intercept_greetings(
    broker: Broker, read_connect: Callable[[ReaderAdapter, WriterAdapter], Awaitable[bytes]]
) -> None:
    """Let ``read_connect`` read each client's CONNECT; what it returns is all that amqtt sees of it.

    If it raises AMQTTError, the broker logs that and closes the connection.
    """
    initialize: Callable[[ReaderAdapter, WriterAdapter, str, int], Awaitable[Any]] | None
    initialize = getattr(broker, "_initialize_client_session", None)
    if initialize is None:
        return

    async def read_and_initialize(reader: ReaderAdapter, writer: WriterAdapter, address: str, port: int) -> Any:
        return await initialize(BufferReader(await read_connect(reader, writer)), writer, address, port)

    broker._initialize_client_session = read_and_initialize  # type: ignore[method-assign,assignment] # noqa: SLF001


def intercept_logins(broker: Broker, refused: Callable[[Session], None]) -> None:
    """Call ``refused`` for each client that the broker does not let in: amqtt tells no plugin of it.

    Who has logged in with :func:`log_in` is not asked again; what the plugins noted about the client is passed on.
    """
    authenticate: Callable[[Session, ListenerConfig], Awaitable[bool]] | None = getattr(broker, "_authenticate", None)
    if authenticate is None:
        return

    async def authenticate_and_tell(session: Session, _: ListenerConfig) -> bool:
        known = _let_in.get()
        if known is not None:
            session.is_anonymous = known.is_anonymous
            session.attributes.update(known.attributes)
            return True
        is_let_in = await authenticate(session, _)
        if not is_let_in:
            refused(session)
        return is_let_in

    broker._authenticate = authenticate_and_tell  # type: ignore[method-assign] # noqa: SLF001


async def log_in(broker: Broker, connect: bytes, writer: WriterAdapter) -> None:
    """Ask the broker's plugins whether they let a client in, before amqtt sees its CONNECT.

    amqtt asks them only after it has deleted the session of the same client id, and ends its connection even if they
    say no.  Raises AMQTTError if they do, having told the client.
    """
    authenticate: Callable[[Session, ListenerConfig], Awaitable[bool]] | None = getattr(broker, "_authenticate", None)
    session = await _read_session(connect, writer)
    if authenticate is None or session is None:
        return
    if not await authenticate(session, ListenerConfig()):
        writer.write(_NOT_AUTHORIZED)
        await writer.drain()
        raise AMQTTError("the client is not let in")
    _let_in.set(session)


async def _read_session(connect: bytes, writer: WriterAdapter) -> Session | None:
    """Return a session as amqtt will make it for a CONNECT; None if amqtt will refuse the packet."""
    session = Session()
    try:
        packet = await ConnectPacket.from_stream(BufferReader(connect))
        for name in ("client_id", "username", "password", "will_flag", "will_topic", "will_message", "will_qos"):
            setattr(session, name, getattr(packet, name))
        session.clean_session, session.will_retain = packet.clean_session_flag, packet.will_retain_flag
        session.keep_alive = packet.keep_alive
    except Exception:  # amqtt reads the packet again, and says what is wrong with it
        return None
    session.remote_address, session.remote_port = writer.get_peer_info() or (None, None)
    session.ssl_object = writer.get_ssl_info()
    return session


def intercept_wills(broker: Broker, store: Callable[[Session, dict[str, Any]], Awaitable[None]]) -> None:
    """Call ``store`` before the broker publishes a will.

    amqtt fires no event for a will: it publishes it through its broadcast queue, where only wills have a QoS.
    """
    queue: asyncio.Queue[dict[str, Any]] | None = getattr(broker, "_broadcast_queue", None)
    if queue is None:
        return
    put = queue.put

    async def put_after_storing(item: dict[str, Any]) -> None:
        if "qos" in item and isinstance(item["session"], Session):
            await store(item["session"], item)
        await put(item)

    queue.put = put_after_storing  # type: ignore[method-assign]


def intercept_qos_2(
    handler: BrokerProtocolHandler,
    take: Callable[[PublishPacket], Awaitable[None]],
    release: Callable[[int], Awaitable[None]],
) -> None:
    """Await ``take`` before the PUBREC of a message, and ``release`` before a PUBCOMP that amqtt would not send.

    amqtt keeps a QoS 2 message in memory until PUBREL, and after a restart does not answer a PUBREL.
    """
    handle_publish, handle_pubrel = handler.handle_publish, handler.handle_pubrel

    async def take_and_handle(packet: PublishPacket) -> None:
        await take(packet)
        await handle_publish(packet)

    def publish(publish_packet: PublishPacket) -> Coroutine[Any, Any, None]:
        is_qos_2 = publish_packet.fixed_header.flags & _QOS_2
        return take_and_handle(publish_packet) if is_qos_2 else handle_publish(publish_packet)

    async def release_and_answer(pubrel: PubrelPacket) -> None:
        if pubrel.packet_id in handler._pubrel_waiters:  # noqa: SLF001
            await handle_pubrel(pubrel)
            return
        await release(pubrel.packet_id)
        await handler._send_packet(PubcompPacket.build(pubrel.packet_id))  # noqa: SLF001

    handler.handle_publish = publish  # type: ignore[method-assign]
    handler.handle_pubrel = release_and_answer  # type: ignore[method-assign]
