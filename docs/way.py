"""Draw one message's way from its publisher to those who read it: docs/images/way.svg, for light and dark screens.

usage: python docs/way.py
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Final

import attrs

IMAGE: Final = Path(__file__).parent / "images" / "way.svg"

_WIDTH, _HEIGHT = 960, 372
_STYLE: Final = """
.page{fill:#fff} .room{fill:#f4f2ec;stroke:#c9c5ba} .box{fill:#fff;stroke:#8a8f98} .name{fill:#111;font-weight:bold}
.note{fill:#555} .way{stroke:#0b6e73;fill:none} .tip{fill:#0b6e73}
@media (prefers-color-scheme: dark){
.page{fill:#131416} .room{fill:#1d1f22;stroke:#43474d} .box{fill:#26292d;stroke:#7b8189} .name{fill:#f2f2f2}
.note{fill:#b9bdc3} .way{stroke:#5cc4c9} .tip{fill:#5cc4c9}}
""".replace("\n", "")


@attrs.frozen
class _Box:
    """A box with a name and lines below it; a room holds boxes."""

    name: str
    lines: Sequence[str]
    left: int
    top: int
    width: int
    height: int
    is_room: bool = False


@attrs.frozen
class _Arrow:
    """A way from one point to another."""

    points: Sequence[tuple[int, int]]
    is_back: bool = False


BOXES: Final = (
    _Box("broker or bridge", (), 140, 20, 210, 196, is_room=True),
    _Box("writer", (), 400, 20, 330, 332, is_room=True),
    _Box("publisher", ("a PUBLISH",), 8, 66, 108, 56),
    _Box("ingest", ("plugin in amqtt, or", "bridge to any broker"), 156, 56, 178, 66),
    _Box("journal", ("its bytes, on disk",), 156, 142, 178, 56),
    _Box("1 decode", ("bytes become plain data",), 416, 56, 298, 48),
    _Box("2 deserialize", ("plain data becomes typed values",), 416, 120, 298, 48),
    _Box("3 structure", ("the route's model says which rows",), 416, 184, 298, 48),
    _Box("4 generate", ("one transaction, with the checkpoint",), 416, 248, 298, 48),
    _Box(
        "database",
        ("tables, views,", "newest values, sums,", "dead letters with", "step and reason"),
        786,
        184,
        160,
        112,
    ),
    _Box("readers", ("page, Grafana, SQL,", "read, query, export"), 786, 56, 160, 66),
)
ARROWS: Final = (
    _Arrow(((116, 84), (156, 84))),
    _Arrow(((156, 108), (116, 108)), is_back=True),
    _Arrow(((230, 122), (230, 142))),
    _Arrow(((262, 142), (262, 122)), is_back=True),
    _Arrow(((334, 170), (376, 170), (376, 80), (416, 80))),
    _Arrow(((565, 104), (565, 120))),
    _Arrow(((565, 168), (565, 184))),
    _Arrow(((565, 232), (565, 248))),
    _Arrow(((714, 272), (786, 272))),
    _Arrow(((866, 184), (866, 122))),
)
NOTES: Final = (
    (10, 140, "PUBACK, once the"),
    (10, 156, "journal has it"),
    (416, 322, "What cannot be stored becomes a dead letter;"),
    (416, 338, "all else of its batch is stored."),
)


def draw() -> str:
    """Return the image."""
    return "\n".join(_parts())


def _parts() -> Iterator[str]:
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" font-family="system-ui, sans-serif" font-size="13">'
    )
    yield f"<style>{_STYLE}</style>"
    yield f'<rect class="page" width="{_WIDTH}" height="{_HEIGHT}"/>'
    for box in BOXES:
        yield from _box(box)
    for arrow in ARROWS:
        yield from _arrow(arrow)
    for left, top, text in NOTES:
        yield f'<text class="note" x="{left}" y="{top}">{escape(text)}</text>'
    yield "</svg>\n"


def _box(box: _Box) -> Iterator[str]:
    place = f'x="{box.left}" y="{box.top}" width="{box.width}" height="{box.height}"'
    yield f'<rect class="{"room" if box.is_room else "box"}" {place} rx="6"/>'
    yield f'<text class="name" x="{box.left + 12}" y="{box.top + 22}">{escape(box.name)}</text>'
    for number, line in enumerate(box.lines):
        yield f'<text class="note" x="{box.left + 12}" y="{box.top + 40 + 17 * number}">{escape(line)}</text>'


def _arrow(arrow: _Arrow) -> Iterator[str]:
    """Yield a line, dashed if it is an acknowledgement, with its tip."""
    points = " ".join(f"{left},{top}" for left, top in arrow.points)
    dashes = ' stroke-dasharray="4 3"' if arrow.is_back else ""
    yield f'<polyline class="way" points="{points}" stroke-width="1.8"{dashes}/>'
    (from_left, from_top), (left, top) = arrow.points[-2:]
    across, down = (left > from_left) - (left < from_left), (top > from_top) - (top < from_top)
    back, side = (left - 8 * across, top - 8 * down), (4 * down, 4 * across)
    corners = [(left, top), (back[0] - side[0], back[1] - side[1]), (back[0] + side[0], back[1] + side[1])]
    yield f'<polygon class="tip" points="{" ".join(f"{x},{y}" for x, y in corners)}"/>'


if __name__ == "__main__":
    IMAGE.write_text(draw(), encoding="utf-8")
