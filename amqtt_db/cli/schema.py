"""`schema`: what editors need to complete and check the YAML."""

from __future__ import annotations

import orjson

from amqtt_db.cli.arguments import Output
from amqtt_db.cli.output import open_output
from amqtt_db.cli.shell import error_boundary


def schema(output: Output = None) -> None:
    """Print the JSON Schema of the YAML, for editors.

    They take it from the YAML's first line: # yaml-language-server: $schema=amqtt-db.schema.json
    """
    from amqtt_db.config.json_schema import make_schema  # noqa: PLC0415 - the other commands do without all models

    with error_boundary(), open_output(output) as write:
        write(orjson.dumps(make_schema(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
