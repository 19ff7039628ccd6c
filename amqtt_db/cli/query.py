"""The command `query`: a user's own SQL."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from amqtt_db.cli import show
from amqtt_db.cli.arguments import AsJson, Config, choose_one_of, parse_pause
from amqtt_db.cli.output import print_result, print_text
from amqtt_db.cli.shell import error_boundary, read_settings


class QueryFormat(Enum):
    """The formats of an answer."""

    table = "table"
    csv = "csv"
    json = "json"


def query(
    statement: Annotated[str, typer.Argument(metavar="SQL", help="One statement that reads.")],
    path: Config = None,
    form: Annotated[
        QueryFormat, choose_one_of(QueryFormat, "--format", help="A table, CSV or JSON.")
    ] = QueryFormat.table,
    as_json: AsJson = False,
    timeout: Annotated[
        float, typer.Option(parser=parse_pause, metavar="SECONDS", help="Stop the query after this time.")
    ] = 60.0,
) -> None:
    """Run an SQL query on the database, in a transaction that only reads."""
    from amqtt_db.reader.query import result_as_csv, result_as_json, run_query  # noqa: PLC0415

    with error_boundary():
        result = run_query(read_settings(path), statement, timeout)
        if as_json or form is QueryFormat.json:
            print_text(result_as_json(result).decode())
        elif form is QueryFormat.table:
            print_result(show.make_table(result.columns, result.rows, ""))
        else:
            print_text(result_as_csv(result).removesuffix("\r\n"))
