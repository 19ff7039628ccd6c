"""Topics that are alike, as families: each has a topic filter whose named levels tell its members apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import attrs

from amqtt_db.decode import EMPTY
from amqtt_db.decode.json_text import auto_format
from amqtt_db.errors import DecodeError

Form = Literal["object", "value", "list", "empty", "broken", "mixed"]
"""What the payloads of a topic are: ``broken`` if some cannot be decoded, ``mixed`` if they differ."""

ANY: Final = None
"""A level that differs between the topics of a family."""

Levels = tuple[str | None, ...]

_ALIKE: Final = 0.4  # of all properties, or of all topics below, that two have in common
_CONTAINED: Final = 0.5  # of the properties of the one that has fewer
_FEW_NAMES: Final = 3
_SLICES: Final = 10  # of the time of listening
_GROUPED_FORMS: Final[tuple[Form, ...]] = ("object", "list", "value")
_AUTO: Final = auto_format()
_UNDECODABLE: Final = object()


@attrs.frozen
class Heard:
    """A message that was heard; ``time`` is when, in seconds."""

    topic: str
    payload: bytes
    time: float = 0.0


@attrs.frozen
class SampledTopic:
    """A topic, and the data that its payloads hold; ``times`` are when these were heard, in seconds."""

    levels: tuple[str, ...]
    data: tuple[Any, ...] = attrs.field(eq=False, repr=False)
    form: Form
    times: tuple[float, ...] = attrs.field(default=(), eq=False, repr=False)

    def traits(self) -> frozenset[str]:
        """Return the properties of its objects, or of those in its lists."""
        items = (item for one in self.data for item in (one if isinstance(one, list) else [one]))
        return frozenset(key for item in items if isinstance(item, dict) for key in item)


@attrs.frozen
class Family:
    """Topics that are alike.  With ``is_split``, the last level names the one value that each of them has."""

    levels: Levels
    topics: tuple[SampledTopic, ...]
    is_split: bool = False

    @property
    def form(self) -> Form:
        """What all its payloads are."""
        forms = {topic.form for topic in self.topics} - {"empty"}
        return forms.pop() if len(forms) == 1 else "mixed" if forms else "empty"

    @property
    def messages(self) -> int:
        """How many were heard."""
        return sum(len(topic.data) for topic in self.topics)

    def is_steady(self, seconds: float) -> bool:
        """Return True if its messages are spread over the ``seconds`` of listening, and are not one burst."""
        slices = {int(time / seconds * _SLICES) for topic in self.topics for time in topic.times} if seconds else set()
        return len(slices) >= _SLICES // 2


def find_families(heard: Iterable[Heard]) -> list[Family]:
    """Return families that together have all topics but those with empty payloads only; the most special come first."""
    by_topic: dict[str, list[Heard]] = defaultdict(list)
    for message in heard:
        by_topic[message.topic].append(message)
    topics = [_sample_topic(topic, found) for topic, found in by_topic.items()]
    alone = [Family(topic.levels, (topic,)) for topic in topics if topic.form == "broken"]
    together = _divide([topic for topic in topics if topic.form not in ("empty", "broken")], 0, ())
    return sorted([*alone, *together], key=lambda family: [level is ANY for level in family.levels])


def _sample_topic(topic: str, heard: Iterable[Heard]) -> SampledTopic:
    data = [(_decode_or_not(one.payload), one.time) for one in heard]
    full, form = [one for one in data if one[0] is not EMPTY], _form_of([value for value, _ in data])
    return SampledTopic(tuple(topic.split("/")), tuple(value for value, _ in full), form, tuple(at for _, at in full))


def _decode_or_not(payload: bytes) -> Any:
    try:
        return _AUTO(payload)
    except DecodeError:
        return _UNDECODABLE


def _form_of(data: Sequence[Any]) -> Form:
    if any(one is _UNDECODABLE for one in data):
        return "broken"
    forms: set[Form] = {
        "object" if isinstance(one, dict) else "list" if isinstance(one, list) else "value"
        for one in data
        if one is not EMPTY
    }
    return forms.pop() if len(forms) == 1 else "mixed" if forms else "empty"


def _divide(topics: Sequence[SampledTopic], depth: int, way: Levels) -> Iterator[Family]:
    """Yield the families of topics that agree in their first ``depth`` levels, which ``way`` describes."""
    ends = [topic for topic in topics if len(topic.levels) == depth]
    if ends:
        yield Family(way, tuple(ends))
    last = _by_level([topic for topic in topics if len(topic.levels) == depth + 1], depth)
    yield from _divide_last(last, way)
    inner = _by_level([topic for topic in topics if len(topic.levels) > depth + 1], depth)
    least = 2 if depth else _FEW_NAMES  # the first level rather says where something comes from
    merged = _alike(inner, lambda topic: (len(topic.levels), topic.levels[-1]), least)
    if merged:
        yield from _divide([topic for name in merged for topic in inner[name]], depth + 1, (*way, ANY))
    for name in inner.keys() - merged:
        yield from _divide(inner[name], depth + 1, (*way, name))


def _divide_last(last: Mapping[str, Sequence[SampledTopic]], way: Levels) -> Iterator[Family]:
    """Yield the families of topics that differ in their last level only."""
    by_form = {form: {name: found for name, found in last.items() if found[0].form == form} for form in _GROUPED_FORMS}
    values = by_form.pop("value")
    merged = max((_alike(topics, SampledTopic.traits, 2) for topics in by_form.values()), key=len)
    is_split = not merged and len(values) > 1
    if merged and len(values) > _FEW_NAMES:  # one filter covers them all anyway
        merged |= values.keys()
    if merged or is_split:
        together = values.keys() if is_split else merged
        yield Family((*way, ANY), tuple(topic for name in together for topic in last[name]), is_split)
        last = {name: topics for name, topics in last.items() if name not in together}
    for name, topics in last.items():
        yield Family((*way, name), tuple(topics))


def _by_level(topics: Iterable[SampledTopic], depth: int) -> dict[str, list[SampledTopic]]:
    by_level: dict[str, list[SampledTopic]] = defaultdict(list)
    for topic in topics:
        by_level[topic.levels[depth]].append(topic)
    return dict(sorted(by_level.items()))


def _alike(
    named: Mapping[str, Sequence[SampledTopic]], trait_of: Callable[[SampledTopic], Hashable], least: int
) -> set[str]:
    """Return the names that are like another one, by what ``trait_of`` tells of their topics; none if below ``least``.

    Two are alike if they have enough traits in common; what is like one that is alike belongs to them too.
    """
    traits = {name: frozenset(_traits_of(topics, trait_of)) for name, topics in named.items()}
    alike = {
        name
        for name, mine in traits.items()
        if any(_share(mine, other) >= _ALIKE for key, other in traits.items() if key != name)
    }
    return alike if len(alike) >= least else set()


def _traits_of(topics: Iterable[SampledTopic], trait_of: Callable[[SampledTopic], Hashable]) -> Iterator[Hashable]:
    for topic in topics:
        trait = trait_of(topic)
        yield from trait if isinstance(trait, frozenset) else (trait,)


def _share(one: frozenset[Hashable], other: frozenset[Hashable]) -> float:
    """Return how much of two is the same, from 0 to 1."""
    both = len(one & other)
    contained = both / min(len(one), len(other)) if both > 1 else 0.0
    return _ALIKE if contained >= _CONTAINED else both / max(1, len(one | other))
