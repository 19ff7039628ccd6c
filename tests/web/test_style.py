"""The page's colours: text can be read in the light and in the dark."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import amqtt_db

STYLE = (Path(amqtt_db.__file__).parent / "web" / "static" / "style.css").read_text(encoding="utf-8")
THEMES = [
    dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6,8});", part)) for part in STYLE.split("prefers-color-scheme: dark")
]
TEXTS = [
    (text, paper)
    for text in ("ink", "quiet", "accent", "bad", "good")
    for paper in ("paper", "sheet", "bad-soft", "good-soft")
    if not paper.startswith(("bad", "good")) or text in {"ink", paper.removesuffix("-soft")}
]


def luminance(color: str) -> float:
    """How bright a colour is, from 0 to 1 (WCAG 2.2, relative luminance)."""
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, from 1 to 21."""
    darker, brighter = sorted((luminance(one), luminance(other)))
    return (brighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("theme", THEMES, ids=["light", "dark"])
@pytest.mark.parametrize(("text", "paper"), TEXTS)
def test_text_stands_out(text: str, paper: str, theme: dict[str, str]) -> None:
    """By a contrast of at least 4.5, as WCAG 2.2 asks for (AA)."""
    assert contrast(theme[text], theme[paper]) >= 4.5


@pytest.mark.parametrize("theme", THEMES, ids=["light", "dark"])
def test_shapes_stand_out(theme: dict[str, str]) -> None:
    """The curve and the words on a button, too; states are named beside their colours."""
    assert contrast(theme["accent"], theme["sheet"]) >= 3
    assert contrast(theme["paper"], theme["accent"]) >= 4.5
