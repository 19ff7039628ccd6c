"""Write the pages that list every key of the YAML and every command, from the code that reads them.

usage: python docs/reference.py
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
import typer.main

from amqtt_db.cli import app
from amqtt_db.config.json_schema import make_schema
from amqtt_db.config.payload import SPELLINGS

HERE: Final = Path(__file__).parent

_KEYS: Final = """\
# All keys

Every key of the YAML, and what it may hold; `python docs/reference.py` writes this page from the code that reads them.
[Configuration](configuration.md) explains them with examples.
`amqtt-db schema` prints the same as a JSON Schema, for your editor.
"""
_COMMANDS: Final = """\
# All commands

Every command with its arguments and options; `python docs/reference.py` writes this page from the code that reads them.
[Operating](operating.md) and [Reading](reading.md) explain the commands with examples.
All take `-h`.
"""
_SECTIONS: Final[Mapping[str, str]] = {
    "section": "The file, or the plugin's section, which names no broker",
    "route": "A route",
    "broker": "A broker to subscribe to",
    "tls": "`tls` of a broker",
    "journal": "`journal`",
    "writer": "`writer`",
    "keep": "`keep` at the top level",
    "log": "`log`",
    "metrics": "`metrics`",
    "web": "`web`",
    "hypertable": "`hypertable` of a route",
    "property": "A declared property",
}
"""The parts of the schema that are mappings of keys → their headings, in the order of the page."""

_NAMED: Final[Mapping[str, str]] = {"model": "Models", "decode": "Decoders"}
_WORDS: Final[Mapping[str, str]] = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "object": "a mapping",
    "string": "text",
}
_SPELLINGS: Final = {name for names in SPELLINGS.values() for name in names} - {"true", "false"}
_EXPLAINED: Final[Mapping[str, str]] = {
    "booleans": "configuration.md#booleans-numbers-and-timezone",
    "brokers": "bridge.md",
}
"""Parts of the schema that are not explained under a heading of their name on the page of the configuration."""

_DURATION: Final = r"^\s*\d+"


def keys_page() -> str:
    """Return the page of all keys."""
    schema = make_schema()
    parts = {**schema["$defs"], "section": schema["then"]}
    lines = [_KEYS]
    for part, heading in _SECTIONS.items():
        lines += [f"## {heading}", "", *_key_table(_properties(parts[part])), ""]
    for part, heading in _NAMED.items():
        lines += [f"## {heading}", "", *_option_tables(parts[part]), ""]
    return "\n".join(lines).rstrip() + "\n"


def _properties(part: Mapping[str, Any]) -> Mapping[str, Any]:
    return part["properties"] if "properties" in part else part["then"]["properties"]


def _key_table(properties: Mapping[str, Any]) -> Iterator[str]:
    yield from ("| Key | Holds | |", "| --- | --- | --- |")
    for name, schema in properties.items():
        if name not in _SPELLINGS:
            yield _row([f"`{name}`", _accepted(schema), schema.get("description", "")])


def _option_tables(part: Mapping[str, Any]) -> Iterator[str]:
    meanings = {one["const"]: one["description"] for one in part["anyOf"] if "const" in one}
    options = next(one["properties"] for one in part["anyOf"] if "properties" in one)
    yield from ("| Name | | Options |", "| --- | --- | --- |")
    for name, schema in options.items():
        told = [f"`{key}`: {one.get('description', _accepted(one))}" for key, one in schema["properties"].items()]
        yield _row([f"`{name}`", meanings.get(name, ""), "<br>".join(told)])


def _accepted(schema: Mapping[str, Any]) -> str:
    """Return in a few words what a schema accepts; a part of its own has a heading on the page, or is explained."""
    if "$ref" in schema:
        return _linked(schema["$ref"].rpartition("/")[2])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"] if value is not None)
    if "anyOf" in schema:
        kinds = (_accepted(one) for one in schema["anyOf"] if one.get("type") != "null")
        return " or ".join(dict.fromkeys(kinds))
    if schema.get("pattern", "").startswith(_DURATION):
        return "a length of time" if "[sS]" in schema["pattern"] else "a size"
    types = schema.get("type", "string")
    return " or ".join(_WORDS[one] for one in ([types] if isinstance(types, str) else types) if one != "null")


def _linked(part: str) -> str:
    heading = {**_SECTIONS, **_NAMED}.get(part)
    if heading is None:
        place = _EXPLAINED.get(part, f"configuration.md#{part}")
        return f"[see there]({place})"
    anchor = heading.casefold().replace("`", "").replace(",", "").replace("'", "").replace(" ", "-")
    return f"[see below](#{anchor})"


def commands_page() -> str:
    """Return the page of all commands."""
    lines = [_COMMANDS]
    for name, command in _commands(typer.main.get_command(app), "amqtt-db"):
        lines += [f"## `{name}`", "", _paragraphs(command.help), "", *_parameter_table(command.params)]
    return "\n".join(lines).rstrip() + "\n"


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield all commands without subcommands, each with its full name."""
    below = getattr(command, "commands", None)
    if below is None:
        yield name, command
        return
    for key, one in below.items():
        yield from _commands(one, f"{name} {key}")


def _paragraphs(text: str | None) -> str:
    """Return text with a line for each sentence."""
    joined = "\n\n".join(" ".join(part.split()) for part in (text or "").split("\n\n"))
    return re.sub(r"([a-z`)]\.) (?=[A-Z])", "\\1\n", joined)


def _parameter_table(parameters: Sequence[click.Parameter]) -> Iterator[str]:
    shown = [one for one in parameters if one.name not in {"help", "install_completion", "show_completion"}]
    if not shown:
        return
    yield from ("| | |", "| --- | --- |")
    for one in shown:
        is_option = one.param_type_name == "option"
        name = (
            ", ".join(f"`{option}`" for option in (*one.opts, *one.secondary_opts))
            if is_option
            else f"`{(one.name or '').upper()}`"
        )
        yield _row([name, " ".join((getattr(one, "help", None) or "").split())])
    yield ""


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


PAGES: Final = {"keys.md": keys_page, "commands.md": commands_page}


def main() -> None:
    """Write the pages."""
    for name, make in PAGES.items():
        (HERE / name).write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    main()
