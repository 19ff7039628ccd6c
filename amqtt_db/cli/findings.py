"""What `check` finds in a configuration before it looks at anything else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from amqtt_db import config
from amqtt_db.cli.taken import find_config
from amqtt_db.config import Settings
from amqtt_db.config.broker_start import find_start_problems, find_surprises
from amqtt_db.config.yaml_checks import read_yaml
from amqtt_db.config.yaml_lines import add_lines, find_lines
from amqtt_db.database.engines.urls import file_problem, problem
from amqtt_db.errors import ConfigError, Problem


@attrs.frozen
class Findings:
    """A document, its settings (None if they are wrong), every mistake in it, and what may surprise."""

    document: Any
    settings: Settings | None
    problems: tuple[Problem, ...]
    notes: tuple[Problem, ...]


def examine(source: str | None) -> Findings:
    """Return what is found in a file, or in the configuration that a broker's URL means.

    Raises ConfigError if it cannot be read.
    """
    if source is not None and "://" in source:
        return _examine(config.bridge_to(source), None)
    path = find_config(None if source is None else Path(source))
    return _examine(config.broker_config(None) if path is None else read_yaml(path), path)


def find_obstacles(settings: Settings) -> Iterator[str]:
    """Yield why the files and the database that the settings name cannot be used on this machine now."""
    files = (("journal", settings.journal.path), ("log", settings.log.file))
    reasons = (problem(settings.database), *(file_problem(name, path) for name, path in files if path is not None))
    return (reason for reason in reasons if reason is not None)


def _examine(document: Any, path: Path | None) -> Findings:
    settings, problems, notes = _load_findings(document, "the configuration" if path is None else str(path))
    if isinstance(document, Mapping) and not config.is_bridge(document):
        problems, notes = (*problems, *find_start_problems(document)), (*find_surprises(document), *notes)
    lines = {} if path is None else find_lines(path)
    return Findings(document, settings, add_lines(problems, lines), add_lines(notes, lines))


def _load_findings(document: Any, name: str) -> tuple[Settings | None, tuple[Problem, ...], tuple[Problem, ...]]:
    try:
        settings = config.load_document(document, name)
    except ConfigError as error:
        return None, error.problems, error.notes
    return settings, (), settings.notes
