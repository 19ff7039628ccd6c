"""The configuration: defaults, every mistake at once, and nothing secret shown."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from amqtt_db import config
from amqtt_db.config import JournalSettings, masked
from amqtt_db.errors import ConfigError
from amqtt_db.models.base import Model
from amqtt_db.models.wide import Wide
from amqtt_db.route_config import covers
from amqtt_db.topics import TopicFilter
from amqtt_db.yaml_checks import size


@attrs.frozen
class Picky(Wide):
    """A model of a user's own, with options of several types."""

    depth: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    names: tuple[str, ...] = ()


@attrs.frozen
class Needy(Wide):
    """A model with an option that has no default."""

    owner: str = attrs.field(kw_only=True)


def problems(mapping: Any) -> dict[str, str]:
    """Path below the plugin's section → message, for every mistake in it."""
    with pytest.raises(ConfigError) as caught:
        config.load(mapping, where="P")
    return {problem.path.removeprefix("P."): problem.message for problem in caught.value.problems}


def route_problems(**route: Any) -> dict[str, str]:
    """The same for the only route of a configuration."""
    found = problems({"routes": [{"topic": "t", **route}]})
    return {path.removeprefix("routes[0]").removeprefix("."): message for path, message in found.items()}


def write(directory: Path, text: str) -> Path:
    """A YAML file with ``text``."""
    path = directory / "broker.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("mapping", [None, {}, {"database": None, "journal": None, "routes": None}])
def test_everything_has_a_default(mapping: Mapping[str, Any] | None) -> None:
    """An empty section stores every topic with ``wide`` in SQLite; None is what is absent."""
    settings = config.load(mapping)
    assert settings.database == "sqlite:///mqtt.db"
    assert settings.journal == JournalSettings(Path("mqtt.journal"), 2**30, "always")
    (route,) = settings.routes
    assert (route.filter.text, route.model, route.entity, route.time, route.each) == ("#", Wide(), None, None, None)
    assert (route.unknown, route.mismatch, route.max_columns, route.max_tables) == ("add", "variant", None, 1000)
    assert route.decode(b'{"a": 1}') == {"a": 1}
    assert settings.notes == ()


def test_the_embedded_default_says_the_same() -> None:
    """The broker without a file stores what an empty section would, on this machine only."""
    document = config.broker_config(None)
    assert document["listeners"]["default"]["bind"] == "127.0.0.1:1883"
    settings, default = config.load_document(document), config.load(None)
    assert (settings.database, settings.journal) == (default.database, default.journal)
    assert settings.routes == default.routes


def test_the_embedded_default_is_a_copy() -> None:
    """Whoever changes what they got changes nobody else's."""
    config.broker_config(None)["plugins"].clear()
    assert "amqtt_db.Plugin" in config.broker_config(None)["plugins"]


def test_every_setting_arrives() -> None:
    """What is written in the YAML is what the settings hold."""
    settings = config.load(
        {
            "database": "sqlite:////var/lib/mqtt.db",
            "journal": {"path": "/var/spool/j", "max_size": "64 kB", "sync": "1s"},
            "routes": [
                {
                    "topic": "home/{room}/climate",
                    "model": {"wide": {"table": "climate"}},
                    "decode": ["gzip", "json"],
                    "entity": {"temp": "float", "current time": {"type": "datetime", "format": "epoch_s"}},
                    "time": "current time",
                    "each": "",
                    "unknown": "reject",
                    "mismatch": "null",
                    "max_columns": 50,
                    "max_tables": 7,
                }
            ],
        }
    )
    (route,) = settings.routes
    assert settings.sqlite_path == Path("/var/lib/mqtt.db")
    assert settings.journal == JournalSettings(Path("/var/spool/j"), 64_000, "1s")
    assert route.filter.names == ("room",)
    assert route.model == Wide(table="climate")
    assert route.entity is not None
    assert route.entity.declared == {"temp", "current time"}
    assert (route.time, route.each) == ("current time", "")
    assert (route.unknown, route.mismatch, route.max_columns, route.max_tables) == ("reject", "null", 50, 7)


def test_unknown_defaults_to_extra_with_an_entity() -> None:
    """A declared route keeps undeclared properties, but out of its columns."""
    (route,) = config.load({"routes": [{"topic": "t", "entity": {"a": "int"}}]}).routes
    assert route.unknown == "extra"


def test_mismatch_null_needs_no_quotes() -> None:
    """YAML reads ``mismatch: null`` as nothing; the policy of that name is meant."""
    (route,) = config.load(yaml.safe_load("routes: [{topic: t, mismatch: null}]")).routes
    assert route.mismatch == "null"


def test_every_mistake_is_reported_at_once() -> None:
    """One run names all mistakes, each with its path, the expectation and the nearest valid name."""
    found = problems(
        {
            "databse": "sqlite:///x.db",
            "database": 5,
            "journal": {"max_sise": 1, "sync": "allways", "max_size": "1 GiBB"},
            "routes": [
                {"topic": "a/#/b", "unknwon": "add"},
                {"model": "wdie", "unknown": "extras", "max_tables": "7"},
                {"topic": "x", "decode": "jsno", "entity": {"a": "flaot"}, "mismatch": 3, "max_columns": 0},
                "t",
                None,
            ],
        }
    )
    assert found == {
        "databse": "unknown key; did you mean 'database'?",
        "database": "expected text, found a whole number",
        "journal.max_sise": "unknown key; did you mean 'max_size'?",
        "journal.sync": "expected one of always, 1s, never, found 'allways'; did you mean 'always'?",
        "journal.max_size": "unknown unit 'GiBB'; there are B, kB, MB, GB, TB, KiB, MiB, GiB, TiB",
        "routes[0].topic": "'a/#/b' is no topic filter: '#' must be the last level",
        "routes[0].unknwon": "unknown key; did you mean 'unknown'?",
        "routes[1].topic": "missing; expected an MQTT topic filter such as 'home/{room}/climate'",
        "routes[1].model": "'wdie' is unknown; did you mean 'wide'?, or a dotted path to your own",
        "routes[1].unknown": "expected one of add, extra, ignore, reject, found 'extras'; did you mean 'extra'?",
        "routes[1].max_tables": "expected a whole number, found text",
        "routes[2].decode": "'jsno' is unknown; did you mean 'json'?, or a dotted path to your own",
        "routes[2].entity.a": "'flaot' is no type; did you mean 'float'?",
        "routes[2].mismatch": "expected one of variant, null, reject, found a whole number",
        "routes[2].max_columns": "expected 1 or more, found 0",
        "routes[3]": "expected a mapping, found text",
        "routes[4]": "expected a mapping, found nothing",
    }


@pytest.mark.parametrize(
    ("section", "path", "message"),
    [
        ("x", "P", "expected a mapping, found text"),
        ({"routes": {"topic": "t"}}, "routes", "expected a list, found a mapping"),
        ({"routes": []}, "routes", "expected at least one route; leave `routes` out to store everything"),
        ({"journal": ["a"]}, "journal", "expected a mapping, found a list"),
        ({"sync": "1s"}, "sync", "belongs into `journal: {sync: …}`"),
        ({"topic": "t"}, "topic", "belongs into an entry of the list `routes:`"),
    ],
)
def test_a_section_of_the_wrong_form(section: Any, path: str, message: str) -> None:
    """A list where a mapping belongs, and keys at the wrong level, are explained where they stand."""
    assert problems(section)[path] == message


@pytest.mark.parametrize("key", ["hypertable", "keep"])
def test_what_is_not_available_yet_says_so(key: str) -> None:
    """A known setting that nothing implements yet is refused, never silently ignored."""
    assert route_problems(**{key: "90 days"})[key].startswith("not available yet")


def test_table_beside_the_model_is_explained() -> None:
    """``table:`` belongs to the model; the message shows how."""
    assert route_problems(table="climate") == {
        "table": "the table is an option of the model: write `model: {wide: {table: NAME}}`"
    }


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("mqtt.db", "expected a URL such as sqlite:///mqtt.db"),
        ("", "found an empty one"),
        ("sqlite://", "in memory"),
        ("sqlite:///", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:///x?mode=memory", "in memory"),
        ("sqlite://mqtt.db", "three slashes"),
        ("sqlite:///file:x.db?uri=true", "name the file itself"),
        ("sqlite+aiosqlite:///x.db", "Python's own driver"),
        ("postgresql+psycopg://u:secret@h/d", "postgresql is not available yet"),
        ("mysql://u:secret@h/d", "mysql is not available yet"),
        ("mariadb://u:secret@h/d", "mariadb is not available yet"),
        ("sqllite:///x.db", "did you mean 'sqlite'?"),
        ("oracle://u:secret@h/d", "unknown database 'oracle'"),
    ],
)
def test_a_database_that_cannot_be_used(url: str, part: str) -> None:
    """A bad URL is named, with what to write instead, and nothing of its password."""
    (message,) = problems({"database": url}).values()
    assert part in message
    assert "secret" not in message


def test_environment_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """``${NAME}`` expands in the database and the journal's path."""
    monkeypatch.setenv("DATA_PLACE", "/srv/data")
    settings = config.load({"database": "sqlite:///${DATA_PLACE}/m.db", "journal": {"path": "${DATA_PLACE}/j"}})
    assert settings.database == "sqlite:////srv/data/m.db"
    assert settings.journal.path == Path("/srv/data/j")


def test_unset_environment_variables_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each variable that is not set is a mistake of its own, with its name."""
    monkeypatch.delenv("NO_SUCH_A", raising=False)
    monkeypatch.delenv("NO_SUCH_B", raising=False)
    with pytest.raises(ConfigError) as caught:
        config.load({"database": "sqlite:///${NO_SUCH_A}/${NO_SUCH_B}"})
    assert [problem.message for problem in caught.value.problems] == [
        "the environment variable NO_SUCH_A is not set",
        "the environment variable NO_SUCH_B is not set",
    ]


def test_values_of_environment_variables_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a variable holds may be a password; a URL that is none is not repeated."""
    monkeypatch.setenv("DATABASE", "hunter2")
    (message,) = problems({"database": "${DATABASE}"}).values()
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:hunter2@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:hun:t/er@2@host/db", "postgresql://me:***@host/db"),
        ("postgresql://:hunter2@host/db", "postgresql://:***@host/db"),
        ("postgresql://host/db?password=hunter2&x=1", "postgresql://host/db?password=***&x=1"),
        ("postgresql://host/db?x=1&sslpassword=hunter2", "postgresql://host/db?x=1&sslpassword=***"),
        ("sqlite:///mqtt.db", "sqlite:///mqtt.db"),
        ("sqlite:////a:b@c.db", "sqlite:////a:b@c.db"),
        ("hunter2", "***"),
    ],
)
def test_masked(url: str, shown: str) -> None:
    """A URL is shown without its passwords, however odd they are."""
    assert masked(url) == shown


@given(st.text(st.characters(exclude_characters="*"), min_size=6))
def test_masked_never_shows_a_password(password: str) -> None:
    """No password, whatever characters it has, survives masking."""
    url = masked(f"postgresql://somebody:{password}@localhost/db")
    assert url == "postgresql://somebody:***@localhost/db"


def test_the_repr_hides_the_password() -> None:
    """Settings in a log or a traceback show no password."""
    settings = attrs.evolve(config.load(None), database="postgresql://me:hunter2@host/db")
    assert "hunter2" not in repr(settings)
    assert "me:***@host" in repr(settings)


@pytest.mark.parametrize(
    ("given_size", "expected"),
    [
        (5, 5), ("5", 5), ("5B", 5), ("64 kB", 64_000), ("64 KB", 64_000), ("1 GiB", 2**30), ("512MiB", 512 * 2**20),
        ("1.5 GiB", 3 * 2**29), ("2 TB", 2 * 10**12),
    ],
)  # fmt: skip
def test_sizes(given_size: object, expected: int) -> None:
    """Bytes as a number, or with a unit."""
    assert size(given_size) == expected


@pytest.mark.parametrize("given_size", [True, 1.5, -1, "-1", "much", "1 GiB please", [], "", "1 pound"])
def test_sizes_that_are_none(given_size: object) -> None:
    """Anything else is a mistake."""
    with pytest.raises(ValueError, match=r"expected a size|unknown unit"):
        size(given_size)


def test_a_model_of_ones_own() -> None:
    """A dotted path names a model; its options are its fields, structured into their types."""
    model = f"{__name__}.Picky"
    (route,) = config.load({"routes": [{"topic": "t", "model": {model: {"depth": 3, "names": ["a", "b"]}}}]}).routes
    assert route.model == Picky(depth=3, names=("a", "b"))


@pytest.mark.parametrize(
    ("model", "path", "part"),
    [
        ({f"{__name__}.Picky": {"depth": "3"}}, "depth", "expected a whole number, found text"),
        ({f"{__name__}.Picky": {"depth": True}}, "depth", "expected a whole number, found true or false"),
        ({f"{__name__}.Picky": {"depth": 0}}, "", "must be >= 1"),
        ({f"{__name__}.Picky": {"detph": 1}}, "detph", "did you mean 'depth'?"),
        ({f"{__name__}.Needy": {}}, "owner", "missing; the model needs it"),
        ({f"{__name__}.Needy": None}, "owner", "missing; the model needs it"),
        ({"wide": {"table": 3}}, "table", "expected text, found a whole number"),
        ({"wide": {"tabel": "x"}}, "tabel", "did you mean 'table'?"),
        ({"wide": ["table"]}, "", "expected a mapping, found a list"),
    ],
)
def test_options_of_a_model(model: dict[str, Any], path: str, part: str) -> None:
    """Options have the types of the model's fields, and only the names that it has."""
    ((where, message),) = route_problems(model=model).items()
    (name,) = model
    assert where == ".".join(filter(None, ("model", name, path)))
    assert part in message


@pytest.mark.parametrize(
    ("model", "part"),
    [
        (5, "expected text, found a whole number"),
        ({"wide": {}, "narrow": {}}, "expected one model"),
        ("pathlib.Path", "is not a model"),
        ("no.such.Model", "there is no module 'no'"),
    ],
)
def test_what_is_no_model(model: Any, part: str) -> None:
    """Whatever else stands for a model is explained."""
    assert part in route_problems(model=model)["model"]


@pytest.mark.parametrize(
    ("table", "part"),
    [
        ("mqtt_topic", "a table of amqtt_db itself"),
        ("MQTT_Journal", "a table of amqtt_db itself"),
        ("sqlite_x", "belong to the database"),
        ("pg_x", "belong to the database"),
        ("a\x00b", "control characters"),
        ("", "empty"),
        ("mqtt_message", "a table of amqtt_db itself"),
    ],
)
def test_reserved_tables(table: str, part: str) -> None:
    """No route may take the tables of the project or of the database."""
    assert part in route_problems(model={"wide": {"table": table}})["model.wide.table"]


@pytest.mark.parametrize("prefix", ["sqlite", "MQTT", "a\nb"])
def test_reserved_prefixes(prefix: str) -> None:
    """Nor may a prefix lead to one of them."""
    assert route_problems(model={"eav": {"prefix": prefix}}).keys() == {"model.eav.prefix"}


def test_routes_that_share_a_table_must_agree() -> None:
    """Different entities in one table are a mistake that names both routes."""
    shared = {"wide": {"table": "climate"}}
    found = problems(
        {
            "routes": [
                {"topic": "a", "model": shared, "entity": {"temp": "float"}},
                {"topic": "b", "model": {"wide": {"table": "Climate"}}, "entity": {"temp": "float"}},
                {"topic": "c", "model": shared, "entity": {"temp": "int"}},
                {"topic": "d", "model": shared, "entity": {"temp": "float"}},
            ]
        }
    )
    assert found.keys() == {"routes[1].model", "routes[2].entity"}
    assert all("shares the table" in message and "P.routes[0]" in message for message in found.values())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"wide": {"table": "house_message"}}, {"eav": {"prefix": "house"}}),
        ({"document": {"prefix": "a"}}, {"wide": {"table": "A_document"}}),
    ],
)
def test_tables_of_different_models_must_not_meet(first: Any, second: Any) -> None:
    """Whatever makes the name of a table, two models do not share it unless they mean the same table."""
    found = problems({"routes": [{"topic": "a", "model": first}, {"topic": "b", "model": second}]})
    assert "their models or options differ" in found["routes[1].model"]


def test_models_that_share_on_purpose() -> None:
    """``eav`` and ``narrow`` share the table of messages, and routes of one model all its tables."""
    entries = [("a", "eav"), ("b", "narrow"), ("c", "eav"), ("d", "document"), ("e", "document")]
    routes = [{"topic": topic, "model": model, "entity": {topic: "int"}} for topic, model in entries]
    assert len(config.load({"routes": routes}).routes) == 5


def test_time_must_be_declared() -> None:
    """Where an entity says what there is, ``time`` is one of it."""
    found = route_problems(entity={"measured": "datetime"}, time="mesured")
    assert found == {"time": "the entity declares no property 'mesured'; did you mean 'measured'?"}


def test_routes_that_never_match_are_remarked_on() -> None:
    """A route behind one that takes all its topics is allowed, and noted."""
    settings = config.load({"routes": [{"topic": "a/{b}"}, {"topic": "a/x"}, {"topic": "#"}, {"topic": "c"}]})
    assert [note.path for note in settings.notes] == [
        "plugins.amqtt_db.Plugin.routes[1].topic",
        "plugins.amqtt_db.Plugin.routes[3].topic",
    ]


_levels = st.sampled_from(["a", "b", "+"])
_filters = st.builds(
    lambda levels, rest: "/".join([*levels, *rest]),
    st.lists(_levels, max_size=3),
    st.sampled_from([["#"], ["a"]]),
)
_topics = st.builds("/".join, st.lists(st.sampled_from(["a", "b", "c", ""]), min_size=1, max_size=5))


@given(_filters, _filters, st.lists(_topics, min_size=1, max_size=20))
def test_a_covered_filter_matches_nothing_more(general: str, special: str, topics: list[str]) -> None:
    """If one filter covers another, every topic of the other is its topic too."""
    if covers(general, special):
        first, second = TopicFilter.parse(general), TopicFilter.parse(special)
        assert all(first.match(topic) is not None for topic in topics if second.match(topic) is not None)


@pytest.mark.parametrize(
    ("general", "special", "expected"),
    [
        ("#", "a/b", True), ("#", "#", True), ("a/#", "a", True), ("a/#", "a/+/c", True), ("a/+", "a/b", True),
        ("a/+", "a/#", False), ("a/b", "a/+", False), ("a", "a/b", False), ("+", "a/b", False), ("#", "$SYS/#", False),
    ],
)  # fmt: skip
def test_covers(general: str, special: str, expected: bool) -> None:
    """The cases that people write."""
    assert covers(general, special) is expected


@pytest.mark.parametrize(
    "plugins",
    [
        "plugins: {amqtt_db.Plugin: {database: 'sqlite:///a.db'}}",
        "plugins: {amqtt_db.plugin.Plugin: {database: 'sqlite:///a.db'}}",
        "plugins:\n  - amqtt.plugins.authentication.AnonymousAuthPlugin\n  - amqtt_db.Plugin: {database: 'sqlite:///a.db'}",
    ],
)
def test_a_whole_file(tmp_path: Path, plugins: str) -> None:
    """The plugin's section is found in a mapping and in a list, under both of its names."""
    path = write(tmp_path, plugins)
    assert config.load_file(path).database == "sqlite:///a.db"
    assert config.broker_config(path) == yaml.safe_load(plugins)


def test_a_plugin_without_settings(tmp_path: Path) -> None:
    """A bare name in a list of plugins has the defaults."""
    assert config.load_file(write(tmp_path, "plugins: [amqtt_db.Plugin]")).database == "sqlite:///mqtt.db"


@pytest.mark.parametrize(
    ("text", "path", "part"),
    [
        ("", "plugins", "there is no section amqtt_db.Plugin; add"),
        ("plugins: {}", "plugins", "there is no section amqtt_db.Plugin; add"),
        ("plugins: {amqtt_db.Plugins: {}}", "plugins", "found 'amqtt_db.Plugins'; did you mean 'amqtt_db.Plugin'?"),
        ("plugins: {amqtt_db.Plugin: {}, amqtt_db.plugin.Plugin: {}}", "plugins", "twice"),
        ("listners: {}\nplugins: {amqtt_db.Plugin: {}}", "listners", "did you mean 'listeners'?"),
        ("plugins: {amqtt_db.Plugin: {databse: x}}", "plugins.amqtt_db.Plugin.databse", "did you mean 'database'?"),
        ("plugins: [amqtt_db.Plugin: {sync: x}]", "plugins[0].amqtt_db.Plugin.sync", "belongs into `journal:"),
        ("listeners: {a: {}}\nplugins: {amqtt_db.Plugin: {}}", "listeners", "a listener with the name `default`"),
        (
            "listeners: {default: {bnd: x}}\nplugins: {amqtt_db.Plugin: }",
            "listeners.default.bnd",
            "did you mean 'bind'?",
        ),
    ],
)
def test_mistakes_in_a_whole_file(tmp_path: Path, text: str, path: str, part: str) -> None:
    """What is wrong around the section, or keeps it from being found, has its path too."""
    with pytest.raises(ConfigError) as caught:
        config.load_file(write(tmp_path, text))
    ((found, message),) = [(problem.path, problem.message) for problem in caught.value.problems]
    assert found == path
    assert part in message


def test_what_only_amqtt_would_refuse(tmp_path: Path) -> None:
    """A value that amqtt's own configuration refuses is reported before the broker starts."""
    text = "listeners: {default: {max_connections: many}}\nplugins: {amqtt_db.Plugin: {}}"
    with pytest.raises(ConfigError, match=r"amqtt refuses it: .*max_connections"):
        config.load_file(write(tmp_path, text))


def test_mistakes_around_and_in_the_section_together(tmp_path: Path) -> None:
    """Both kinds of mistakes come at once."""
    with pytest.raises(ConfigError) as caught:
        config.broker_config(write(tmp_path, "listners: {}\nplugins: {amqtt_db.Plugin: {journal: 5}}"))
    assert [problem.path for problem in caught.value.problems] == ["listners", "plugins.amqtt_db.Plugin.journal"]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a: b: c", "line 1, column 5"),
        ("a: {\n  b: 1\n", "line 3, column 1"),
        ("a: 1\na: 2", "line 2, column 1: is not YAML: the key 'a' is here twice"),
        ("a: \t\x00", "is not YAML"),
        ("- a\n- b", "expected a mapping, found a list"),
    ],
)
def test_what_is_no_yaml(tmp_path: Path, text: str, part: str) -> None:
    """A syntax error is reported with its line and column."""
    with pytest.raises(ConfigError) as caught:
        config.load_file(write(tmp_path, text))
    assert part in str(caught.value)
    assert "broker.yaml" in str(caught.value)


def test_merged_mappings_are_not_twice(tmp_path: Path) -> None:
    """YAML's merge key may bring a key that is overridden."""
    text = "x-: &base {unknown: add, topic: a}\nplugins: {amqtt_db.Plugin: {routes: [{<<: *base, topic: b}]}}"
    with pytest.raises(ConfigError, match="x-: unknown key"):
        config.load_file(write(tmp_path, text))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A file that is missing, a directory or not UTF-8 is a mistake like others."""
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        config.load_file(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        config.load_file(tmp_path)
    (tmp_path / "latin").write_bytes(b"a: \xe4")
    with pytest.raises(ConfigError, match="is not UTF-8 text: byte 4"):
        config.load_file(tmp_path / "latin")


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
_route_keys = st.sampled_from(
    ["topic", "model", "decode", "entity", "time", "each", "unknown", "mismatch", "max_tables"]
)
_sections = st.fixed_dictionaries(
    {},
    optional={
        "database": _json,
        "journal": _json | st.fixed_dictionaries({}, optional={"path": _json, "max_size": _json, "sync": _json}),
        "routes": _json | st.lists(st.dictionaries(_route_keys, _json, max_size=5), max_size=3),
    },
)


@given(_json | _sections)
def test_any_data_is_settings_or_problems(section: Any) -> None:
    """Whatever stands in the section, the answer is settings or ConfigError, never another exception."""
    try:
        config.load(section)
    except ConfigError as error:
        found = error.problems
    else:
        return
    assert found
    assert all(problem.message for problem in found)


def test_the_broker_does_without_sqlalchemy() -> None:
    """Reading the configuration, as the broker's process does, imports no SQLAlchemy."""
    code = "import sys; from amqtt_db import config; config.load(None); sys.exit('sqlalchemy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_models_are_what_the_registry_says() -> None:
    """The built-in name means the built-in class."""
    (route,) = config.load({"routes": [{"topic": "t", "model": "wide"}]}).routes
    assert isinstance(route.model, Model)
    assert type(route.model) is Wide
