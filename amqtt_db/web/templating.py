"""The templates, and how values are written in them.  Everything is escaped for HTML."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from amqtt_db import tagged
from amqtt_db.errors import format_count
from amqtt_db.web.chart import COLORS, HEIGHT
from amqtt_db.web.pages import COLUMNS, link

_LONGEST: Final = 200  # characters of a value
_UNITS: Final = ("B", "kB", "MB", "GB", "TB")


def make_templates() -> Environment:
    """Return the environment of the templates."""
    made = Environment(
        loader=PackageLoader("amqtt_db.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        ago=format_ago,
        bytes=format_bytes,
        count=format_count,
        number=format_number,
        plain=make_visible,
        value=format_json,
        when=format_moment,
        whole=format_whole,
    )
    made.globals.update(link=link, COLUMNS=COLUMNS, HEIGHT=HEIGHT, COLORS=COLORS)
    return made


def make_visible(text: str | bytes) -> str:
    """Return text with everything that cannot be seen escaped: no reversed writing, no hidden characters."""
    decoded = text.decode("utf-8", "backslashreplace") if isinstance(text, bytes) else text
    return "".join(
        letter if letter.isprintable() or letter == "\n" else letter.encode("unicode_escape").decode()
        for letter in decoded
    )


def format_json(value: Any) -> str:
    """Return a value as JSON, text without quotes; a long one is cut."""
    text = make_visible(value if isinstance(value, str) else tagged.dumps(value))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def format_number(value: float) -> str:
    """Return a number for people: six digits, thousands apart."""
    text = f"{value:,.6g}" if abs(value) < 1e15 else f"{value:.6g}"
    return text.replace(",", "\u202f").replace("-", "−")


def format_whole(value: int) -> str:
    """Return a whole number, thousands apart."""
    return f"{value:,}".replace(",", "\u202f")


def format_bytes(size: float) -> str:
    """Return a size with its unit."""
    for unit in _UNITS[:-1]:
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} {_UNITS[-1]}"


def format_moment(time: datetime) -> str:
    """Return a time in UTC, with as many digits of a second as it has."""
    text = time.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
    return f"{text}.{time.microsecond:06d}".rstrip("0") if time.microsecond else text


def format_ago(seconds: float) -> str:
    """Return a length of time in the largest unit that fits."""
    for name, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {name}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
