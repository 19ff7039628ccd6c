"""Descriptor sets for tests, as protoc would make them."""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2 as pb
from google.protobuf import (
    descriptor_pool,
    duration_pb2,
    empty_pb2,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)

FIELD: Final = pb.FieldDescriptorProto
SCALARS: Final = {
    "double": FIELD.TYPE_DOUBLE,
    "float": FIELD.TYPE_FLOAT,
    "int32": FIELD.TYPE_INT32,
    "int64": FIELD.TYPE_INT64,
    "uint32": FIELD.TYPE_UINT32,
    "uint64": FIELD.TYPE_UINT64,
    "sint64": FIELD.TYPE_SINT64,
    "fixed64": FIELD.TYPE_FIXED64,
    "bool": FIELD.TYPE_BOOL,
    "string": FIELD.TYPE_STRING,
    "bytes": FIELD.TYPE_BYTES,
}


def add_field(message: Any, number: int, name: str, kind: str, **options: Any) -> Any:
    """Add a field: ``kind`` is one of SCALARS, a message such as ``.plant.Reading``, or ``enum`` and the enum."""
    is_enum, named = kind.startswith("enum "), kind.removeprefix("enum ")
    type_ = SCALARS.get(kind, FIELD.TYPE_ENUM if is_enum else FIELD.TYPE_MESSAGE)
    field = message.field.add(name=name, number=number, type=type_, label=options.pop("label", FIELD.LABEL_OPTIONAL))
    if kind not in SCALARS:
        field.type_name = named
    for option, value in options.items():
        setattr(field, option, value)
    return field


def add_map(message: Any, number: int, name: str, key: str, value: str) -> None:
    """Add a map to a message of the package ``plant``."""
    entry = message.nested_type.add(name=f"{name.title()}Entry")
    entry.options.map_entry = True
    add_field(entry, 1, "key", key)
    add_field(entry, 2, "value", value)
    add_field(message, number, name, f".plant.{message.name}.{entry.name}", label=FIELD.LABEL_REPEATED)


def plant() -> Any:
    """Return the file ``plant.proto`` with the message ``plant.Reading``, which has a field of each kind."""
    file = pb.FileDescriptorProto(name="plant.proto", package="plant", syntax="proto3")
    file.dependency.extend(
        f"google/protobuf/{name}.proto" for name in ("timestamp", "duration", "struct", "wrappers", "empty")
    )
    state = file.enum_type.add(name="State")
    for number, name in enumerate(("IDLE", "RUNNING", "FAULT")):
        state.value.add(name=name, number=number)
    reading = file.message_type.add(name="Reading")
    for number, kind in enumerate(SCALARS, start=1):
        add_field(reading, number, f"a_{kind}", kind)
    add_field(reading, 20, "state", "enum .plant.State")
    add_field(reading, 21, "maybe", "double", proto3_optional=True, oneof_index=1)
    reading.oneof_decl.add(name="choice")
    reading.oneof_decl.add(name="_maybe")
    add_field(reading, 22, "code", "int32", oneof_index=0)
    add_field(reading, 23, "text", "string", oneof_index=0)
    add_field(reading, 24, "inner", ".plant.Reading")
    add_field(reading, 25, "list", "int64", label=FIELD.LABEL_REPEATED)
    add_field(reading, 26, "states", "enum .plant.State", label=FIELD.LABEL_REPEATED)
    add_field(reading, 27, "readings", ".plant.Reading", label=FIELD.LABEL_REPEATED)
    add_map(reading, 30, "names", "string", "double")
    add_map(reading, 31, "numbers", "int32", ".plant.Reading")
    add_map(reading, 32, "flags", "bool", "enum .plant.State")
    for number, name in enumerate(("Timestamp", "Duration", "Struct", "Value", "DoubleValue", "StringValue"), start=40):
        add_field(reading, number, name.lower(), f".google.protobuf.{name}")
    return file


def descriptor_set(*files: Any) -> bytes:
    """Return the content of a file that protoc makes with --descriptor_set_out."""
    content: bytes = pb.FileDescriptorSet(file=files).SerializeToString()
    return content


def message_class(file: Any, name: str) -> Any:
    """Return the library's own class for a message."""
    pool = descriptor_pool.DescriptorPool()
    for needed in (timestamp_pb2, duration_pb2, struct_pb2, wrappers_pb2, empty_pb2):
        pool.AddSerializedFile(needed.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
