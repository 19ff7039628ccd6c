"""The templates, and how values are written in them.  Everything is escaped for HTML."""

from __future__ import annotations

from datetime import datetime, timezone
from math import isfinite
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from amqtt_db import tagged
from amqtt_db.errors import format_count
from amqtt_db.web.chart import COLORS, HEIGHT
from amqtt_db.web.pages import PLOT_BINS, link, name_model

_LONGEST_TEXT: Final = 200  # characters of a value
_SHORT_TEXT: Final = 40
_BYTE_UNITS: Final = ("B", "kB", "MB", "GB", "TB")


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
        ddl=format_ddl,
        model=name_model,
        number=format_number,
        plain=make_visible,
        rate=format_rate,
        short=format_short,
        value=format_json,
        when=format_moment,
        whole=format_whole,
    )
    made.globals.update(link=link, PLOT_BINS=PLOT_BINS, HEIGHT=HEIGHT, COLORS=COLORS)
    return made


def make_visible(text: str | bytes) -> str:
    """Return text with everything that cannot be seen escaped: no reversed writing, no hidden characters."""
    decoded = text.decode("utf-8", "backslashreplace") if isinstance(text, bytes) else text
    return "".join(
        letter if letter.isprintable() or letter == "\n" else letter.encode("unicode_escape").decode()
        for letter in decoded
    )


def format_ddl(statement: str) -> str:
    """Return a statement as people read it: indented by spaces, with its semicolon."""
    return f"{make_visible(statement.strip().expandtabs(2))};"


def format_json(value: Any) -> str:
    """Return a value as JSON, text without quotes; a long one is cut."""
    text = make_visible(value if isinstance(value, str) else tagged.dumps(value).removesuffix(".0"))
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"


def format_short(value: Any) -> str:
    """Return a value in few characters, where many stand beside each other."""
    text = format_number(value) if isinstance(value, float) and isfinite(value) else format_json(value)
    return text if len(text) <= _SHORT_TEXT else f"{text[:_SHORT_TEXT]}…"


def format_number(value: float) -> str:
    """Return a number for people: six digits, thousands apart."""
    text = f"{value:,.6g}" if abs(value) < 1e15 else f"{value:.6g}"
    return text.replace(",", "\u202f").replace("-", "−")


def format_whole(value: int) -> str:
    """Return a whole number, thousands apart."""
    return f"{value:,}".replace(",", "\u202f")


def format_rate(value: float) -> str:
    """Return a rate: three digits, or all before the point."""
    return format_whole(round(value)) if value >= 100 else f"{value:.3g}"


def format_bytes(size: float) -> str:
    """Return a size with its unit."""
    for unit in _BYTE_UNITS[:-1]:
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} {_BYTE_UNITS[-1]}"


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
