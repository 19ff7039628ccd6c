"""Draw the tables of each built-in model, from the model itself: docs/images/NAME.svg.

usage: python docs/diagrams.py
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Final

import attrs

from amqtt_db.models.base import Destination, Lookup, Model
from amqtt_db.models.binding import BoundTable, bind
from amqtt_db.models.document import Document
from amqtt_db.models.eav import Eav
from amqtt_db.models.narrow import Narrow
from amqtt_db.models.wide import Wide
from amqtt_db.record import Shape

IMAGES: Final = Path(__file__).parent / "images"
MODELS: Final[dict[str, Model]] = {"wide": Wide("climate"), "document": Document(), "eav": Eav(), "narrow": Narrow()}
SHAPE: Final = Shape((("temp", "number"), ("mode", "text"), ("{room}", "text")))
"""What the route home/{room}/climate may have stored."""

_WIDTH, _GAP, _LINE, _TOP = 190, 70, 20, 34


@attrs.frozen
class _Line:
    """A column in a box: its text, whether it is in the key, and the name of the box that it refers to."""

    text: str
    is_key: bool = False
    refers_to: str | None = None


@attrs.frozen
class _Box:
    """A table at a place in the drawing."""

    name: str
    lines: Sequence[_Line]
    left: int = 0
    top: int = 0

    @property
    def height(self) -> int:
        """The box's height."""
        return _TOP + _LINE * len(self.lines) + 8


def draw(model: Model) -> str:
    """Return an SVG image of a model's tables: its own, its detail tables, and the lookup tables that give ids."""
    main, *details = bind(model, Destination("climate"), timed=False).tables(SHAPE)
    columns = [_lookup_boxes([main]), [_table_box(main, None)], [_table_box(one, main.name) for one in details]]
    columns.append(_lookup_boxes(details))
    drawn = [column for column in columns if column]
    return "\n".join(_svg([_place(box, left, column) for left, column in enumerate(drawn) for box in column]))


def _place(box: _Box, place: int, column: Sequence[_Box]) -> _Box:
    """Return a box at its place: in which column of the drawing, below the boxes before it."""
    above = sum(other.height + 20 for other in column[: column.index(box)])
    return attrs.evolve(box, left=place * (_WIDTH + _GAP), top=above)


def _lookup_boxes(tables: Sequence[BoundTable]) -> list[_Box]:
    lookups = {column.lookup: None for table in tables for column in table.columns if column.lookup}
    return [_lookup_box(lookup) for lookup in lookups]


def _table_box(table: BoundTable, main: str | None) -> _Box:
    lines = []
    for column in table.columns:
        name = _lookup_name(column.lookup) if column.lookup else main if main and column.name == "id" else None
        kind = "id" if column.lookup else column.kind
        lines.append(_Line(f"{column.name}  {kind}", column.name in table.primary_key, name))
    lines += [_Line(f"{path.strip('{}')}  {kind}") for path, kind in table.properties]
    return _Box(table.name, lines)


def _lookup_box(lookup: Lookup) -> _Box:
    lines = [_Line("id  int64", is_key=True), *(_Line(f"{name}  text") for name in lookup.columns)]
    return _Box(_lookup_name(lookup), lines)


def _lookup_name(lookup: Lookup) -> str:
    return lookup.name if lookup.name.startswith("mqtt_") else f"mqtt_{lookup.name}"


def _svg(boxes: Sequence[_Box]) -> Iterator[str]:
    width = max(box.left for box in boxes) + _WIDTH + 4
    height = max(box.top + box.height for box in boxes) + 4
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-2 -2 {width} {height}" width="{width}" height="{height}" '
        'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="12">'
    )
    yield f'<rect x="-2" y="-2" width="{width}" height="{height}" fill="#fff"/>'
    places = {box.name: box for box in boxes}
    for box in boxes:
        for number, line in enumerate(box.lines):
            if line.refers_to in places:
                yield _arrow(box, number, places[line.refers_to])
    for box in boxes:
        yield from _box_parts(box)
    yield "</svg>\n"


def _arrow(box: _Box, number: int, target: _Box) -> str:
    """Return a curve from a column to the first column of another table, on its left or right."""
    y, to = box.top + _TOP + _LINE * number + 10, target.top + _TOP + 10
    start, end = (box.left + _WIDTH, target.left) if target.left > box.left else (box.left, target.left + _WIDTH)
    bend = (start + end) // 2
    curve = f"M{start} {y}C{bend} {y} {bend} {to} {end} {to}"
    return f'<path d="{curve}" fill="none" stroke="#0b6e73" stroke-width="1.5"/>'


def _box_parts(box: _Box) -> Iterator[str]:
    place = f'x="{box.left}" y="{box.top}" width="{_WIDTH}"'
    yield f'<rect {place} height="{box.height}" rx="5" fill="#fbfaf6" stroke="#8a8f98"/>'
    yield f'<text x="{box.left + 10}" y="{box.top + 21}" font-weight="bold" fill="#111">{escape(box.name)}</text>'
    for number, line in enumerate(box.lines):
        y = box.top + _TOP + _LINE * number + 14
        style = ' text-decoration="underline"' if line.is_key else ""
        name, _, kind = line.text.partition("  ")
        yield f'<text x="{box.left + 10}" y="{y}" fill="#111"{style}>{escape(name)}</text>'
        yield f'<text x="{box.left + _WIDTH - 10}" y="{y}" fill="#666" text-anchor="end">{escape(kind)}</text>'


def main() -> None:
    """Write the images."""
    IMAGES.mkdir(exist_ok=True)
    for name, model in MODELS.items():
        (IMAGES / f"{name}.svg").write_text(draw(model), encoding="utf-8")


if __name__ == "__main__":
    main()
