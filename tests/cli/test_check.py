"""`check` sees what `run` would refuse, and what has another effect than one would think, all at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from amqtt.plugins.base import BasePlugin

from tests.cli.test_cli import configuration, invoke

FILE_PLUGIN = "amqtt.plugins.authentication.FileAuthPlugin"
ANONYMOUS = "amqtt.plugins.authentication.AnonymousAuthPlugin"
ENTITY = {"t": "float"}


class NoPlugin:
    """A class of another kind."""


class Needy(BasePlugin[Any]):
    """A plugin whose configuration is not a dataclass."""

    class Config:
        """Not one."""


def write(directory: Path, plugins: dict[str, Any], listeners: dict[str, Any] | None = None, **section: Any) -> Path:
    """A configuration with other plugins and listeners."""
    path = configuration(directory, **section)
    document = yaml.safe_load(path.read_text())
    document["plugins"] = {**plugins, "amqtt_db.Plugin": document["plugins"]["amqtt_db.Plugin"]}
    document["listeners"] = document["listeners"] if listeners is None else listeners
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize(
    ("plugins", "says"),
    [
        ({FILE_PLUGIN: {"password_file": "nowhere"}}, "FileAuthPlugin.password_file: Password file 'nowhere' not"),
        ({FILE_PLUGIN: {"pasword_file": "x"}}, "pasword_file: unknown key; did you mean 'password_file'?"),
        ({ANONYMOUS: {"allow_anonymous": "yes"}}, f"{ANONYMOUS}.allow_anonymous: expected true or false, found text"),
        ({ANONYMOUS: 5}, f"{ANONYMOUS}: expected a mapping, found a whole number"),
        ({"amqtt.plugins.authentication.FileAuthPlugn": {}}, "did you mean 'FileAuthPlugin'?"),
        ({"nowhere.Plugin": {}}, "the module 'nowhere' does not exist"),
        ({f"{__name__}.NoPlugin": {}}, "is not a plugin for amqtt"),
        ({f"{__name__}.Needy": {}}, "`Config` is not a dataclass"),
    ],
)  # fmt: skip
def test_other_plugins_that_amqtt_would_refuse(tmp_path: Path, plugins: dict[str, Any], says: str) -> None:
    """A missing file, a mistyped option, a wrong type, no plugin at all: mistakes with their lines, like our own."""
    path = write(tmp_path, plugins, databse="x")
    result = invoke("check", path)
    assert result.exit_code == 2
    mistakes = [line for line in result.stderr.splitlines() if not line.startswith("note: ")]
    assert len(mistakes) == 2
    assert mistakes[0].endswith("databse: unknown key; did you mean 'database'?")
    assert says in mistakes[1]
    number = int(mistakes[1].removeprefix("line ").partition(":")[0])
    assert next(iter(plugins)) in "".join(path.read_text().splitlines()[number - 2 : number])


@pytest.mark.parametrize(
    ("plugins", "bind", "is_open"),
    [
        ({ANONYMOUS: {}}, "0.0.0.0:1883", True),
        ({ANONYMOUS: {"allow_anonymous": True}}, "192.168.1.2:1883", True),
        ({ANONYMOUS: None}, None, True),
        ({ANONYMOUS: {}}, "127.0.0.1:1883", False),
        ({ANONYMOUS: {}}, "localhost:1883", False),
        ({ANONYMOUS: {}}, "[::1]:1883", False),
        ({ANONYMOUS: {"allow_anonymous": False}}, "0.0.0.0:1883", False),
        ({ANONYMOUS: {}, "tests.ingest.broker.test_plugin.Doorman": {}}, "0.0.0.0:1883", False),
    ],
)
def test_a_broker_that_lets_anybody_in_is_remarked_on(
    tmp_path: Path, plugins: dict[str, Any], bind: str | None, is_open: bool
) -> None:
    """Unless only this machine reaches it, or another plugin asks who is there."""
    listeners = {"default": {"type": "tcp", **({} if bind is None else {"bind": bind})}}
    result = invoke("check", write(tmp_path, plugins, listeners))
    assert (result.exit_code, "may publish and subscribe without a password" in result.stderr) == (0, is_open)


def test_a_certificate_that_is_missing_or_wrong(tmp_path: Path) -> None:
    """TLS without a certificate, or with a file that is none, is a mistake."""
    (tmp_path / "x").write_text("no certificate")
    for options in ({}, {"certfile": str(tmp_path / "x"), "keyfile": str(tmp_path / "x")}):
        listeners = {"default": {"type": "tcp", "bind": "127.0.0.1:0", "ssl": True, **options}}
        result = invoke("check", write(tmp_path, {ANONYMOUS: {}}, listeners))
        assert (result.exit_code, "listeners.default.certfile: " in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("route", "says"),
    [
        ({"unknown": "reject"}, "unknown: has no effect without `entity`"),
        ({"mismatch": "null"}, "mismatch: has no effect without `entity`"),
        ({"entity": ENTITY, "mismatch": None}, "mismatch: is empty"),
        ({"model": "eav", "max_columns": 5}, "max_columns: has no effect"),
        ({"model": "narrow", "max_tables": 5}, "max_tables: has no effect"),
        ({"entity": ENTITY, "unknown": "reject", "mismatch": "null", "max_columns": 5, "max_tables": 5}, None),
    ],
)
def test_keys_without_effect_are_remarked_on(tmp_path: Path, route: dict[str, Any], says: str | None) -> None:
    """In the first pass, beside a mistake elsewhere; without one the exit code is 0."""
    path = configuration(tmp_path, routes=[{"topic": "a", **route}])
    alone = invoke("check", path)
    assert alone.exit_code == 0
    assert len(alone.stderr.splitlines()) == (0 if says is None else 1)
    assert says is None or says in alone.stderr
    beside = invoke("check", configuration(tmp_path, routes=[{"topic": "a", **route}], databse="x"))
    assert (beside.exit_code, says is None or says in beside.stderr) == (2, True)
    told = json.loads(invoke("check", configuration(tmp_path, routes=[{"topic": "a", **route}]), "--json").stdout)
    assert len(told["notes"]) == (0 if says is None else 1)


def test_files_that_cannot_be_made_are_found(tmp_path: Path) -> None:
    """The journal, the database and the log, together; the exit code is 1."""
    section: dict[str, Any] = {
        "journal": {"path": str(tmp_path / "no" / "journal")},
        "database": f"sqlite:///{tmp_path}/none/mqtt.db",
        "log": {"file": str(tmp_path / "never" / "log")},
    }
    path = configuration(tmp_path, **section)
    result = invoke("check", path)
    assert result.exit_code == 1
    assert all(name in result.stderr for name in ("no/journal", "none/mqtt.db", "never/log"))
    assert len(json.loads(invoke("check", path, "--json").stdout)["obstacles"]) == 3


def test_what_a_routes_keys_do_is_shown(tmp_path: Path) -> None:
    """For each key one line, and all of it as JSON."""
    routes = [
        {
            "topic": "solar/{device}/{property}", "property": "{property}", "latest": True, "only": "changes",
            "deadband": {"power": 5}, "at_least_every": "10 min", "gather": "10 s", "indexes": [["device", "time"]],
            "raw": True, "properties": True, "decode": ["gzip", "json"],
        },
        {"topic": "plain"},
    ]  # fmt: skip
    path = configuration(tmp_path, routes=routes)
    shown = invoke("check", path).stdout
    assert shown[shown.index("solar/{device}/{property}:") :].splitlines() == [
        "solar/{device}/{property}:",
        '  decode: ["gzip", "json"]',
        "  property: {property} names the value; a device is a topic without these levels",
        "  latest: a row for each device keeps the newest value of each property",
        "  only: stores messages that change a value, power by more than 5, and one after 10 min in any case",
        "  gather: the view has a row for each device and 10 s",
        "  indexes: {device}, time",
        "  raw: payloads are also kept as they came",
        "  properties: each record has the MQTT 5 properties of its message",
    ]
    first, second = json.loads(invoke("check", path, "--json").stdout)["routes"]
    wanted = {
        "property": "{property}", "latest": [], "only": "changes", "deadband": {"power": 5.0}, "at_least_every": 600.0,
        "gather": 10.0, "indexes": [["{device}", "time"]], "raw": True, "properties": True,
        "decode": '["gzip", "json"]',
    }  # fmt: skip
    assert {name: first[name] for name in wanted} == wanted
    assert (second["property"], second["latest"], second["only"]) == (None, None, None)
