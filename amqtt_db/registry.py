"""From a name in the configuration to what it means: a built-in, an entry point, or a dotted path.

Naming a module runs it.  To restrict what the author of a configuration can run, the environment variable
``AMQTT_DB_IMPORTS`` lists the allowed packages, separated by commas.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points, requires
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from amqtt_db.errors import Problem

ALLOW_LIST: Final = "AMQTT_DB_IMPORTS"
_ALWAYS: Final = ("amqtt", "amqtt_db")


class SpecError(ValueError):
    """A part of the configuration cannot be used.  ``problems`` holds every mistake found in it, with its path."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems
        super().__init__("\n".join(map(str, problems)))


def load(name: str, builtins: Mapping[str, Any], group: str) -> Any:
    """Return what ``name`` means: a key of ``builtins``, an entry point of ``group``, or a dotted path, in this order.

    Raises ValueError, with the nearest valid name or with why the import failed.
    """
    if name in builtins:
        builtin = builtins[name]
        return load_path(builtin) if isinstance(builtin, str) else builtin
    points = {point.name: point for point in entry_points(group=group)}
    if name in points:
        _require_allowed(points[name].module)
        try:
            return points[name].load()
        except (Exception, SystemExit) as error:
            raise ValueError(f"the entry point {name!r} of {group} cannot be loaded: {_reason(error)}") from error
    if "." in name or ":" in name:
        return load_path(name)
    raise ValueError(f"{name!r} is unknown and not a dotted path; {suggest(name, [*builtins, *points])}")


def name_of(cls: type, builtins: Mapping[str, str], group: str) -> str:
    """Return the name under which a class is registered, or else its dotted path; :func:`load` accepts either."""
    path = f"{cls.__module__}.{cls.__qualname__}"
    registered = {builtin: name for name, builtin in builtins.items()}
    registered.update({point.value.replace(":", "."): point.name for point in entry_points(group=group)})
    name = registered.get(path, path)
    return path if name in builtins and builtins[name] != path else name


def search_last(directory: str) -> None:
    """Also look for modules in a directory, after all others, so that none of them replaces another."""
    sys.path[:] = [*(one for one in sys.path if one not in {"", directory}), directory]


def load_path(path: str) -> Any:
    """Return the object at a dotted path (``package.module.Name`` or ``package.module:Name``).

    Raises ValueError saying which part of the path is missing, or why a module on it cannot be imported.
    """
    parts = path.replace(":", ".").split(".")
    if not all(part.isidentifier() for part in parts):
        raise ValueError(f"{path!r} is not a dotted path such as package.module.Name")
    _require_allowed(".".join(parts))
    found: Any = _import(parts[0], path)
    for index, part in enumerate(parts[1:], start=1):
        found = _step(found, part, ".".join(parts[: index + 1]), path)
        if isinstance(found, ModuleType):  # which a listed package may have imported for itself
            _require_allowed(found.__name__)
    return found


def suggest(name: str, valid: Iterable[str]) -> str:
    """Return a phrase with the valid name closest to ``name``, or with all valid names if none is close."""
    names = sorted(valid)
    near = get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"valid: {', '.join(names)}"


def install_hint(extra: str) -> str:
    """Return the command that installs what an extra of this package needs.

    It names the libraries, not this package: what package indexes call amqtt_db is an older project.
    """
    wanted = (line.partition(";") for line in requires("amqtt_db") or ())
    names = [name.strip() for name, _, marker in wanted if re.search(rf"extra == ['\"]{extra}['\"]", marker)]
    return install_command(*sorted(names))


def install_command(*names: str) -> str:
    """Return the command that installs libraries into the environment that this program runs in.

    pipx and uv leave files that tell theirs: https://pipx.pypa.io and https://docs.astral.sh/uv.
    """
    place, python = Path(sys.prefix), shlex.quote(sys.executable)
    if (place / "pipx_metadata.json").exists():
        begin = f"pipx inject {place.name}"
    elif _is_made_by_uv(place):
        begin = f"uv pip install --python {python}"
    else:
        begin = f"{python} -m pip install"
    return f"{begin} {' '.join(map(shlex.quote, names))}"


def _is_made_by_uv(place: Path) -> bool:
    try:
        return re.search(r"^uv\s*=", (place / "pyvenv.cfg").read_text(encoding="utf-8"), re.MULTILINE) is not None
    except (OSError, UnicodeDecodeError):
        return False


def _require_allowed(path: str) -> None:
    """Raise ValueError if there is an allow-list and it does not cover the path."""
    listed = os.environ.get(ALLOW_LIST)
    if listed is None:
        return
    packages = (*_ALWAYS, *(package.strip() for package in listed.split(",")))
    if not any(path == package or path.startswith(f"{package}.") for package in packages):
        raise ValueError(f"{path!r} may not be imported: {ALLOW_LIST} does not list its package")


def _step(found: Any, part: str, module: str, path: str) -> Any:
    if hasattr(found, part):
        return getattr(found, part)
    if isinstance(found, ModuleType) and hasattr(found, "__path__") and find_spec(module):
        return _import(module, path)
    owner = getattr(found, "__name__", repr(found))
    near = get_close_matches(part, dir(found), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{path!r} cannot be found: {owner} has no {part!r}{hint}")


def _import(module: str, path: str) -> ModuleType:
    try:
        return import_module(module)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == module:
            hint = "is its package installed for the Python that runs this, or its directory in PYTHONPATH?"
            raise ValueError(f"{path!r} cannot be found: the module {module!r} does not exist; {hint}") from error
        raise ValueError(f"{path!r} cannot be imported: {module} fails with {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
