"""A whole broker's YAML file: finding the plugin's section, and what is wrong around it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from amqtt_db import config
from amqtt_db.errors import ConfigError


def write(directory: Path, text: str) -> Path:
    """A YAML file with ``text``."""
    path = directory / "broker.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "plugins",
    [
        "plugins: {amqtt_db.Plugin: {database: 'sqlite:///a.db'}}",
        "plugins: {amqtt_db.ingest.broker.plugin.Plugin: {database: 'sqlite:///a.db'}}",
        "plugins:\n  - amqtt.plugins.authentication.AnonymousAuthPlugin\n  - amqtt_db.Plugin: {database: 'sqlite:///a.db'}",
    ],
)
def test_a_whole_file(tmp_path: Path, plugins: str) -> None:
    """The plugin's section is found in a mapping and in a list, under both of its names."""
    path = write(tmp_path, plugins)
    assert config.load_settings(path).database == "sqlite:///a.db"
    assert config.broker_config(path) == yaml.safe_load(plugins)


def test_a_plugin_without_settings(tmp_path: Path) -> None:
    """A bare name in a list of plugins has the defaults."""
    assert config.load_settings(write(tmp_path, "plugins: [amqtt_db.Plugin]")).database == "sqlite:///mqtt.db"


@pytest.mark.parametrize(
    ("text", "path", "part"),
    [
        ("", "plugins", "the section amqtt_db.Plugin is missing; add"),
        ("plugins: {}", "plugins", "the section amqtt_db.Plugin is missing; add"),
        ("plugins: {amqtt_db.Plugins: {}}", "plugins", "found 'amqtt_db.Plugins'; did you mean 'amqtt_db.Plugin'?"),
        ("plugins: {amqtt_db.Plugin: {}, amqtt_db.ingest.broker.plugin.Plugin: {}}", "plugins", "twice"),
        ("listners: {}\nplugins: {amqtt_db.Plugin: {}}", "listners", "did you mean 'listeners'?"),
        ("plugins: {amqtt_db.Plugin: {databse: x}}", "plugins.amqtt_db.Plugin.databse", "did you mean 'database'?"),
        ("plugins: [amqtt_db.Plugin: {sync: x}]", "plugins[0].amqtt_db.Plugin.sync", "belongs in `journal:"),
        ("listeners: {a: {}}\nplugins: {amqtt_db.Plugin: {}}", "listeners", "a listener named `default`"),
        (
            "listeners: {default: {bnd: x}}\nplugins: {amqtt_db.Plugin: }",
            "listeners.default.bnd",
            "did you mean 'bind'?",
        ),
        (
            "listeners: {default: {type: tpc}}\nplugins: {amqtt_db.Plugin: }",
            "listeners.default.type",
            "expected one of tcp, ws, external, found 'tpc'; did you mean 'tcp'?",
        ),
        (
            "listeners: {default: {}, b: {certfile: x}}\nplugins: {amqtt_db.Plugin: }",
            "listeners.b",
            "both are required",
        ),
        ("plugins:\n  amqtt_db.Plugin:\n  routes: [topic: t]", "plugins.routes", "belongs under amqtt_db.Plugin"),
        ("plugins: [amqtt_db.Plugin, writer: {}]", "plugins[1].writer", "belongs under amqtt_db.Plugin"),
        ("journal: {}\nplugins: {amqtt_db.Plugin: {}}", "journal", "belongs under plugins.amqtt_db.Plugin"),
        ("password: x\nplugins: {amqtt_db.Plugin: {}}", "password", "belongs in `broker: {url: …, password: …}`"),
        ("broker: mqtt://a\npassword: x", "password", "belongs in `broker: {url: …, password: …}`"),
        ("broker: mqtt://a\nbrocker: x", "brocker", "did you mean 'broker'?"),
        ("broker: a.b:8883", "broker", "write mqtts://a.b:8883"),
        ("broker: mqtt://a\njournal: x.db", "journal", "expected a mapping such as `{path: mqtt.journal}`"),
    ],
)
def test_mistakes_in_a_whole_file(tmp_path: Path, text: str, path: str, part: str) -> None:
    """A mistake outside the section, or one that hides it, has its path too."""
    with pytest.raises(ConfigError) as caught:
        config.load_settings(write(tmp_path, text))
    ((found, message),) = [(problem.path, problem.message) for problem in caught.value.problems]
    assert found == path
    assert part in message


def test_what_only_amqtt_would_refuse(tmp_path: Path) -> None:
    """A value that amqtt's own configuration refuses is reported before the broker starts."""
    text = "listeners: {default: {max_connections: many}}\nplugins: {amqtt_db.Plugin: {}}"
    with pytest.raises(ConfigError, match=r"^line 1: listeners\.default: amqtt rejects it: .*max_connections"):
        config.load_settings(write(tmp_path, text))
    text = "timeout_disconnect_delay: soon\nplugins: {amqtt_db.Plugin: {}}"
    with pytest.raises(ConfigError, match=r"^amqtt rejects it: .*timeout_disconnect_delay"):
        config.load_settings(write(tmp_path, text))


def test_mistakes_around_and_in_the_section_together(tmp_path: Path) -> None:
    """Both kinds of mistakes are reported together."""
    with pytest.raises(ConfigError) as caught:
        config.broker_config(write(tmp_path, "listners: {}\nplugins: {amqtt_db.Plugin: {journal: 5}}"))
    assert [problem.path for problem in caught.value.problems] == ["listners", "plugins.amqtt_db.Plugin.journal"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: b: c", "line 1, column 5"),
        ("a: {\n  b: 1\n", "line 3, column 1"),
        ("a: 1\na: 2", "line 2, column 1: is not YAML: the key 'a' appears twice"),
        ("a: \t\x00", "is not YAML"),
        ("a: {topic: a/{b}/{c}}", "put quotes around a value that contains {"),
        ("a:\n\tb: 1", "indent with spaces, not tabs"),
        ("a:\n  - b: 1\n   c: 2", "is not indented like those that it belongs to"),
        ("a: 2026-13-01", "month must be in 1..12"),
        ("[" * 10_000, "nested too deeply"),
        ("- a\n- b", "expected a mapping, found a list"),
    ],
)
def test_what_is_no_yaml(tmp_path: Path, text: str, part: str) -> None:
    """A syntax error is reported with its line and column."""
    with pytest.raises(ConfigError) as caught:
        config.load_settings(write(tmp_path, text))
    assert part in str(caught.value)
    assert "broker.yaml" in str(caught.value)


def test_merged_mappings_are_not_twice(tmp_path: Path) -> None:
    """YAML's merge key may bring a key that is overridden."""
    text = "x-: &base {unknown: add, topic: a}\nplugins: {amqtt_db.Plugin: {routes: [{<<: *base, topic: b}]}}"
    with pytest.raises(ConfigError, match="x-: unknown key"):
        config.load_settings(write(tmp_path, text))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A file that is missing, a directory or not UTF-8 is a mistake like others."""
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        config.load_settings(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        config.load_settings(tmp_path)
    (tmp_path / "latin").write_bytes(b"a: \xe4")
    with pytest.raises(ConfigError, match="is not UTF-8 text: byte 4"):
        config.load_settings(tmp_path / "latin")


@given(text=st.text() | st.text("{}[]:-, \n&*<!'\"#aA0|>?%@", max_size=30))
def test_any_file_is_settings_or_problems(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Whatever a file holds, the answer is settings or ConfigError, never another exception."""
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(ConfigError):
        config.load_settings(path)
