"""Which configuration a command uses: the one that it is given, or else the first that it finds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import typer

from amqtt_db.cli.show import escape_text
from amqtt_db.registry import search_last

CONFIG_VARIABLE: Final = "AMQTT_DB_CONFIG"
SEARCHED: Final = ("amqtt-db.yaml", "broker.yaml")


def find_config(given: Path | None) -> Path | None:
    """Return the YAML file to read, or None for the built-in configuration; unless it was given, say on stderr which.

    From now on, Python modules are also found next to it.
    """
    path = given
    if path is None:
        path, why = _look_around()
        typer.echo(f"configuration: {'built-in' if path is None else escape_text(str(path))} ({why})", err=True)
    if path is not None:
        search_last(str(path.resolve().parent))
    return path


def _look_around() -> tuple[Path | None, str]:
    """Return the file to use without an argument (None: there is none), and why it is this one."""
    named = os.environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named), f"from {CONFIG_VARIABLE}"
    for name in SEARCHED:
        if Path(name).exists():
            return Path(name), "found here"
    return None, f"there is no {' and no '.join(SEARCHED)} here"
