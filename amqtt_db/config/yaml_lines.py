"""Where in its file a value of a YAML document is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs
import yaml

from amqtt_db.errors import ConfigError, Problem

_LAST_STEP: Final = re.compile(r"(\[\d+\]|\.?[^.\[]*)$")


def find_lines(path: Path) -> dict[str, int]:
    """Return the line of each value in a YAML file by its path, as messages write it; nothing if it cannot be read."""
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return {} if root is None else dict(_walk(root, "", set()))


def add_lines(problems: Iterable[Problem], lines: Mapping[str, int]) -> tuple[Problem, ...]:
    """Return problems with the lines that they are about: those of their values, or of what these are missing in."""
    return tuple(attrs.evolve(problem, line=_line_of(problem.path, lines)) for problem in problems)


@contextmanager
def located_in(path: Path) -> Iterator[None]:
    """Name the line in a YAML file of every mistake that is found in its document."""
    try:
        yield
    except ConfigError as error:
        lines = find_lines(path)
        raise ConfigError(*add_lines(error.problems, lines), notes=add_lines(error.notes, lines)) from error


def _walk(node: yaml.Node, path: str, above: set[int]) -> Iterator[tuple[str, int]]:
    """Yield path and line of what a node contains; an alias may lead back to what is ``above``."""
    if id(node) in above:
        return
    if isinstance(node, yaml.SequenceNode):
        steps = [(f"{path}[{index}]", value, value) for index, value in enumerate(node.value)]
    elif isinstance(node, yaml.MappingNode):
        steps = [(f"{path}.{key.value}" if path else str(key.value), key, value) for key, value in node.value]
    else:
        return
    for step, place, value in steps:
        yield step, place.start_mark.line + 1
        yield from _walk(value, step, above | {id(node)})


def _line_of(path: str, lines: Mapping[str, int]) -> int | None:
    while path and path not in lines:
        path = _LAST_STEP.sub("", path)
    return lines.get(path)
