"""Names in each engine: they never collide, whatever their length, and may be written without quotes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.mysql.reserved_words import RESERVED_WORDS_MARIADB, RESERVED_WORDS_MYSQL
from sqlalchemy.dialects.postgresql.base import RESERVED_WORDS as RESERVED_WORDS_POSTGRESQL
from sqlalchemy.dialects.sqlite.base import SQLiteIdentifierPreparer

from amqtt_db.database.engines import engine_for
from tests.database.engines.servers import Site
from tests.workbench import Workbench

LISTS = (
    RESERVED_WORDS_MARIADB,
    RESERVED_WORDS_MYSQL,
    RESERVED_WORDS_POSTGRESQL,
    SQLiteIdentifierPreparer.reserved_words,
)
KEYWORDS = {
    "sqlite": None,
    "postgresql": "SELECT word FROM pg_get_keywords()",
    "mysql": "SELECT word FROM information_schema.keywords",
}
"""Dialect → what asks a server for all its words, reserved or not."""


def _words(bench: Workbench, engine: str) -> list[str]:
    query = KEYWORDS[engine]
    own = {str(word).lower() for (word,) in bench.sql(query)} if query else set()
    return sorted(word.lower() for word in own.union(*LISTS) if word.isidentifier())


@pytest.mark.slow
def test_every_word_that_sql_reserves_may_be_selected_without_quotes(site: Site) -> None:
    """From a view, in WHERE and ORDER BY too: they return the property's value, not a clock or a login."""
    bench = Workbench(site, {"topic": "words/{user}", "model": "document", "max_columns": 2000})
    words = _words(bench, site.engine)
    assert len(words) > 300
    step = 150
    for start in range(0, len(words), step):
        some = [word for word in words[start : start + step] if word != "user"]
        bench.restart({"topic": f"words{start}/{{user}}", "model": "document"})
        bench.send((f"words{start}/login", {word: f"is {word}" for word in some}))
    columns: dict[str, dict[str, str]] = {}
    for view, word, column in bench.sql("SELECT table_name, property, column_name FROM mqtt_catalog"):
        columns.setdefault(view, {})[column] = "login" if word == "{user}" else f"is {word}"
    assert [_misread(bench, view, expected) for view, expected in columns.items()] == [[]] * len(columns)


def _misread(bench: Workbench, view: str, expected: Mapping[str, str]) -> list[str]:
    """Return the columns of a view that do not return what is expected; all are asked for at once, then halves."""
    names = list(expected)
    where = " AND ".join(f"{column} = '{value}'" for column, value in expected.items())
    try:
        found = bench.sql(f"SELECT {', '.join(names)} FROM {view} WHERE {where} ORDER BY {', '.join(names[:50])}")
    except Exception:
        found = []
    if found == [tuple(expected.values())]:
        return []
    if len(names) == 1:
        return names
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    return [name for half in halves for name in _misread(bench, view, {one: expected[one] for one in half})]


def test_tables_named_after_topics_may_be_written_without_quotes(site: Site) -> None:
    """`SELECT * FROM user` is the login on PostgreSQL, so the table of the topic `user` is called otherwise."""
    bench = Workbench(site)
    topics = ["user", "order", "group", "current_time", "select", "plain"]
    bench.send(*((topic, {"v": index}) for index, topic in enumerate(topics)))
    for index, topic in enumerate(topics):
        name = topic if topic == "plain" else f"{topic}_"
        assert bench.sql(f"SELECT v, topic FROM {name}") == [(float(index), topic)]


@pytest.mark.slow
@pytest.mark.parametrize("length", [43, 50, 51, 52, 54, 55, 56, 57, 62, 63])
def test_tables_of_any_length_that_a_route_may_ask_for_are_made(length: int, site: Site) -> None:
    """With all their indexes and views, next to tables whose names differ only in the last letter."""
    names = ["w" * (length - 1) + end for end in "ab"]
    prefixes = ["p" * (length - 10) + end for end in "ab"]
    routes: list[dict[str, Any]] = [
        {"topic": f"wide/{end}/+", "model": {"wide": {"table": name}}} for end, name in zip("ab", names, strict=True)
    ]
    routes += [
        {"topic": f"{model}/{end}/+", "model": {model: {"prefix": prefix}}}
        for model, (end, prefix) in product(("eav", "narrow", "document"), zip("ab", prefixes, strict=True))
        if not (model != "eav" and length > 61)
    ]
    bench = Workbench(site, *routes)
    topics = [route["topic"].replace("+", "x") for route in routes]
    bench.send(*((topic, {"v": index}) for index, topic in enumerate(topics)))
    assert [(record.topic, record.data()) for record in bench.records()] == [
        (topic, {"v": float(index)}) for index, topic in enumerate(topics)
    ]
    assert bench.dead() == []
    database = engine_for(site.url).open(write=False)
    indexes = [[index["name"] for index in sa.inspect(database).get_indexes(name)] for name in names]
    database.dispose()
    assert all(len(found) == 2 for found in indexes)
    assert len({name for found in indexes for name in found}) == 4
    views = [name for (name,) in bench.sql("SELECT name FROM mqtt_view")]
    assert len(set(views)) == len(topics)
    for name in views:
        assert bench.sql(f"SELECT count(*) FROM {name}") == [(1,)]


def test_long_topics_and_properties_get_names_that_differ(site: Site) -> None:
    """Just below and just above each engine's limit, with the same beginning."""
    bench = Workbench(site)
    limit = engine_for(site.url).name_limit
    topics = ["t" * length + end for length in (limit - 2, limit - 1, limit) for end in "ab"]
    data = {"p" * length + end: 1.5 for length in (limit - 2, limit - 1, limit) for end in "ab"}
    bench.send(*((topic, data) for topic in topics))
    assert {record.topic: record.data() for record in bench.records()} == dict.fromkeys(topics, data)
    assert bench.dead() == []
