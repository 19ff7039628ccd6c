"""Every value has the kind that its type says."""

from __future__ import annotations

from typing import Any

import pytest

from amqtt_db.record import Kind, kind_of


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (True, "bool"),
        (1, "number"),
        (2**53, "number"),
        (2**53 + 1, "int64"),
        (-(2**63), "int64"),
        (2**63, "bigint"),
        (1.5, "number"),
        ("x", "text"),
        (None, None),
        ([], "json"),
        ({}, "json"),
    ],
)
def test_kinds_of_undeclared_values(value: Any, kind: Kind | None) -> None:
    """true is distinguished from 1, and integers beyond a double from other numbers."""
    assert kind_of(value) == kind


def test_a_foreign_type_has_no_kind() -> None:
    """The error names the type."""
    with pytest.raises(TypeError, match="complex"):
        kind_of(1j)
