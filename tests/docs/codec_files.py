"""The files that the recipes by format name: the descriptor set as protoc makes it, the schema as the page shows it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from google.protobuf import descriptor_pb2

from tests.decode.protos import add_field, add_map, descriptor_set

PAGE: Final = (Path(__file__).parents[2] / "docs" / "codecs.md").read_text(encoding="utf-8")


def write_codec_files(directory: Path) -> None:
    """Write them into the directory in which the recipes are run."""
    (directory / "meter.desc").write_bytes(_meter())
    for name, schema in re.findall(r"`(\w+\.avsc)`:\n\n```json\n(.*?)```", PAGE, re.DOTALL):
        (directory / name).write_text(schema)


def _meter() -> bytes:
    file = descriptor_pb2.FileDescriptorProto(name="meter.proto", package="plant", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    reading = file.message_type.add(name="Reading")
    state = reading.enum_type.add(name="State")
    state.value.add(name="IDLE", number=0)
    state.value.add(name="RUNNING", number=1)
    add_field(reading, 1, "at", ".google.protobuf.Timestamp")
    add_field(reading, 2, "temp", "double")
    add_field(reading, 3, "pulses", "int64")
    add_field(reading, 4, "state", "enum .plant.Reading.State")
    reading.oneof_decl.add(name="_limit")
    add_field(reading, 5, "limit", "double", proto3_optional=True, oneof_index=0)
    add_map(reading, 6, "phases", "string", "double")
    return descriptor_set(file)
