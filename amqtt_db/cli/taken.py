"""Which configuration a command uses: the one that it is given, or else the first that it finds."""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Final

import typer

from amqtt_db.cli.show import escape_text
from amqtt_db.errors import ConfigError, Problem
from amqtt_db.registry import search_last

CONFIG_VARIABLE: Final = "AMQTT_DB_CONFIG"
_LIKE_URL: Final = re.compile(r"(mqtts?|wss?):/{0,2}(?!/)(.+)")
SEARCHED: Final = ("amqtt-db.yaml", "broker.yaml")


def find_config(given: Path | None) -> Path | None:
    """Return the YAML file to read, or None for the built-in configuration; unless it was given, say on stderr which.

    From now on, Python modules are also found next to it.  Raises ConfigError if there is no such file.
    """
    path = given
    if path is None:
        path, why = _look_around()
        typer.echo(f"configuration: {'built-in' if path is None else escape_text(str(path))} ({why})", err=True)
    if path is not None:
        if not path.exists() or path.is_dir():
            url = _LIKE_URL.match(str(path))  # a path has lost its second slash
            raise ConfigError(Problem(f"{url[1]}://{url[2]}" if url else str(path), explain_missing(path)))
        search_last(str(path.resolve().parent))
    return path


def explain_missing(path: Path) -> str:
    """Return why a path names no configuration, and what may have been meant."""
    if path.is_dir():
        inside = [str(path / name) for name in SEARCHED if (path / name).exists()]
        return f"is a directory; write the name of the YAML file{''.join(f', such as {name}' for name in inside[:1])}"
    url = _LIKE_URL.match(str(path))
    if url:
        return (
            f"is not a file; if you mean the broker, write {url[1]}://{url[2]}, which `run`, `check` and `init` take: "
            "the other commands take the YAML file"
        )
    if not path.suffix and (":" in path.name or path.name == "localhost"):
        return f"is not a file; if you mean the broker, write mqtt://{path}"
    around = sorted(str(one) for end in ("yaml", "yml") for one in path.parent.glob(f"*.{end}"))
    near = get_close_matches(str(path), around, 1) or around[:1]
    return f"does not exist{''.join(f'; did you mean {name}?' for name in near)}"


def _look_around() -> tuple[Path | None, str]:
    """Return the file to use without an argument (None: there is none), and why it is this one."""
    named = os.environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named), f"from {CONFIG_VARIABLE}"
    for name in SEARCHED:
        if Path(name).exists():
            return Path(name), "found here"
    return None, f"there is no {' and no '.join(SEARCHED)} here"
