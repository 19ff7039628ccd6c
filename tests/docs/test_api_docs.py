"""The page on stable interfaces lists exactly what the package exports."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

import amqtt_db
from amqtt_db import errors
from tests.docs.test_docs import ROOT

PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


def first_cells(heading: str) -> set[str]:
    """Return the names in the first column of the tables of a section."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))


def test_the_page_lists_what_the_package_exports() -> None:
    """`dir(amqtt_db)` and the page agree, and every name can be imported."""
    assert first_cells("Python") == set(dir(amqtt_db)) == set(amqtt_db.__all__)
    assert all(getattr(amqtt_db, name) is not None for name in dir(amqtt_db))


def test_the_page_names_errors_that_exist() -> None:
    """Each error on the page exists and derives from the root error."""
    for name in first_cells("Errors"):
        assert issubclass(getattr(errors, name), errors.AmqttDbError)


def test_importing_the_package_imports_neither_amqtt_nor_sqlalchemy() -> None:
    """Names are imported on first use."""
    code = "import sys, amqtt_db; dir(amqtt_db); sys.exit(bool({'amqtt', 'sqlalchemy', 'attrs'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_public_functions_have_docstrings() -> None:
    """`help()` works."""
    assert all(inspect.getdoc(getattr(amqtt_db, name)) for name in ("read", "follow", "export", "load_settings"))
