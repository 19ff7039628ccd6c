"""The keys of a route that change a payload's data before it is typed, and those that split it into records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from difflib import get_close_matches
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from amqtt_db.config.keys import ConfigKey, defined_in, described
from amqtt_db.config.yaml_checks import Node, choice, flag, found, text
from amqtt_db.record import split_path
from amqtt_db.registry import install_command, suggest
from amqtt_db.routing.each import Capture, Each, parse_each
from amqtt_db.routing.readings import Reading
from amqtt_db.routing.reshape import Pairs, Reshaping, names_in

_YAML_WORDS: Final[Mapping[bool, tuple[str, ...]]] = {True: ("true", "on", "yes"), False: ("false", "off", "no")}
"""The words that YAML reads as true and false unless they are quoted."""

SPELLINGS: Final[Mapping[bool, tuple[str, ...]]] = {
    truth: tuple(form for word in words for form in (word, word.capitalize(), word.upper()))
    for truth, words in _YAML_WORDS.items()
}
"""The same with all their spellings."""

_TEXT_OR_TEXTS: Final = described(type=["string", "array"], items=text.accepts, minLength=1)
_TEXT_OR_FLAG: Final = {"anyOf": [text.accepts, flag.accepts]}
MEANINGS: Final = described(anyOf=[*_TEXT_OR_FLAG["anyOf"], {"type": "array", "items": _TEXT_OR_FLAG}])
"""A check for the words, or the list of words, that mean true or false."""
_FACTOR: Final = described(type="number")
_FORMS: Final = choice("text", "comma", "unit")
_LISTS: Final = {"type": "array", "minItems": 2, "items": text.accepts}
_PAIRS: Final = {
    "type": "object",
    "properties": dict.fromkeys(("list", "name", "value"), text.accepts),
    "required": ["list"],
    "additionalProperties": False,
}

PAYLOAD_KEYS: Final = {
    "each": ConfigKey(
        "The path of a list whose items become separate rows; {name} stands for every key of an object.",
        described(type="string"),
    ),
    "prefix": ConfigKey("With `each`: false names the columns of an item without the list's name.", flag),
    "zip": ConfigKey("Parallel lists, such as [t, v]: items at the same position become one row.", described(**_LISTS)),
    "root": ConfigKey("The path of an object whose properties become the message's own.", text),
    "pairs": ConfigKey(
        "The path of a list of objects, each with a name and a value, which become properties.",
        described(anyOf=[text.accepts, _PAIRS]),
    ),
    "property": ConfigKey("Names the value in a payload by levels of its topic, such as {property}.", text),
    "drop": ConfigKey("Paths of properties that are not stored; * matches any text.", _TEXT_OR_TEXTS),
    "rename": ConfigKey(
        "Old paths of properties, and their new ones.", described(type="object", additionalProperties=text.accepts)
    ),
    "booleans": ConfigKey("Text that means true, and text that means false.", defined_in("booleans")),
    "numbers": ConfigKey(
        "Text to read as numbers: text (21.5), comma (also 21,5), unit (also 21.5 °C).",
        described(anyOf=[_FORMS.accepts, {"type": "array", "items": _FORMS.accepts}]),
    ),
    "timezone": ConfigKey("The zone of times without one, such as Europe/Berlin.  Default: UTC.", text),
}

READING_KEYS: Final[Mapping[str | bool, ConfigKey]] = {
    "from": ConfigKey("The path of the value in the message.", text),
    "scale": ConfigKey("The number is multiplied by this.", _FACTOR),
    "offset": ConfigKey("This is added to the number, after `scale`.", _FACTOR),
    "unit": ConfigKey("Reads text such as 12.5 W too, with this unit only.", text),
    "comma": ConfigKey("Reads text such as 1,5 too.", flag),
    "text": ConfigKey("Reads numbers sent as text.", flag),
    "map": ConfigKey("What each value is read as.", described(type="object", minProperties=1)),
    True: ConfigKey("Values that are read as true.", MEANINGS),
    False: ConfigKey("Values that are read as false.", MEANINGS),
}
"""The keys of a declared property that say how its value is read; YAML reads `true` and `false` as what they are."""


def read_each(section: Node) -> Each | None:
    """Return what becomes separate records; None if each message is one record."""
    path = section.child("each").read(lambda value: "" if value == "" else text(value), None)
    parallel = section.child("zip").read(_parallel, ())
    prefix = section.child("prefix").read(flag, True)
    parts = parse_each(path or "")
    for part in parts:
        if isinstance(part, Capture) and not part.name.isidentifier():
            section.child("each").fail(f"{{{part.name}}} is not a name: use only letters, digits and _")
    if path is not None and parallel:
        section.child("zip").fail("cannot be used together with `each`; leave one of them out")
    if path is None and not prefix:
        section.child("prefix").fail("has no effect without `each`")
    return None if path is None and not parallel else Each(parts, prefix, parallel)


def read_reshaping(section: Node, levels: Iterable[str], readings: Mapping[tuple[str, ...], Reading]) -> Reshaping:
    """Return what a route changes in its messages; ``levels`` are the names in its topic filter."""
    return Reshaping(
        root=section.child("root").read(lambda value: split_path(text(value)), ()),
        pairs=section.child("pairs").read(_named_values, None),
        property=section.child("property").read(lambda value: _template(text(value), tuple(levels)), None),
        drop=section.child("drop").read(_texts, ()),
        rename=section.child("rename").read(_renamed, {}),
        booleans=section.child("booleans").read(_booleans, {}),
        numbers=section.child("numbers").read(_numbers, frozenset()),
        timezone=section.child("timezone").read(read_zone, None),
        readings=readings,
    )


def read_readings(node: Node, keys: tuple[str, ...] = ()) -> tuple[Any, dict[tuple[str, ...], Reading]]:
    """Return an inline entity without the keys that say how properties are read, and those keys by path.

    ``keys`` lead to the object that ``node`` declares.
    """
    if not isinstance(node.value, Mapping):
        return node.value, {}
    if keys and isinstance(node.value.get("type"), str):
        plain = {key: value for key, value in node.value.items() if key not in READING_KEYS}
        return plain, {} if len(plain) == len(node.value) else {keys: _reading(node, keys)}
    inner = {key: read_readings(node.child(key), (*keys, str(key))) for key in node.value}
    readings = {path: reading for _, below in inner.values() for path, reading in below.items()}
    return {key: plain for key, (plain, _) in inner.items()}, readings


def _reading(node: Node, keys: tuple[str, ...]) -> Reading:
    truths = {truth: node.value[truth] for truth in (True, False) if truth in node.value}
    meanings = Node(truths or None, node.path, node.problems).read(_booleans, {})
    unit = node.child("unit").read(text, "")
    accepted = {key: node.child(key).read(flag, False) for key in ("text", "comma")}
    accepted["text"] |= bool(unit)
    return Reading(
        source=node.child("from").read(lambda value: split_path(text(value)), keys),
        meanings={**meanings, **node.child("map").read(_mapping, {})},
        numbers=frozenset(name for name, is_on in accepted.items() if is_on),
        unit=unit,
        scale=node.child("scale").read(_factor, Decimal(1)),
        offset=node.child("offset").read(_factor, Decimal(0)),
    )


def _mapping(value: object) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"expected a mapping of values to values, found {found(value)}")
    return value


def _factor(value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number, found {found(value)}")
    return Decimal(repr(value))


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(text, value)) if isinstance(value, list) else (text(value),)


def _parallel(value: object) -> tuple[tuple[str, ...], ...]:
    if not isinstance(value, list) or len(value) < 2:
        raise ValueError("expected a list of two paths or more, such as [t, v]")
    return tuple(split_path(text(path)) for path in value)


def _named_values(value: object) -> Pairs:
    if isinstance(value, str):
        return Pairs(split_path(text(value)))
    if not isinstance(value, Mapping) or "list" not in value or not value.keys() <= {"list", "name", "value"}:
        raise ValueError("expected the path of a list, or {list: PATH, name: KEY, value: KEY}")
    keys = {key: text(value[key]) for key in ("name", "value") if key in value}
    return Pairs(split_path(text(value["list"])), **keys)


def _renamed(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise ValueError(f"expected a mapping of old to new paths, found {found(value)}")
    return {text(old): text(new) for old, new in value.items()}


def _template(template: str, levels: tuple[str, ...]) -> str:
    """Return a property's name with levels in braces.  Raises ValueError for a level that the topic filter lacks."""
    try:
        names = names_in(template)
    except ValueError as error:
        raise ValueError(f"{template!r} cannot be read: {error}") from None
    if not names:
        raise ValueError("names no level of the topic; write it like {property}, in quotes")
    for name in sorted(names):
        if name not in levels:
            raise ValueError(f"the topic has no level {{{name}}}; {suggest(name, levels)}")
    return template


def _booleans(value: object) -> dict[str, bool]:
    if not isinstance(value, Mapping) or not value or not all(isinstance(key, bool) for key in value):
        raise ValueError("expected {true: [TEXT, …], false: [TEXT, …]}")
    meaning: dict[str, bool] = {}
    for truth, words in value.items():
        for word in _spellings(words):
            if meaning.setdefault(word, truth) != truth:
                raise ValueError(f"{word!r} cannot be both true and false")
    return meaning


def _numbers(value: object) -> frozenset[str]:
    check = choice("text", "comma", "unit")
    return frozenset({"text", *map(check, value if isinstance(value, list) else [value])})


def read_zone(value: object) -> ZoneInfo:
    """Return a time zone by its name.  Raises ValueError if there is none."""
    name = text(value)
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, ZoneInfoNotFoundError):
        known = available_timezones()
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "expected a name such as Europe/Berlin or UTC"
        if not known:
            hint = f"this machine has no time zone database: {install_command('tzdata')}"
        raise ValueError(f"{name!r} is not a time zone; {hint}") from None


def _spellings(value: Any) -> Iterator[str]:
    """Yield the words in a list; YAML has already turned an unquoted word such as ON into true or false."""
    for word in value if isinstance(value, list) else [value]:
        if isinstance(word, bool):
            yield from SPELLINGS[word]
        else:
            yield text(word)
