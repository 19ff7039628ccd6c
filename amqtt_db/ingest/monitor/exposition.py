"""Metrics in Prometheus's text format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Final, Literal

import attrs

from amqtt_db.journal.report import Distribution

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


@attrs.frozen
class Sample:
    """A value with its labels; ``suffix`` is added to its metric's name."""

    value: float
    labels: Mapping[str, str] = attrs.field(factory=dict)
    suffix: str = ""


@attrs.frozen
class Metric:
    """A metric: its name, what it means, and its samples."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    samples: tuple[Sample, ...]


def make_counter(name: str, meaning: str, *samples: Sample) -> Metric:
    """Return a metric that only increases."""
    return Metric(f"{name}_total", "counter", meaning, samples)


def make_gauge(name: str, meaning: str, *samples: Sample) -> Metric:
    """Return a metric that goes up and down."""
    return Metric(name, "gauge", meaning, samples)


def make_histogram(name: str, meaning: str, values: Distribution) -> Metric:
    """Return a metric that shows a distribution of values."""
    running = list(accumulate(values.counts))
    bounds = (*(f"{bound:g}" for bound in values.bounds), "+Inf")
    buckets = (Sample(count, {"le": bound}, "_bucket") for count, bound in zip(running, bounds, strict=True))
    return Metric(
        name,
        "histogram",
        meaning,
        (*buckets, Sample(values.total, suffix="_sum"), Sample(running[-1], suffix="_count")),
    )


def render_metrics(metrics: Iterable[Metric]) -> str:
    """Return the text of metrics; those without samples are left out."""
    return "".join(f"{line}\n" for metric in metrics if metric.samples for line in _render_metric(metric))


def _render_metric(metric: Metric) -> Iterator[str]:
    yield f"# HELP {metric.name} {metric.meaning}"
    yield f"# TYPE {metric.name} {metric.kind}"
    for sample in metric.samples:
        labels = ",".join(f'{name}="{_escape_label(value)}"' for name, value in sample.labels.items())
        yield f"{metric.name}{sample.suffix}{labels and f'{{{labels}}}'} {sample.value}"


def _escape_label(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
