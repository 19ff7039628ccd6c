"""The configuration: defaults, every mistake at once, and nothing secret shown."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
import sqlalchemy as sa
import yaml
from hypothesis import given
from hypothesis import strategies as st

from amqtt_db import config
from amqtt_db.config import JournalSettings, WriterSettings, masked
from amqtt_db.config.yaml_checks import size
from amqtt_db.database.engines.urls import file_of
from amqtt_db.decode import DecoderByLevel, DecoderByProperty, RememberingDecoder
from amqtt_db.errors import ConfigError
from amqtt_db.models.wide import Wide
from amqtt_db.routing.each import Each


def problems(mapping: Any) -> dict[str, str]:
    """Path below the plugin's section → message, for every mistake in it."""
    with pytest.raises(ConfigError) as caught:
        config.load_section(mapping, where="P")
    return {problem.path.removeprefix("P."): problem.message for problem in caught.value.problems}


def route_problems(**route: Any) -> dict[str, str]:
    """The same for the only route of a configuration."""
    found = problems({"routes": [{"topic": "t", **route}]})
    return {path.removeprefix("routes[0]").removeprefix("."): message for path, message in found.items()}


@pytest.mark.parametrize("mapping", [None, {}, {"database": None, "journal": None, "routes": None}])
def test_everything_has_a_default(mapping: Mapping[str, Any] | None) -> None:
    """An empty section stores every topic with ``wide`` in SQLite; None is what is absent."""
    settings = config.load_section(mapping)
    assert settings.database == "sqlite:///mqtt.db"
    assert settings.journal == JournalSettings(Path("mqtt.journal"), 2**30, "always")
    (route,) = settings.routes
    assert (route.filter.text, route.model, route.entity, route.time, route.each) == ("#", Wide(), None, None, None)
    assert (route.unknown, route.mismatch, route.max_columns, route.max_tables) == ("add", "variant", None, 1000)
    assert (route.hypertable, route.keep) == (None, None)
    assert not isinstance(route.decode, (RememberingDecoder, DecoderByLevel, DecoderByProperty))
    assert route.decode(b'{"a": 1}') == {"a": 1}
    assert settings.notes == ()


def test_the_embedded_default_says_the_same() -> None:
    """The broker without a file stores what an empty section would, on this machine only."""
    document = config.broker_config(None)
    assert document["listeners"]["default"]["bind"] == "127.0.0.1:1883"
    settings, default = config.load_document(document), config.load_section(None)
    assert (settings.database, settings.journal) == (default.database, default.journal)
    assert settings.routes == default.routes


def test_the_embedded_default_is_a_copy() -> None:
    """Changing one copy does not change the others."""
    config.broker_config(None)["plugins"].clear()
    assert "amqtt_db.Plugin" in config.broker_config(None)["plugins"]


def test_every_setting_arrives() -> None:
    """The settings hold what the YAML says."""
    settings = config.load_section(
        {
            "database": "sqlite:////var/lib/mqtt.db",
            "journal": {"path": "/var/spool/j", "max_size": "64 kB", "sync": "1s"},
            "writer": {"time_limit": 2.5, "memory_limit": "512 MiB"},
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
    assert file_of(settings.database) == Path("/var/lib/mqtt.db")
    assert settings.journal == JournalSettings(Path("/var/spool/j"), 64_000, "1s")
    assert settings.writer == WriterSettings(2.5, 512 * 2**20)
    assert route.filter.names == ("room",)
    assert route.model == Wide(table="climate")
    assert route.entity is not None
    assert route.entity.declared == {"temp", "current time"}
    assert (route.time, route.each) == ("current time", Each())
    assert (route.unknown, route.mismatch, route.max_columns, route.max_tables) == ("reject", "null", 50, 7)


def test_unknown_defaults_to_extra_with_an_entity() -> None:
    """A declared route keeps undeclared properties, but out of its columns."""
    (route,) = config.load_section({"routes": [{"topic": "t", "entity": {"a": "int"}}]}).routes
    assert route.unknown == "extra"


def test_mismatch_null_needs_no_quotes() -> None:
    """YAML reads ``mismatch: null`` as nothing; the policy of that name is meant."""
    (route,) = config.load_section(yaml.safe_load("routes: [{topic: t, mismatch: null}]")).routes
    assert route.mismatch == "null"


def test_every_mistake_is_reported_at_once() -> None:
    """One run names all mistakes, each with its path, the expectation and the nearest valid name."""
    found = problems(
        {
            "databse": "sqlite:///x.db",
            "database": 5,
            "journal": {"max_sise": 1, "sync": "allways", "max_size": "1 GiBB"},
            "writer": {"time_limit": 0},
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
        "writer.time_limit": "expected a number of seconds above 0, found a whole number",
        "journal.sync": "expected one of always, 1s, never, found 'allways'; did you mean 'always'?",
        "journal.max_size": "unknown unit 'GiBB'; use B, kB, MB, GB, TB, KiB, MiB, GiB, TiB",
        "routes[0].topic": "'a/#/b' is not a topic filter: '#' must be the last level",
        "routes[0].unknwon": "unknown key; did you mean 'unknown'?",
        "routes[1].topic": "missing; expected an MQTT topic filter such as 'home/{room}/climate'",
        "routes[1].model": "'wdie' is unknown and not a dotted path; did you mean 'wide'?",
        "routes[1].unknown": "expected one of add, extra, ignore, reject, found 'extras'; did you mean 'extra'?",
        "routes[1].max_tables": "expected a whole number, found text",
        "routes[2].decode": "'jsno' is unknown and not a dotted path; did you mean 'json'?",
        "routes[2].entity.a": "'flaot' is not a type; did you mean 'float'?",
        "routes[2].mismatch": "expected one of variant, null, reject, found a whole number",
        "routes[2].max_columns": "expected a number from 1 to 10000, found 0",
        "routes[3]": "expected a mapping, found text",
        "routes[4]": "expected a mapping, found nothing",
    }


def test_a_filter_that_yaml_takes_for_a_comment() -> None:
    """`topic: #` without quotes is not text; the message says how to write it."""
    with pytest.raises(ConfigError, match="YAML reads it as a comment: topic: '#'"):
        config.load_section({"routes": [yaml.safe_load("topic: #")]})


@pytest.mark.parametrize(
    ("section", "path", "message"),
    [
        ("x", "P", "expected a mapping, found text"),
        ({"routes": {"topic": "t"}}, "routes", "expected a list, found a mapping"),
        ({"routes": []}, "routes", "expected at least one route; leave `routes` out to store everything"),
        ({"journal": ["a"]}, "journal", "expected a mapping, found a list"),
        ({"sync": "1s"}, "sync", "belongs in `journal: {sync: …}`"),
        ({"topic": "t"}, "topic", "belongs in an entry of the list `routes:`"),
    ],
)
def test_a_section_of_the_wrong_form(section: Any, path: str, message: str) -> None:
    """A list where a mapping belongs, and keys at the wrong level, are explained where they stand."""
    assert problems(section)[path] == message


def test_table_beside_the_model_is_explained() -> None:
    """``table:`` belongs to the model; the message shows how."""
    assert route_problems(table="climate") == {
        "table": "the table is an option of the model: write `model: {wide: {table: NAME}}`"
    }


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("mqtt.db", "not a database URL; expected one such as sqlite:///mqtt.db"),
        ("", "found empty text"),
        ("sqlite://", "in memory"),
        ("sqlite:///", "in memory"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:///x?mode=memory", "in memory"),
        ("sqlite://mqtt.db", "three slashes"),
        ("sqlite:///file:x.db?uri=true", "name the file itself"),
        ("sqlite+aiosqlite:///x.db", "Python's own driver"),
        ("postgresql+psycopg2://u:secret@h/d", "postgresql needs the driver psycopg"),
        ("mysql+mysqldb://u:secret@h/d", "mysql needs the driver pymysql"),
        ("mariadb+asyncmy://u:secret@h/d", "mariadb needs the driver pymysql"),
        ("postgres://u:secret@h/d", "did you mean 'postgresql'?"),
        ("sqllite:///x.db", "did you mean 'sqlite'?"),
        ("oracle://u:secret@h/d", "unknown database 'oracle'"),
        ("mysql://u:secret@h", "it names no database; write mysql://user:password@host/name"),
        ("mariadb+pymysql://u:secret@h:3306/?charset=utf8mb4", "it names no database; write mariadb://"),
    ],
)
def test_a_database_that_cannot_be_used(url: str, part: str) -> None:
    """A bad URL is named, with what to write instead, and nothing of its password."""
    (message,) = problems({"database": url}).values()
    assert part in message
    assert "secret" not in message


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://h/d",
        "postgresql+psycopg://u:p@h/d",
        "postgresql://u:p@h",
        "postgresql:///d?host=/run/postgresql&user=a@b&application_name=c@d",
        "postgresql://u:p@[::1]:5432/d?sslmode",
        "mysql://h/d",
        "mysql+pymysql://u:p/w@h:0/d?charset=utf8",
        "mariadb://u@h:/d",
    ],
)
def test_servers_are_named_with_or_without_their_driver(url: str) -> None:
    """There is one driver for each, so it need not be named."""
    assert config.load_section({"database": url}).database == url


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("postgresql://me:p@top:secret@safe/d", "more than one @"),
        ("postgresql://me:top@secret/x@safe/d", "more than one @"),
        ("postgresql://me:top@secret?x@safe/d", "more than one @"),
        ("postgresql://me@top:secret@safe/d", "more than one @"),
        ("postgresql:///me:top@secret@safe/d", "more than one @"),
        ("mysql://me:top?secret@x@safe/d", "more than one @"),
        ("postgresql://me:secret", "not a number from 0 to 65535"),
        ("postgresql://me:65536/safe", "not a number from 0 to 65535"),
        ("postgresql://me:" + 5000 * "9", "not a number from 0 to 65535"),
        ("mysql://me:p@safe:secret/d", "not a number from 0 to 65535"),
        ("mysql://me:p@safe:٣٣٠٦/secret", "not a number from 0 to 65535"),
    ],
)
def test_a_password_that_is_not_where_it_belongs(url: str, part: str) -> None:
    """Nothing that could be part of it is shown; the message says which characters to encode."""
    (message,) = problems({"database": url}).values()
    assert part in message
    assert "write %40 for @" in message
    assert not any(word in message for word in ("secret", "safe", "top", "me:", "'me'"))


@given(st.text(st.sampled_from("@:/%#[]=&;p1ü ")))
def test_a_written_password_never_becomes_a_host(password: str) -> None:
    """Whatever it contains, the URL is rejected or its host is the intended one."""
    url = f"postgresql://mqtt:{password}@h.example:5432/d"
    try:
        database = config.load_section({"database": url}).database
    except ConfigError:
        return
    read = sa.make_url(database)
    assert (read.username, read.host, read.port, read.database) == ("mqtt", "h.example", 5432, "d")


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")), st.text(st.sampled_from("@:/?%# ü"), min_size=1))
def test_any_password_may_come_from_variables(first: str, second: str) -> None:
    """As a password they are encoded; elsewhere they are inserted unchanged."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"WHO": "mqtt", "FIRST": first, "SECOND": second, "PLACE": "h.example:5432"}.items():
            patch.setenv(name, value)
        url = config.load_section({"database": "postgresql://${WHO}:${FIRST}a%40${SECOND}@${PLACE}/d?x=a@b"}).database
    read = sa.make_url(url)
    assert read.password == f"{first}a@{second}"
    assert (read.username, read.host, read.port, read.database) == ("mqtt", "h.example", 5432, "d")
    assert masked(url).startswith("postgresql://mqtt:***@")


def test_a_variable_may_hold_a_whole_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then its password is as one writes it in a URL."""
    monkeypatch.setenv("DATABASE", "postgresql://mqtt:p%40ss@h/d")
    assert config.load_section({"database": "${DATABASE}"}).database == "postgresql://mqtt:p%40ss@h/d"


def test_a_missing_driver_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that starts without it would only fail later."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    (message,) = problems({"database": "postgresql://u:secret@h/d"}).values()
    assert "pip install 'psycopg[binary]>=3.2'" in message


def test_environment_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """``${NAME}`` expands in the database and the journal's path."""
    monkeypatch.setenv("DATA_PLACE", "/srv/data")
    settings = config.load_section({"database": "sqlite:///${DATA_PLACE}/m.db", "journal": {"path": "${DATA_PLACE}/j"}})
    assert settings.database == "sqlite:////srv/data/m.db"
    assert settings.journal.path == Path("/srv/data/j")


@pytest.mark.parametrize("written", ["half \ud800", "file name of latin-1 \udce4", "null \0"])
def test_what_no_file_can_be_named_by(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a path, a URL or a filter it is a mistake with its path, even if it comes from a variable."""
    monkeypatch.setenv("WHERE", "x")
    given = {
        "database": f"sqlite:///{written}",
        "journal": {"path": "${WHERE}" + written},
        "routes": [{"topic": written}],
    }
    found = problems(given)
    assert found.keys() == {"database", "journal.path", "routes[0].topic"}
    assert all("U+0000" in message or "an unpaired surrogate" in message for message in found.values())


def test_unset_environment_variables_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each variable that is not set is a separate mistake, with its name."""
    monkeypatch.delenv("NO_SUCH_A", raising=False)
    monkeypatch.delenv("NO_SUCH_B", raising=False)
    with pytest.raises(ConfigError) as caught:
        config.load_section({"database": "sqlite:///${NO_SUCH_A}/${NO_SUCH_B}"})
    assert [problem.message for problem in caught.value.problems] == [
        "the environment variable NO_SUCH_A is not set",
        "the environment variable NO_SUCH_B is not set",
    ]


def test_values_of_environment_variables_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable may hold a password, so an invalid URL is not repeated."""
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
    settings = attrs.evolve(config.load_section(None), database="postgresql://me:hunter2@host/db")
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
    assert size("1 B")(given_size) == expected


@pytest.mark.parametrize("given_size", [True, 1.5, -1, "-1", "much", "1 GiB please", [], "", "1 pound", 2**63])
def test_sizes_that_are_none(given_size: object) -> None:
    """Anything else is a mistake."""
    with pytest.raises(ValueError, match=r"expected a size|unknown unit|more than 8 EiB"):
        size("1 B")(given_size)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
_route_keys = st.sampled_from(
    ["topic", "model", "decode", "entity", "time", "each", "unknown", "mismatch", "max_tables", "hypertable", "keep"]
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
        config.load_section(section)
    except ConfigError as error:
        found = error.problems
    else:
        return
    assert found
    assert all(problem.message for problem in found)


def test_the_broker_does_without_sqlalchemy() -> None:
    """Reading the configuration, as the broker's process does, imports no SQLAlchemy."""
    code = "import sys; from amqtt_db import config; config.load_section(None); sys.exit('sqlalchemy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("section", "path", "message"),
    [
        ({"journal": {"max_size": 0}}, "journal.max_size", "expected 16 kB or more"),
        ({"journal": {"max_size": "1 kB"}}, "journal.max_size", "expected 16 kB or more"),
        ({"journal": {"max_payload": 0}}, "journal.max_payload", "expected 1 kB or more"),
        ({"writer": {"memory_limit": "1 MB"}}, "writer.memory_limit", "expected 64 MiB or more"),
        ({"writer": {"time_limit": 0}}, "writer.time_limit", "expected a number of seconds above 0"),
        ({"writer": {"time_limit": float("nan")}}, "writer.time_limit", "expected a number of seconds above 0"),
        ({"routes": [{"topic": "#", "max_tables": 10**20}]}, "routes[0].max_tables", "from 1 to 1000000"),
        ({"routes": [{"topic": "#", "max_columns": 10**20}]}, "routes[0].max_columns", "from 1 to 10000"),
        ({"routes": [{"topic": "#", "keep": "0 days"}]}, "routes[0].keep", "expected a length of time from"),
        ({"database": "sqlite:///a.db", "journal": {"path": "a.db"}}, "journal.path", "is the database's file too"),
        ({"database": "sqlite:///x/../a.db", "journal": {"path": "./a.db"}}, "journal.path", "is the database's"),
        ({"database": "sqlite:///a.db", "journal": {"path": "a.db-wal"}}, "journal.path", "is the database's file too"),
        ({"database": "sqlite:///mqtt.journal"}, "journal.path", "is the database's file too"),
    ],
)
def test_settings_that_can_never_work_are_mistakes(section: dict[str, Any], path: str, message: str) -> None:
    """They are reported with their path before anything starts."""
    assert message in problems(section)[path]
