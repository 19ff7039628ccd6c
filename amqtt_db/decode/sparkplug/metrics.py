"""The metrics of a payload: each under the name and with the type that its birth gave it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import attrs

from amqtt_db.decode.sparkplug.births import NO_METRICS, KnownMetric, KnownMetrics, is_definition
from amqtt_db.decode.sparkplug.values import TEMPLATE_TYPE, Readers, read_properties, read_typed, readers_of
from amqtt_db.errors import DecodeError

_TEMPLATE_PARAMETERS: Final = "parameters"
_METADATA: Final = (
    "is_multi_part", "content_type", "size", "seq", "file_name", "file_type", "md5", "description",
)  # fmt: skip


class MetricValue(NamedTuple):
    """A metric that was read: ``milliseconds`` since 1970 as in the payload, None if the metric has no time.

    ``more`` holds its property set and its metadata, if it has any.
    """

    name: str
    value: Any
    milliseconds: int | None
    is_historical: bool
    more: Mapping[str, Any]


@attrs.frozen
class Scope:
    """What is known when metrics are read: metrics, members of templates, and the type of births that say more."""

    metrics: KnownMetrics
    templates: Mapping[str, KnownMetrics]
    births: str


_NOTHING_MORE: Final[Mapping[str, Any]] = {}


def read_metric_values(metrics: Iterable[Any], scope: Scope) -> Iterator[MetricValue]:
    """Yield the metrics of a payload, without those that define templates.  Raises DecodeError."""
    by_alias, by_name = scope.metrics.by_alias, scope.metrics.by_name
    for metric in metrics:
        known = by_name.get(metric.name) if metric.name else by_alias.get(metric.alias)
        if (
            known is None
            or (metric.datatype and metric.datatype != known.datatype)
            or not (metric.name or metric.alias)
        ):
            known = _find_metric(metric, known, scope)
        if known.datatype == TEMPLATE_TYPE and is_definition(metric):
            continue
        value = None if metric.is_null else _read_metric_value(metric, known, scope)
        milliseconds = metric.timestamp or (0 if metric.HasField("timestamp") else None)
        has_more = metric.HasField("properties") or metric.HasField("metadata")
        more = _read_more(metric, known.name) if has_more else _NOTHING_MORE
        yield MetricValue(known.name, value, milliseconds, metric.is_historical, more)


def _find_metric(metric: Any, known: KnownMetric | None, scope: Scope) -> KnownMetric:
    """Return what is known of a metric without a birth, with another type, or with the alias 0, which may be absent."""
    if not metric.name and not metric.HasField("alias"):
        raise DecodeError("a metric has neither a name nor an alias")
    if known is None and not metric.name:
        raise DecodeError(
            f"no {scope.births} says what alias {metric.alias} means; try `amqtt-db dead replay` after the next one"
        )
    if known is not None and metric.datatype in {0, known.datatype}:
        return known
    name = metric.name if known is None else known.name
    return KnownMetric(name, metric.datatype, readers_of(metric.datatype), NO_METRICS)


def _read_metric_value(metric: Any, known: KnownMetric, scope: Scope) -> Any:
    if known.datatype == TEMPLATE_TYPE and metric.HasField("template_value"):
        return _read_template(metric.template_value, known, scope)
    return read_typed(metric, known.readers, "metric", known.name)


def _read_template(template: Any, known: KnownMetric, scope: Scope) -> dict[str, Any]:
    """Return an instance of a template as an object: its members, and its parameters beside them."""
    members = known.members if known.members.by_name else scope.templates.get(template.template_ref, NO_METRICS)
    data: dict[str, Any] = {}
    for member in read_metric_values(template.metrics, attrs.evolve(scope, metrics=members)):
        if member.name in data:
            raise DecodeError(f"the template {known.name} has two members {member.name}")
        data[member.name] = member.value
    if template.parameters:
        data[free_of(_TEMPLATE_PARAMETERS, data)] = {one.name: _read_parameter(one) for one in template.parameters}
    return data


def free_of(name: str, taken: Mapping[str, Any]) -> str:
    """Return the name, with as many underscores added as it takes to differ from all taken names."""
    while name in taken:
        name += "_"
    return name


def _read_parameter(parameter: Any) -> Any:
    readers: Readers = readers_of(parameter.type)
    return read_typed(parameter, readers, "parameter", parameter.name)


def _read_more(metric: Any, name: str) -> dict[str, Any]:
    more: dict[str, Any] = {}
    if metric.HasField("properties"):
        more["properties"] = read_properties(metric.properties, name)
    if metric.HasField("metadata"):
        found = metric.metadata
        more["metadata"] = {key: getattr(found, key) for key in _METADATA if found.HasField(key)}
    return more
