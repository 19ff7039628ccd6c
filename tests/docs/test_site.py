"""The documentation as a website: it builds without a warning, and what is made from the code is up to date."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", ["keys.md", "commands.md"])
def test_the_reference_is_what_the_code_says(name: str) -> None:
    """`python docs/reference.py` writes it."""
    pages = runpy.run_path(str(DOCS / "reference.py"))["PAGES"]
    assert (DOCS / name).read_text(encoding="utf-8") == pages[name]()


def test_the_pictures_of_the_models_are_what_the_code_says() -> None:
    """`python docs/diagrams.py` draws them."""
    drawing = runpy.run_path(str(DOCS / "diagrams.py"))
    assert drawing["MODELS"]
    for name, model in drawing["MODELS"].items():
        assert (DOCS / "images" / f"{name}.svg").read_text(encoding="utf-8") == drawing["draw"](model)


def test_the_picture_of_the_way_is_what_the_code_draws() -> None:
    """`python docs/way.py` draws it."""
    drawn = runpy.run_path(str(DOCS / "way.py"))["draw"]()
    assert (DOCS / "images" / "way.svg").read_text(encoding="utf-8") == drawn


@pytest.mark.slow
def test_the_site_builds_and_every_page_is_one_click_away(tmp_path: Path) -> None:
    """Each link leads somewhere, and the first page links to all others."""
    command = [sys.executable, "-m", "sphinx", "--quiet", "--nitpicky", "--fail-on-warning", str(DOCS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 0
    first = (tmp_path / "index.html").read_text(encoding="utf-8")
    pages = {page.stem for page in DOCS.glob("*.md")} - {"index"}
    assert pages <= set(re.findall(r'href="([\w-]+)\.html"', first))
