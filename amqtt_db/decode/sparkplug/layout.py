"""The layout of a Sparkplug B payload, as the specification describes it (version 3.0, chapter 6.4).

The names of messages within messages do not matter on the wire, so here they are all on one level.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

LAYOUT: Final[Mapping[str, str]] = {
    "Payload": "1 timestamp uint64, 2 metrics *Metric, 3 seq uint64, 4 uuid string, 5 body bytes",
    "Metric": (
        "1 name string, 2 alias uint64, 3 timestamp uint64, 4 datatype uint32, 5 is_historical bool, "
        "6 is_transient bool, 7 is_null bool, 8 metadata MetaData, 9 properties PropertySet, 10 int_value uint32, "
        "11 long_value uint64, 12 float_value float, 13 double_value double, 14 boolean_value bool, "
        "15 string_value string, 16 bytes_value bytes, 17 dataset_value DataSet, 18 template_value Template"
    ),
    "MetaData": (
        "1 is_multi_part bool, 2 content_type string, 3 size uint64, 4 seq uint64, 5 file_name string, "
        "6 file_type string, 7 md5 string, 8 description string"
    ),
    "PropertySet": "1 keys *string, 2 values *PropertyValue",
    "PropertySetList": "1 propertyset *PropertySet",
    "PropertyValue": (
        "1 type uint32, 2 is_null bool, 3 int_value uint32, 4 long_value uint64, 5 float_value float, "
        "6 double_value double, 7 boolean_value bool, 8 string_value string, 9 propertyset_value PropertySet, "
        "10 propertysets_value PropertySetList"
    ),
    "DataSet": "1 num_of_columns uint64, 2 columns *string, 3 types *uint32, 4 rows *Row",
    "Row": "1 elements *Element",
    "Element": (
        "1 int_value uint32, 2 long_value uint64, 3 float_value float, 4 double_value double, 5 boolean_value bool, "
        "6 string_value string"
    ),
    "Template": (
        "1 version string, 2 metrics *Metric, 3 parameters *Parameter, 4 template_ref string, 5 is_definition bool"
    ),
    "Parameter": (
        "1 name string, 2 type uint32, 3 int_value uint32, 4 long_value uint64, 5 float_value float, "
        "6 double_value double, 7 boolean_value bool, 8 string_value string"
    ),
}
"""Message → its fields: number, name and type; a star marks repeated fields.

A message has only one of the fields whose names end in ``_value``: together they are the ``value``.
"""

_SPARKPLUG: Final = "sparkplug"
_FIELD: Final = descriptor_pb2.FieldDescriptorProto
_WIRE_TYPES: Final = {
    "bool": _FIELD.TYPE_BOOL,
    "bytes": _FIELD.TYPE_BYTES,
    "double": _FIELD.TYPE_DOUBLE,
    "float": _FIELD.TYPE_FLOAT,
    "string": _FIELD.TYPE_STRING,
    "uint32": _FIELD.TYPE_UINT32,
    "uint64": _FIELD.TYPE_UINT64,
}


def make_payload_class() -> Any:
    """Return protobuf's class for a payload, from a pool of its own."""
    file = descriptor_pb2.FileDescriptorProto(name="sparkplug.proto", package=_SPARKPLUG, syntax="editions")
    file.edition = descriptor_pb2.EDITION_2023  # which checks text, as proto2 does not
    for name, fields in LAYOUT.items():
        file.message_type.append(_describe_message(name, fields))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_SPARKPLUG}.Payload"))


def _describe_message(name: str, fields: str) -> Any:
    message = descriptor_pb2.DescriptorProto(name=name, field=_describe_fields(fields))
    if any(field.HasField("oneof_index") for field in message.field):
        message.oneof_decl.add(name="value")
    return message


def _describe_fields(fields: str) -> Iterator[Any]:
    for field in fields.split(", "):
        number, name, kind = field.split()
        type_ = kind.lstrip("*")
        described = _FIELD(
            number=int(number),
            name=name,
            label=_FIELD.LABEL_REPEATED if kind != type_ else _FIELD.LABEL_OPTIONAL,
            type=_WIRE_TYPES.get(type_, _FIELD.TYPE_MESSAGE),
        )
        if type_ not in _WIRE_TYPES:
            described.type_name = f".{_SPARKPLUG}.{type_}"
        if name.endswith("_value"):
            described.oneof_index = 0
        yield described
