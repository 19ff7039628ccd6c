"""`check` with brokers: connect to each, and show what it grants and which messages its settings may lose."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from amqtt_db.cli.show import escape_text
from amqtt_db.config import Settings
from amqtt_db.config.broker import BrokerSettings
from amqtt_db.errors import format_count
from amqtt_db.ingest.bridge import packets
from amqtt_db.ingest.bridge.filters import cover
from amqtt_db.ingest.bridge.packets import V5
from amqtt_db.ingest.bridge.peer import Ending, mqtt_name
from amqtt_db.ingest.bridge.probe import Grant, ask_broker
from amqtt_db.ingest.bridge.software import ignores_window

_REFUSED: Final = 0x80
_FOR_EVER: Final = 2**32 - 1
_QUEUE: Final = (
    "the broker does not say how many messages it keeps while the bridge is disconnected; the documentation"
    " names each broker's setting under 'What the broker may lose'"
)

Answer = Grant | Ending


def ask_brokers(settings: Settings, brokers: Sequence[BrokerSettings]) -> list[Answer]:
    """Return each broker's answer to a client that subscribes as the bridge would."""
    filters = cover(route.filter.mqtt for route in settings.routes if route.stores)

    async def ask_all() -> list[Answer]:
        return await asyncio.gather(*(ask_broker(broker, filters) for broker in brokers))

    return asyncio.run(ask_all())


def is_usable(broker: BrokerSettings, answer: Answer) -> bool:
    """Return True if the bridge would get everything it asks for, at any QoS."""
    if isinstance(answer, Ending) or (broker.group is not None and not _shares(answer)):
        return False
    return all(code < _REFUSED for code in answer.codes.values())


def _shares(grant: Grant) -> bool:
    return bool(grant.properties.get(packets.SHARED_AVAILABLE, 1))


def render_answer(broker: BrokerSettings, answer: Answer) -> RenderableType:
    """Describe what a broker grants, and which messages that may lose."""
    if isinstance(answer, Ending):
        return Text(f"{broker.url}: the broker {escape_text(answer.reason)}", style="red")
    granted = [f"{topic_filter} {_describe_code(code)}" for topic_filter, code in answer.codes.items()]
    lines = [*_describe_connack(answer.properties), f"filters: {', '.join(granted)}"]
    return Group(
        Text(f"{broker.url}: connected with MQTT {mqtt_name(answer.version)}"),
        *(Text(f"  {escape_text(line)}") for line in (lines if answer.version == V5 else lines[-1:])),
        *(Text(f"  warning: {escape_text(warning)}", style="yellow") for warning in warnings_about(broker, answer)),
        Text(f"  note: {_QUEUE}"),
    )


def describe_answer(broker: BrokerSettings, answer: Answer) -> dict[str, Any]:
    """Return for JSON what a broker grants; a filter's code is its QoS, or from 128 on why it is refused."""
    said: dict[str, Any] = {"url": broker.url, "usable": is_usable(broker, answer)}
    if isinstance(answer, Ending):
        return {**said, "reason": f"the broker {answer.reason}"}
    granted = {"mqtt": mqtt_name(answer.version), "filters": answer.codes, "dropped": answer.dropped}
    return {**said, "software": answer.software, **granted, "warnings": list(warnings_about(broker, answer))}


def warnings_about(broker: BrokerSettings, grant: Grant) -> Iterator[str]:
    """Yield what may be lost with this broker, as far as its answer shows."""
    said = grant.properties
    kept = said.get(packets.SESSION_EXPIRY, broker.session)
    if grant.version != V5:
        yield "in MQTT 3.1.1 the broker alone decides how long it keeps the session, and does not say"
    elif kept < broker.session:
        yield f"the broker keeps the session for {kept} s, not {broker.session} s: messages after that are lost"
    if broker.retained == "store" and not said.get(packets.RETAIN_AVAILABLE, 1):
        yield "the broker keeps no retained messages"
    if broker.group is not None and not _shares(grant):
        yield "the broker offers no shared subscriptions: leave out `group`"
    if grant.dropped:
        yield (
            f"the broker has dropped {format_count(grant.dropped, 'message')} for its clients since it was started:"
            " raise the limit on its queues"
        )
    if grant.version == V5 and 2 in grant.codes.values() and ignores_window(grant.software):
        yield (
            "Mosquitto before 2.0.13 ignores `window`: `run` subscribes with QoS 1, because at QoS 2 more messages"
            " may be on their way than packet ids can tell apart; update Mosquitto"
        )
    for topic_filter, code in grant.codes.items():
        if code >= _REFUSED:
            yield f"the broker refuses {topic_filter}: check what this user may read"
        elif code < broker.qos:
            lost = "messages may be lost in transit" if code == 0 else "a message may arrive twice"
            yield f"the broker grants QoS {code} for {topic_filter}, not {broker.qos}: {lost}"


def _describe_code(code: int) -> str:
    return f"QoS {code}" if code < _REFUSED else f"refused with code 0x{code:02x}"


def _describe_connack(said: packets.Properties) -> Iterator[str]:
    """Yield what an MQTT 5 CONNACK grants; what it leaves out has a default."""
    kept: Any = said.get(packets.SESSION_EXPIRY)
    yield f"session: {_describe_expiry(kept)}"
    yield f"receive maximum for publishers: {said.get(packets.RECEIVE_MAXIMUM, 65_535)}"
    yield f"maximum QoS: {said.get(packets.MAXIMUM_QOS, 2)}"
    for name, title in (
        (packets.RETAIN_AVAILABLE, "retained messages"),
        (packets.WILDCARDS_AVAILABLE, "wildcards"),
        (packets.SHARED_AVAILABLE, "shared subscriptions"),
    ):
        yield f"{title}: {'yes' if said.get(name, 1) else 'no'}"


def _describe_expiry(kept: int | None) -> str:
    if kept is None:
        return "as long as requested"
    return "forever" if kept == _FOR_EVER else f"{kept} s"
