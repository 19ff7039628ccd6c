"""One meaning per name: a name is defined at the top level of one module, or it is listed here with what it means."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import amqtt_db

ROOT: Final = Path(amqtt_db.__file__).parent

SHARED: Final = {
    "__all__": "what a package exports",
    "__getattr__": "imports what a package exports when it is first used",
    "app": "the Typer application of a group of commands",
    "export": "the command, and the function behind it",
    "logger": "the logger of a module",
    # What each engine has under the same name, because the engines do the same by other means:
    "SETTINGS": "what an engine's sessions rely on",
    "_FROM_TEXT": "SQL that makes a kind of text",
    "_HOLDS": "which values a kind's column returns",
    "_INT64": "SQL for the limits of 64 bits",
    "_LOCK": "the lock on the schema",
    "_MAINTENANCE": "the lock on moving and deleting records",
    "_explain": "explains an error of the driver",
    "_explained": "an error that says what to do",
    "_from_text": "SQL that makes a kind of text",
    "_is_double": "whether a double holds a number",
    "_is_unfit": "SQL that tells a value of another form",
    "_numbers": "checks a column of numbers",
    "_quoted": "quotes a name",
    "_read_timestamp": "reads a timestamp",
    "_texts": "checks a column of texts",
    "_untagged": "SQL that takes off a tag",
    "_untagged_integer": "SQL that takes off the tag of an integer",
    "decode": "decodes a payload of a format",
    "insert": "inserts row batches",
    "prepare_reader": "prepares a connection for reading",
    "prepare_writer": "prepares a connection of the writer",
}
"""Names that mean the same in every module that defines them."""


def defined_names(module: ast.Module) -> Iterator[str]:
    """Yield the names that a module defines at its top level."""
    for node in module.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def modules_by_name() -> dict[str, list[str]]:
    """Return the modules that define each name."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in ROOT.rglob("*.py"):
        for name in defined_names(ast.parse(path.read_text(encoding="utf-8"))):
            found[name].add(str(path.relative_to(ROOT)))
    return {name: sorted(paths) for name, paths in found.items()}


def test_a_name_has_one_meaning() -> None:
    """No name is defined in two modules, except those that mean the same in both."""
    twice = {name: paths for name, paths in modules_by_name().items() if len(paths) > 1 and name not in SHARED}
    assert not twice, "\n".join(f"{name}: {', '.join(paths)}" for name, paths in sorted(twice.items()))


def test_shared_names_are_still_shared() -> None:
    """A name that only one module defines any more leaves the list."""
    found = modules_by_name()
    assert not [name for name in SHARED if len(found.get(name, ())) < 2]


def test_no_function_is_too_long() -> None:
    """No function of the package has more than 60 lines."""
    long = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (node.end_lineno or node.lineno) - node.lineno >= 60
    ]
    assert not long
