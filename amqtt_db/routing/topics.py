"""Topic filters: MQTT's own, and named levels such as ``home/{room}/climate``.

A named level covers exactly one level, as ``+`` does, and returns the text of that level.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from amqtt_db.tagged import is_clean

_WHOLE_LEVEL: Final = "[^/]*"
_LONGEST_TOPIC: Final = 65535  # bytes: MQTT encodes a length in two


@attrs.frozen
class TopicFilter:
    """Covers topics, and names some of their levels.

    ``text`` is the filter as written, ``mqtt`` the same with ``+`` for its named levels, ``names`` the names in order.
    Create one with :meth:`parse`.
    """

    text: str
    mqtt: str = attrs.field(eq=False)
    names: tuple[str, ...] = attrs.field(eq=False)
    _found: Callable[[str], re.Match[str] | None] = attrs.field(eq=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> TopicFilter:
        """Return the filter that the text means.  Raises ValueError with every mistake in it."""
        levels = text.split("/")
        names = tuple(level[1:-1] for level in levels if _is_named(level))
        mistakes = [*_whole_mistakes(text), *_level_mistakes(levels), *_name_mistakes(names)]
        if mistakes:
            raise ValueError(f"{text!r} is not a topic filter: {'; '.join(mistakes)}")
        mqtt = "/".join("+" if _is_named(level) else level for level in levels)
        return cls(text, mqtt, names, re.compile(_pattern(levels)).fullmatch)

    @classmethod
    def exactly(cls, topic: str) -> TopicFilter:
        """Return the filter that covers one topic, whatever is in its name."""
        return cls(topic, topic, (), re.compile(re.escape(topic)).fullmatch)

    def match(self, topic: str) -> dict[str, str] | None:
        """Return the named levels of a covered topic (``{}`` for a filter without names), or None for any other topic.

        A filter that begins with a wildcard or a named level covers no topic that begins with ``$``.
        """
        found = self._found(topic)
        return None if found is None else found.groupdict()


def first_match(filters: Sequence[TopicFilter], topic: str) -> tuple[int, dict[str, str]] | None:
    """Return the index of the first filter that covers the topic, and the named levels; None if none covers it."""
    for index, candidate in enumerate(filters):
        levels = candidate.match(topic)
        if levels is not None:
            return index, levels
    return None


def _is_named(level: str) -> bool:
    return level.startswith("{") and level.endswith("}")


def _whole_mistakes(text: str) -> list[str]:
    if not text:
        return ["it is empty; '#' covers every topic"]
    if "\0" in text:
        return ["it contains U+0000, which MQTT forbids"]
    if not is_clean(text):
        return ["it contains an unpaired surrogate, which MQTT forbids"]
    if len(text.encode()) > _LONGEST_TOPIC:
        return [f"it is longer than {_LONGEST_TOPIC} bytes"]
    return []


def _level_mistakes(levels: list[str]) -> list[str]:
    mistakes = []
    for level in levels:
        if "#" in level and level != "#":
            mistakes.append(f"'#' must be a whole level, not part of {level!r}")
        elif "+" in level and level != "+":
            mistakes.append(f"'+' must be a whole level, not part of {level!r}")
        elif ("{" in level or "}" in level) and not (_is_named(level) and level[1:-1].isidentifier()):
            mistakes.append(
                f"{level!r} is not a named level: write {{name}} as a whole level, using only letters, digits and _"
            )
    if "#" in levels[:-1]:
        mistakes.append("'#' must be the last level")
    return mistakes


def _name_mistakes(names: tuple[str, ...]) -> list[str]:
    twice = sorted({name for name in names if names.count(name) > 1})
    return [f"the name {name!r} is used more than once" for name in twice]


def _pattern(levels: list[str]) -> str:
    *parents, last = levels
    first_is_open = levels[0] in {"+", "#"} or _is_named(levels[0])
    start = r"(?!\$)" if first_is_open else ""
    if last != "#":
        return start + "/".join(map(_level_pattern, levels))
    if not parents:
        return start + "(?s:.*)"
    return start + "/".join(map(_level_pattern, parents)) + "(?s:/.*)?"


def _level_pattern(level: str) -> str:
    if level == "+":
        return _WHOLE_LEVEL
    return f"(?P<{level[1:-1]}>{_WHOLE_LEVEL})" if _is_named(level) else re.escape(level)
