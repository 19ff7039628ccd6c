"""Reading a YAML document so that all mistakes are found at once, each with its path and what would be right."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

import attrs
import yaml

from amqtt_db.config.keys import Check, ConfigKey, T, accepting
from amqtt_db.entity.duration import LONGEST_DAYS, UNIT_SECONDS, read_duration
from amqtt_db.errors import ConfigError, Problem
from amqtt_db.registry import SpecError, suggest
from amqtt_db.tagged import is_clean

D = TypeVar("D")

_UNITS: Final[Mapping[str, int]] = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
_SIZE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)
_LARGEST: Final = 2**63 - 1
_VARIABLE: Final = re.compile(r"\$\{([^}]*)\}")
_URL_PASSWORD: Final = re.compile(r"[^:/]*://[^:/@]*:(?P<password>[^@]*)@")
TYPE_NAMES: Final[Mapping[type, str]] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a mapping",
}


def _amount_of(units: Iterable[str]) -> str:
    """Return a pattern for a number with a unit, in upper or lower case, for which JSON Schema has no flag."""
    names = (re.sub("[a-z]", lambda letter: f"[{letter[0]}{letter[0].upper()}]", unit) for unit in units)
    return rf"^\s*\d+(\.\d+)?\s*({'|'.join(names)})\s*$"


@attrs.frozen
class Node:
    """A value in the document, its path, and the list that collects the problems of the whole document.

    None means that the key is absent or was left empty.
    """

    value: Any
    path: str
    problems: list[Problem] = attrs.field(factory=list, repr=False)

    def fail(self, message: str) -> None:
        """Note a mistake in this value."""
        self.problems.append(Problem(self.path, message))

    def read(self, check: Callable[[Any], T], default: D) -> T | D:
        """Return what ``check`` returns for the value; ``default`` if it is absent or ``check`` raises ValueError."""
        if self.value is None:
            return default
        try:
            return check(self.value)
        except SpecError as error:
            self.problems.extend(error.problems)
        except ValueError as error:
            for line in str(error).splitlines() or [type(error).__name__]:
                self.fail(line)
        return default

    def require(self, check: Callable[[Any], T], expected: str) -> T | None:
        """Like :meth:`read`, but its absence is a mistake too."""
        if self.value is None:
            self.fail(f"missing; expected {expected}")
        return self.read(check, None)

    def child(self, key: object) -> Node:
        """Return the value under a key of this mapping, absent or not."""
        value = self.value.get(key) if isinstance(self.value, Mapping) else None
        return Node(value, f"{self.path}.{key}" if self.path else str(key), self.problems)

    def section(self, known: Collection[str], elsewhere: Mapping[str, str] | None = None) -> Node:
        """Return this value as a mapping with only ``known`` keys; ``elsewhere`` explains misplaced keys."""
        if self.value is not None and not isinstance(self.value, Mapping):
            self.fail(f"expected a mapping, found {found(self.value)}")
            return Node({}, self.path, self.problems)
        for key in self.value or ():
            if key not in known:
                hint = (elsewhere or {}).get(key) or f"unknown key; {suggest(str(key), known)}"
                self.child(key).fail(hint)
        return self

    def values(self, keys: Mapping[str, ConfigKey]) -> dict[str, Any]:
        """Return what these keys of this section say, without those that are absent or have mistakes."""
        read = {name: self.child(name).read(key.check, None) for name, key in keys.items()}
        return {name: value for name, value in read.items() if value is not None}

    def items(self, example: str = "") -> list[Node]:
        """Return the values of this list, each with its path; nothing if it is absent or not a list.

        ``example`` is YAML that would be right.
        """
        if self.value is not None and not isinstance(self.value, list):
            such = f" such as `{example}`" if example else ""
            self.fail(f"expected a list{such}, found {found(self.value)}")
        values = self.value if isinstance(self.value, list) else []
        return [Node(value, f"{self.path}[{index}]", self.problems) for index, value in enumerate(values)]

    def done(self, notes: Iterable[Problem] = ()) -> None:
        """Raise ConfigError with all mistakes, if there are any, and with ``notes`` on what is valid."""
        if self.problems:
            raise ConfigError(*self.problems, notes=notes)


def found(value: object) -> str:
    """Return the type of a value in the words of YAML; never the value, which may be a secret."""
    return "nothing" if value is None else TYPE_NAMES.get(type(value), f"a {type(value).__name__}")


@accepting(type="string", minLength=1)
def text(value: object) -> str:
    """Return text that is not empty.  Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"expected text, found {found(value)}")
    if not value:
        raise ValueError("expected text, found empty text")
    return value


@accepting(type="string", minLength=1)
def expanded(value: object) -> str:
    """Return a path with environment variables in place of ``${NAME}``.

    Raises ValueError naming those that are unset, and for text that the operating system accepts in no name.
    """
    source = text(value)
    unset = [name for name in _VARIABLE.findall(source) if name not in os.environ]
    if unset:
        raise ValueError("\n".join(f"the environment variable {name or '${}'} is not set" for name in unset))
    filled = _VARIABLE.sub(lambda match: os.environ[match[1]], source)
    if not is_clean(filled):
        raise ValueError("it contains U+0000, or an unpaired surrogate, which is not UTF-8 text; choose another name")
    return filled


FILE: Final = Check(lambda value: Path(expanded(value)), expanded.accepts)
"""A check for the name of a file."""


@accepting(type="string", minLength=1)
def expanded_url(value: object) -> str:
    """Return a URL with environment variables filled in; a password from one is percent-encoded, so it may be anything.

    Raises what :func:`expanded` raises.
    """
    url = expanded(value)
    place = _URL_PASSWORD.match(source := text(value))
    if place is None:
        return url
    start, end = place.span("password")
    password = _VARIABLE.sub(lambda match: quote(os.environ[match[1]], safe=""), source[start:end])
    return f"{expanded(source[:start])}{password}{expanded(source[end:])}"


@accepting(type="boolean")
def flag(value: object) -> bool:
    """Return true or false.  Raises ValueError."""
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false, found {found(value)}")
    return value


def choice(*names: str) -> Check[str]:
    """Return a check for one of ``names``."""

    @accepting(enum=[*names])
    def check(value: object) -> str:
        if isinstance(value, str) and value in names:
            return value
        given = f"{value[:40]!r}" if isinstance(value, str) else found(value)
        close = get_close_matches(str(value), names, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"expected one of {', '.join(names)}, found {given}{hint}")

    return check


def whole_number(minimum: int, maximum: int) -> Check[int]:
    """Return a check for a whole number from ``minimum`` to ``maximum``."""

    @accepting(type="integer", minimum=minimum, maximum=maximum)
    def check(value: object) -> int:
        if type(value) is not int:
            raise ValueError(f"expected a whole number, found {found(value)}")
        if not minimum <= value <= maximum:
            raise ValueError(f"expected a number from {minimum} to {maximum}, found {str(value)[:20]}")
        return value

    return check


def duration_up_to(days: int) -> Check[timedelta]:
    """Return a check for a length of time such as ``90 days``, ``24h``, ``5 min``, up to some days."""

    @accepting(type="string", pattern=_amount_of(UNIT_SECONDS))
    def check(value: object) -> timedelta:
        length = read_duration(value, days) if isinstance(value, str) else None
        if type(value) is int and 0 < value < 10**9:
            raise ValueError(f"expected a length of time with its unit, such as {value} s or 90 days")
        if length is None:
            raise ValueError(f"expected a length of time such as 90 days, 24h or 5 min, found {found(value)}")
        if length < timedelta(seconds=1):
            raise ValueError(f"expected a length of time from 1 s to {days} days")
        return length

    return check


duration: Final = duration_up_to(LONGEST_DAYS)
"""A check for a length of time."""


@accepting(type=["number", "string"], exclusiveMinimum=0, exclusiveMaximum=10**6, pattern=_amount_of(UNIT_SECONDS))
def seconds(value: object) -> float:
    """Return a number of seconds above 0, which may also be written like ``5 min``.  Raises ValueError."""
    if isinstance(value, str):
        value = duration(value).total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 10**6:
        raise ValueError(f"expected a number of seconds above 0, found {found(value)}")
    return float(value)


def size(minimum: str) -> Check[int]:
    """Return a check for a number of bytes of at least ``minimum``, such as ``64 MiB``."""
    least = _bytes(minimum)

    @accepting(type=["integer", "string"], minimum=least, pattern=_amount_of(_UNITS))
    def check(value: object) -> int:
        count = _bytes(value)
        if count < least:
            raise ValueError(f"expected {minimum} or more, found {found(value) if type(value) is not int else value}")
        return count

    return check


def _bytes(value: object) -> int:
    """Return bytes: a whole number, or text such as ``512 MiB``, ``1 GiB``, ``64 kB``.  Raises ValueError."""
    match = _SIZE.fullmatch(str(value)) if type(value) in (int, str) else None
    if match is None:
        raise ValueError(f"expected a size such as 512 MiB, 1 GiB or 1000000 (bytes), found {found(value)}")
    unit = _UNITS.get(match[2].casefold())
    if unit is None:
        raise ValueError(f"unknown unit {match[2][:10]!r}; use B, kB, MB, GB, TB, KiB, MiB, GiB, TiB")
    count = int(float(match[1]) * unit) if "." in match[1] else int(match[1]) * unit
    if count > _LARGEST:
        raise ValueError("more than 8 EiB")
    return count


class _Loader(yaml.SafeLoader):
    """A loader for which duplicate keys are a mistake; YAML's own keeps the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value!r} appears twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_YAML_HINTS: Final = {
    "but got '{'": "; put quotes around a value that contains {",
    "found character '\\t'": "; indent with spaces, not tabs",
    "expected <block end>": "; a line is not indented like those that it belongs to",
}
"""Words of the YAML library's messages, and what to do about them."""


def read_yaml(path: Path) -> Any:
    """Return the document in a YAML file.  Raises ConfigError, with line and column if its syntax is wrong."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - it is a SafeLoader
    except OSError as error:
        raise ConfigError(Problem(str(path), f"cannot be read: {error.strerror}")) from error
    except UnicodeDecodeError as error:
        raise ConfigError(Problem(str(path), f"is not UTF-8 text: byte {error.start + 1}")) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}, line {mark.line + 1}, column {mark.column + 1}" if mark else str(path)
        problem = error.problem or error.context or ""
        hint = next((hint for words, hint in _YAML_HINTS.items() if words in problem), "")
        raise ConfigError(Problem(where, f"is not YAML: {problem}{hint}")) from error
    except yaml.YAMLError as error:
        raise ConfigError(Problem(str(path), f"is not YAML: {str(error).splitlines()[0]}")) from error
    except ValueError as error:  # such as a date in month 13
        raise ConfigError(Problem(str(path), f"has a value that cannot be read: {error}")) from error
    except RecursionError as error:
        raise ConfigError(Problem(str(path), "is nested too deeply")) from error
