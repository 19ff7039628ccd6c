"""No setting of a server changes what is stored or read; the server's own list says which settings there are."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import sqlalchemy as sa

from amqtt_db.database.engines import mysql_session, postgresql_session, sqlite
from amqtt_db.reader.export import export
from amqtt_db.testing.starting import connected, execute
from tests.database.engines.servers import Site
from tests.workbench import Workbench

ENTITY: Final = {"d": "decimal", "raw": "bytes", "at": "datetime", "clock": "time"}
VALUES: Final = {
    "n": 0.1 + 0.2, "tiny": 5e-324, "big": 2**63, "text": "Grüße, 你好 \\ 'quoted'", "on": True,
    "d": "1.10", "raw": "AAEC/w==", "at": "2026-03-29T02:30:00+02:00", "clock": "12:34:56.789", "list": [1, None, {}],
}  # fmt: skip

HARMFUL_POSTGRESQL: Final = {
    "bytea_output": "escape",
    "client_encoding": "LATIN1",
    "datestyle": "SQL, DMY",
    "default_statistics_target": "1",
    "default_transaction_deferrable": "on",
    "default_transaction_isolation": "serializable",
    "exit_on_error": "on",
    "extra_float_digits": "-15",
    "idle_in_transaction_session_timeout": "1",
    "intervalstyle": "sql_standard",
    "lc_messages": "C",
    "lc_numeric": "POSIX",
    "lock_timeout": "1",
    "quote_all_identifiers": "on",
    "search_path": "public",
    "standard_conforming_strings": "off",
    "synchronous_commit": "off",
    "timezone": "Asia/Kathmandu",
    "timezone_abbreviations": "India",
    "transaction_timeout": "1000",
    "transform_null_equals": "on",
    "xmloption": "document",
}
"""Settings of PostgreSQL and values that are worse than the lowest or the highest."""

KEPT_POSTGRESQL: Final = {
    "a limit or a choice of an administrator, which shows as an error and is waited for": """
        default_transaction_read_only idle_session_timeout max_stack_depth restrict_nonsystem_relation_kind row_security
        session_replication_role statement_timeout temp_file_limit""",
    "where files are, and what is loaded": """
        default_table_access_method default_tablespace dynamic_library_path extension_control_path
        local_preload_libraries session_preload_libraries temp_tablespaces""",
    "of a transaction, which sets them itself": "transaction_deferrable transaction_isolation transaction_read_only",
    "of the connection, which sets them itself": """
        application_name client_connection_check_interval tcp_keepalives_count tcp_keepalives_idle
        tcp_keepalives_interval tcp_user_timeout""",
    "to find faults of the server; slow": """
        backtrace_functions client_min_messages debug_discard_caches log_min_error_statement log_min_messages
        log_statement wal_consistency_checking
        debug_logical_replication_streaming trace_notify trace_sort""",
    "texts for what is not used": "createrole_self_grant default_text_search_config lc_monetary lc_time",
}
"""Settings of PostgreSQL that no test changes, by the reason."""

HARMFUL_MYSQL: Final = {
    "time_zone": "'+05:45'",
    "sql_mode": "'ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES,NO_ZERO_DATE'",
    "autocommit": "1",
    "character_set_client": "latin1",
    "character_set_connection": "latin1",
    "character_set_results": "latin1",
    "character_set_server": "latin1",
    "character_set_database": "latin1",
    "collation_connection": "latin1_swedish_ci",
    "completion_type": "'RELEASE'",
    "default_regex_flags": "'EXTENDED,MULTILINE'",
    "default_storage_engine": "MyISAM",
    "default_tmp_storage_engine": "MyISAM",
    "idle_transaction_timeout": "1",
    "max_join_size": "1",
    "lc_messages": "de_DE",
    "lc_time_names": "de_DE",
    "max_sort_length": "64",
    "net_read_timeout": "1",
    "net_write_timeout": "1",
    "tx_isolation": "'SERIALIZABLE'",
    "wait_timeout": "2",
}
"""The same of MariaDB, as its global defaults."""

KEPT_MYSQL: Final = {
    "a limit or a choice of an administrator, which shows as an error and is waited for": """
        enforce_storage_engine max_allowed_packet max_session_mem_used max_statement_time max_user_connections
        sort_buffer_size
        tmp_disk_table_size tx_read_only""",
    "of replication, a cluster, or the log of changes": """
        default_master_connection gtid_domain_id gtid_seq_no pseudo_slave_mode server_id skip_parallel_replication
        skip_replication sql_log_bin sql_slave_skip_counter wsrep_causal_reads wsrep_dirty_reads wsrep_gtid_seq_no
        wsrep_on wsrep_osu_method wsrep_retry_autocommit wsrep_sync_wait wsrep_trx_fragment_size
        wsrep_trx_fragment_unit binlog_format max_relay_log_size binlog_annotate_row_events
        binlog_direct_non_transactional_updates binlog_alter_two_phase binlog_row_image""",
    "of one statement or session, without a default on the server": """
        identity insert_id last_insert_id pseudo_thread_id rand_seed1 rand_seed2 timestamp""",
    "of the connection, or of tables that nothing here makes": "system_versioning_asof tcp_nodelay",
    "where files are, and what is loaded": "innodb_ft_user_stopword_table innodb_tmpdir",
    "texts that say how to search, or what to tell": """
        character_set_filesystem collation_database collation_server optimizer_switch optimizer_trace
        optimizer_adjust_secondary_key_costs session_track_system_variables storage_engine""",
}
"""Variables of MariaDB that no test changes, by the reason."""

HARMFUL_SQLITE: Final = {
    "automatic_index": "OFF",
    "cache_size": "1",
    "cache_spill": "ON",
    "case_sensitive_like": "ON",
    "defer_foreign_keys": "ON",
    "foreign_keys": "ON",
    "ignore_check_constraints": "ON",
    "journal_mode": "DELETE",
    "legacy_alter_table": "ON",
    "mmap_size": "1000000",
    "read_uncommitted": "ON",
    "recursive_triggers": "ON",
    "reverse_unordered_selects": "ON",
    "secure_delete": "ON",
    "synchronous": "OFF",
    "temp_store": "MEMORY",
    "trusted_schema": "OFF",
    "wal_autocheckpoint": "1",
}
"""What an SQLite can have been built with, as far as it may change anything."""

KEPT_SQLITE: Final = {
    "commands, and questions": """
        analysis_limit collation_list compile_options data_version database_list foreign_key_check foreign_key_list
        freelist_count function_list incremental_vacuum index_info index_list index_xinfo integrity_check module_list
        optimize page_count pragma_list quick_check schema_version shrink_memory table_info table_list table_xinfo
        wal_checkpoint""",
    "of a file, since it was made": """
        application_id auto_vacuum default_cache_size encoding page_size user_version""",
    "limits and promises about memory, files and threads": """
        busy_timeout cell_size_check checkpoint_fullfsync fullfsync hard_heap_limit journal_size_limit locking_mode
        max_page_count soft_heap_limit temp_store_directory threads""",
    "without an effect on Python's driver": """
        count_changes empty_result_callbacks full_column_names short_column_names""",
    "never left on": "query_only writable_schema",
}
"""Pragmas that no test changes, by the reason."""

MOST: Final = 2**26
"""The highest number that is tried: a server would reserve so many bytes."""


def exported(url: str) -> bytes:
    """Return everything that is stored, as JSON Lines."""
    written: list[bytes] = []
    export(url, written.append)
    return b"".join(written)


def filled(site: Site) -> Workbench:
    """Return a writer on a database with records in all models."""
    models = ("wide", {"wide": {"table": "one"}}, "eav", "document", "narrow")
    routes = [
        {"topic": f"m{number}/#", "model": model, "entity": ENTITY, "unknown": "add", "latest": True}
        for number, model in enumerate(models)
    ]
    bench = Workbench(site, *routes)
    for number in range(len(models)):
        bench.send(*((f"m{number}/{topic}", {**VALUES, "i": topic}) for topic in range(4)))
    return bench


def require_unchanged(site: Site, bench: Workbench) -> None:
    """A writer and a reader with new sessions do what those before did, with old tables, new columns and new tables."""
    before = exported(site.url)
    bench.close()
    bench.open()
    sent = [(f"m{number}/{topic}", {**VALUES, "new": topic}) for number in range(5) for topic in ("0", "new")]
    bench.send(*sent)
    bench.writer.do_idle_work()
    after = exported(site.url)
    assert not bench.dead()
    assert sorted(after.splitlines())[:20] == before.splitlines()
    assert after.count(b"\n") == len(sent) + 20
    assert len(bench.sql("SELECT * FROM m2_view")) == 6


def _names(reviewed: Mapping[str, str]) -> set[str]:
    return {name for names in reviewed.values() for name in names.split()}


def extreme(kind: str, at: int, values: tuple[str, ...], low: str, high: str) -> str | None:
    """Return a setting's first or last value (``at`` is 0 or −1) by what the server says of it; None for a text."""
    if kind in {"bool", "boolean"}:
        return ("off", "on")[at]
    if values:
        return values[at]
    if kind in {"string", "varchar", "flagset"}:
        return None
    return high if at and float(high or MOST) < MOST else (low or "0", str(MOST))[at]


def postgresql_values(site: Site, at: int | None) -> dict[str, str]:
    """Return a value for each setting that a session may change."""
    query = "SELECT lower(name), vartype, enumvals, min_val, max_val FROM pg_settings"
    with connected(site.url) as connection:
        rows = connection.exec_driver_sql(
            f"{query} WHERE context IN ('user', 'superuser') AND name NOT LIKE '%%.%%'"
        ).all()
    tried = {name: extreme(kind, at or 0, tuple(values or ()), low, high) for name, kind, values, low, high in rows}
    new = tried.keys() - _names(KEPT_POSTGRESQL) - HARMFUL_POSTGRESQL.keys()
    unknown = {name for name in new if tried[name] is None}
    assert not unknown, f"new settings: say in this file whether they are harmless: {sorted(unknown)}"
    if at is None:
        return {name: value for name, value in HARMFUL_POSTGRESQL.items() if name in tried}
    return {name: value for name in new if (value := tried[name]) is not None}


@pytest.mark.slow
@pytest.mark.parametrize("at", [None, 0, -1], ids=["harmful", "lowest", "highest"])
def test_no_setting_of_postgresql_changes_what_is_stored_or_read(at: int | None, postgresql: Site) -> None:
    """An export is the same byte for byte, and the writer goes on."""
    bench = filled(postgresql)
    database = sa.make_url(postgresql.url).database
    values = postgresql_values(postgresql, at)
    execute(
        postgresql.url, *(f"ALTER DATABASE {database} SET {name} = '{value}'" for name, value in sorted(values.items()))
    )
    require_unchanged(postgresql, bench)


def mysql_values(site: Site, at: int | None) -> dict[str, str]:
    """Return a value for each variable that a session may change."""
    query = (
        "SELECT LOWER(variable_name), LOWER(variable_type), enum_value_list, numeric_min_value, numeric_max_value"
        " FROM information_schema.system_variables WHERE variable_scope LIKE 'SESSION%%' AND read_only = 'NO'"
    )
    with connected(site.url) as connection:
        rows = connection.exec_driver_sql(query).all()
    tried = {
        name: extreme(kind, at or 0, tuple((values or "").split(",")) if values else (), low, high)
        for name, kind, values, low, high in rows
    }
    new = tried.keys() - _names(KEPT_MYSQL) - HARMFUL_MYSQL.keys()
    unknown = {name for name in new if tried[name] is None}
    assert not unknown, f"new variables: say in this file whether they are harmless: {sorted(unknown)}"
    if at is None:
        return {name: value for name, value in HARMFUL_MYSQL.items() if name in tried}
    return {name: f"{value}" if _is_number(value) else f"'{value}'" for name in new if (value := tried[name])}


def _is_number(text: str) -> bool:
    return text.replace(".", "").replace("-", "").isdigit()


@pytest.mark.slow
@pytest.mark.parametrize("at", [None, 0, -1], ids=["harmful", "lowest", "highest"])
def test_no_setting_of_mariadb_changes_what_is_stored_or_read(at: int | None, mysql: Site) -> None:
    """An export is the same byte for byte, and the writer goes on."""
    bench = filled(mysql)
    with global_values(mysql.url, mysql_values(mysql, at)):
        require_unchanged(mysql, bench)


@contextmanager
def global_values(url: str, values: Mapping[str, str]) -> Iterator[None]:
    """Temporarily change variables of the server."""
    with connected(url) as administrator:
        before = {name: administrator.exec_driver_sql(f"SELECT @@GLOBAL.{name}").scalar_one() for name in values}
        try:
            for name, value in values.items():
                administrator.exec_driver_sql(f"SET GLOBAL {name} = {value}".replace("%", "%%"))
            yield
        finally:
            for name, old in before.items():
                literal = f"'{old}'" if isinstance(old, str) else "NULL" if old is None else str(old)
                administrator.exec_driver_sql(f"SET GLOBAL {name} = {literal}".replace("%", "%%"))


def test_no_default_of_sqlite_changes_what_is_stored_or_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it was built."""
    with closing(sqlite3.connect(":memory:")) as connection:
        listed = {name for (name,) in connection.execute("SELECT name FROM pragma_pragma_list")}
    unknown = listed - HARMFUL_SQLITE.keys() - _names(KEPT_SQLITE)
    assert not unknown, f"new pragmas: say in this file whether they are harmless: {sorted(unknown)}"
    site = Site(tmp_path, f"sqlite:///{tmp_path}/mqtt.db")
    bench = filled(site)
    for name in ("_prepare_writer", "_prepare_reader"):
        prepare = getattr(sqlite, name)

        def spoil(connection: sqlite3.Connection, record: Any, prepare: Any = prepare) -> None:
            for pragma, value in HARMFUL_SQLITE.items():
                if pragma != "journal_mode" or bench.path.stat().st_size == 0:
                    connection.execute(f"PRAGMA {pragma} = {value}")
            prepare(connection, record)

        monkeypatch.setattr(sqlite, name, spoil)
    require_unchanged(site, bench)


def test_every_setting_that_a_session_sets_is_tried() -> None:
    """Whoever adds a setting to the tables of the engines adds a value here that would do harm."""
    assert postgresql_session.SETTINGS.keys() <= HARMFUL_POSTGRESQL.keys()
    kept = _names(KEPT_MYSQL) | _names(KEPT_POSTGRESQL)
    tables = (postgresql_session.SETTINGS, mysql_session.SETTINGS, mysql_session.MARIADB_SETTINGS)
    assert all(kept.isdisjoint(table) for table in tables)
