"""Engines and the rest of a test's parameters, pair by pair: ``--all-pairs`` runs every combination.

A test of four models on three engines runs twelve times.  By default it runs eight times: each model on SQLite and on
one server, and which server that is differs from model to model and from test to test.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final
from zlib import crc32

import pytest

ROTATED: Final = ("mysql", "postgresql")
"""The servers that take turns."""


def left_out(items: Iterable[pytest.Item]) -> Iterator[pytest.Item]:
    """Yield the tests that another server's turn makes unnecessary."""
    groups: dict[str, dict[tuple[str, ...], list[tuple[str, pytest.Item]]]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        test, *parts = re.split(r"[-\[\]]", item.nodeid)
        file, *classes, name = test.split("::")  # the laws of a model are the methods of its class
        for server in {*ROTATED}.intersection(parts):
            variant = (*classes, *(part for part in parts if part != server))
            groups[f"{file}::{name}"][variant].append((server, item))
    for test, variants in groups.items():
        if len(variants) > 1:
            for number, found in enumerate(variants.values(), crc32(test.encode())):
                yield from (
                    item for server, item in found if len(found) > 1 and server != ROTATED[number % len(ROTATED)]
                )
