"""``rollup:``, the key of a route whose records are summed up over intervals of time."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Final

from amqtt_db.config.keys import ConfigKey
from amqtt_db.config.yaml_checks import Node, duration, duration_up_to
from amqtt_db.entity.duration import format_duration
from amqtt_db.routing.route import RollupStep

ROLLUP_KEYS: Final = {
    "every": ConfigKey("The length of the intervals, such as 5 min or 1 day.", duration, is_required=True),
    "keep": ConfigKey("How long the sums are kept, such as 730 days.  Default: forever.", duration),
}

_up_to_a_year: Final = duration_up_to(366)


def read_rollup_steps(node: Node, keep: timedelta | None) -> tuple[RollupStep, ...]:
    """Return the steps of a route whose records are kept for ``keep``, the shortest first."""
    if node.value is None:
        return ()
    read = [_read_step(item, keep) for item in node.items("rollup: [{every: 5 min}]")]
    steps = sorted((step for step in read if step is not None), key=lambda step: step.every)
    for one, other in pairwise(steps):
        if one.every == other.every:
            node.fail(f"has two steps with `every: {format_duration(one.every)}`; leave one out")
        elif other.every % one.every:
            node.fail(
                f"{format_duration(other.every)} is not a multiple of {format_duration(one.every)}; each step must be "
                "a multiple of the next shorter one"
            )
    return tuple(steps)


def _read_step(item: Node, keep: timedelta | None) -> RollupStep | None:
    section = item.section(ROLLUP_KEYS)
    every = section.child("every").require(_read_every, "a length of time such as 5 min")
    kept = section.child("keep").read(duration, None)
    if every is None:
        return None
    if kept is not None and kept < every:
        section.child("keep").fail("is shorter than `every`; make it longer or leave it out")
    elif kept is not None and keep is not None and kept <= keep:
        section.child("keep").fail("is not longer than the route's `keep`: the records themselves are kept that long")
    return RollupStep(every, kept)


def _read_every(value: object) -> timedelta:
    length = _up_to_a_year(value)
    if length % timedelta(seconds=1):
        raise ValueError("expected whole seconds")
    return length
