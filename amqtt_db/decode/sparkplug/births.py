"""What a birth says about its metrics: names, aliases and types, remembered as JSON and looked up by each message.

An alias is valid until the next birth.  A message that arrived before the birth and is stored later is read by it,
unless one of its aliases or names has meant something else in any birth.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, Final

import attrs
import orjson

from amqtt_db.decode.sparkplug.values import TEMPLATE_TYPE, Readers, readers_of
from amqtt_db.errors import DecodeError

MOST_CHANGED: Final = 10_000
"""The most aliases and names whose older meanings are remembered as different; if there are more, all are."""

_MAX_COMPILED: Final = 32 * 2**20  # characters of the births that are kept ready; if there are more, all are forgotten


@attrs.frozen(eq=False)
class KnownMetric:
    """What is known of a metric: its name, its type, what reads its values, and the members of a template."""

    name: str
    datatype: int
    readers: Readers
    members: KnownMetrics


@attrs.frozen(eq=False)
class KnownMetrics:
    """Metrics by alias and by name."""

    by_alias: Mapping[int, KnownMetric] = attrs.field(factory=dict)
    by_name: Mapping[str, KnownMetric] = attrs.field(factory=dict)


@attrs.frozen(eq=False)
class Birth:
    """The last birth of an edge node or a device.

    ``time_us`` is when it arrived.  A device's ``node_us`` is when its edge node's birth did, None if there was none.
    An edge node's ``session`` is the number ``bdSeq``, which its death repeats.  ``changed`` are the aliases and
    names that meant something else before, None for all.  ``templates`` are the members of each template by name.
    """

    time_us: int = 0
    node_us: int | None = None
    session: int | None = None
    metrics: KnownMetrics = attrs.field(factory=KnownMetrics)
    changed: frozenset[int | str] | None = frozenset()
    templates: Mapping[str, KnownMetrics] = attrs.field(factory=dict)

    def metrics_at(self, time_us: int) -> KnownMetrics:
        """Return the metrics that a message which arrived then can mean."""
        return self.metrics if time_us >= self.time_us else self._unchanged

    @cached_property
    def _unchanged(self) -> KnownMetrics:
        """The metrics whose alias or name has never meant anything else."""
        changed = self.changed
        if changed is None:
            return KnownMetrics()
        return KnownMetrics(
            {alias: metric for alias, metric in self.metrics.by_alias.items() if alias not in changed},
            {name: metric for name, metric in self.metrics.by_name.items() if name not in changed},
        )


NO_BIRTH: Final = Birth()
NO_METRICS: Final = KnownMetrics()

_Described = list[Any]
"""A metric as it is remembered: name, alias (or null), type, and the members of a template."""


def describe_metrics(metrics: Iterable[Any]) -> list[_Described]:
    """Return what is remembered of a birth's metrics.  Raises DecodeError for a metric without a name."""
    return [_describe_metric(metric) for metric in metrics if not is_definition(metric)]


def describe_templates(metrics: Iterable[Any]) -> dict[str, list[_Described]]:
    """Return the members of the templates that a birth defines, by the templates' names."""
    return {metric.name: describe_metrics(metric.template_value.metrics) for metric in metrics if is_definition(metric)}


def dump_birth(
    old: str | None,
    time_us: int,
    metrics: list[_Described],
    *,
    node_us: int | None = None,
    session: int | None = None,
    templates: Mapping[str, list[_Described]] | None = None,
) -> str:
    """Return a birth as text; ``old`` is the text of the birth before it."""
    changed = [] if old is None else _changed_meanings(orjson.loads(old), metrics)
    birth = {"time_us": time_us, "node_us": node_us, "session": session, "metrics": metrics, "changed": changed}
    return orjson.dumps({**birth, "templates": templates or {}}).decode()


def is_definition(metric: Any) -> bool:
    """Return True if a metric defines a template, and so has no value."""
    return bool(metric.datatype == TEMPLATE_TYPE and metric.template_value.is_definition)


class Births:
    """Makes births ready for use, and keeps the last one of each name with the text that it was made from."""

    def __init__(self) -> None:
        self._ready: dict[str, tuple[str, Birth]] = {}
        self._size = 0

    def load(self, name: str, text: str | None) -> Birth:
        """Return the birth that is remembered as a text, under a name."""
        if not text:
            return NO_BIRTH
        old, birth = self._ready.get(name, ("", NO_BIRTH))
        if old != text:
            birth = self._keep(name, text, old)
        return birth

    def _keep(self, name: str, text: str, old: str) -> Birth:
        if self._size > _MAX_COMPILED:
            self._ready.clear()
            self._size, old = 0, ""
        birth = _load(orjson.loads(text))
        self._ready[name] = text, birth
        self._size += len(text) - len(old)
        return birth


def _describe_metric(metric: Any) -> _Described:
    if not metric.name:
        raise DecodeError("a metric of a birth has no name")
    readers_of(metric.datatype)
    members = describe_metrics(metric.template_value.metrics) if metric.datatype == TEMPLATE_TYPE else []
    return [metric.name, metric.alias if metric.HasField("alias") else None, metric.datatype, members]


def _changed_meanings(old: Mapping[str, Any], metrics: list[_Described]) -> list[int | str] | None:
    """Return the aliases and names that have not always meant what they mean now, None if there are too many."""
    if old["changed"] is None:
        return None
    now = dict(_meanings(metrics))
    changed = {key for key, meaning in _meanings(old["metrics"]) if now.get(key) != meaning}.union(old["changed"])
    return sorted(changed, key=str) if len(changed) <= MOST_CHANGED else None


def _meanings(metrics: list[_Described]) -> Iterator[tuple[int | str, _Described]]:
    for name, alias, *typing in metrics:
        yield name, typing
        if alias is not None:
            yield alias, [name, *typing]


def _load(birth: Mapping[str, Any]) -> Birth:
    changed = birth["changed"]
    return Birth(
        birth["time_us"],
        birth["node_us"],
        birth["session"],
        _load_metrics(birth["metrics"]),
        None if changed is None else frozenset(changed),
        {name: _load_metrics(members) for name, members in birth["templates"].items()},
    )


def _load_metrics(described: list[_Described]) -> KnownMetrics:
    made = [
        (alias, KnownMetric(name, datatype, readers_of(datatype), _load_metrics(members) if members else NO_METRICS))
        for name, alias, datatype, members in described
    ]
    return KnownMetrics(
        {alias: metric for alias, metric in made if alias is not None}, {metric.name: metric for _, metric in made}
    )
