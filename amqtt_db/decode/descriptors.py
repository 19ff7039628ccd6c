"""Descriptor sets, the files in which protoc describes messages; import this module only when it is needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from google.protobuf import (
    any_pb2,
    api_pb2,
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    source_context_pb2,
    struct_pb2,
    timestamp_pb2,
    type_pb2,
    wrappers_pb2,
)
from google.protobuf.message import DecodeError as ParseError

from amqtt_db.decode.checks import shorten
from amqtt_db.registry import suggest

_KNOWN_FILES: Final = {
    module.DESCRIPTOR.name: module.DESCRIPTOR.serialized_pb
    for module in (
        any_pb2, api_pb2, descriptor_pb2, duration_pb2, empty_pb2, field_mask_pb2, source_context_pb2, struct_pb2,
        timestamp_pb2, type_pb2, wrappers_pb2,
    )
}  # fmt: skip
"""The files that come with protobuf, which a descriptor set may leave out."""

_WITH_IMPORTS: Final = "make it with protoc --include_imports --descriptor_set_out=FILE"


def find_message(content: bytes, name: str) -> Any:
    """Return the descriptor of a message in a descriptor set, in a pool of its own.  Raises ValueError."""
    files = _parse_files(content)
    return _find_in_pool(_make_pool(files), files.values(), name)


def _parse_files(content: bytes) -> dict[str, Any]:
    """Return the files of a descriptor set by their names."""
    try:
        files = {file.name: file for file in descriptor_pb2.FileDescriptorSet.FromString(content).file}
    except ParseError:
        files = {}
    if not files:
        raise ValueError(f"descriptors: the file is not a descriptor set; {_WITH_IMPORTS}")
    return files


def _make_pool(files: Mapping[str, Any]) -> Any:
    """Return a pool of its own with the files of a descriptor set."""
    pool = descriptor_pool.DescriptorPool()
    added: set[str] = set()
    for name in files:
        _add_file(pool, files, name, added)
    return pool


def _add_file(pool: Any, files: Mapping[str, Any], name: str, added: set[str]) -> None:
    """Add a file to a pool, those that it imports before it."""
    if name in added:
        return
    added.add(name)
    if name not in files and name not in _KNOWN_FILES:
        raise ValueError(f"descriptors: the file lacks {name}, which it imports; {_WITH_IMPORTS}")
    file = files[name] if name in files else descriptor_pb2.FileDescriptorProto.FromString(_KNOWN_FILES[name])
    for needed in file.dependency:
        _add_file(pool, files, needed, added)
    try:
        pool.AddSerializedFile(file.SerializeToString())
    except Exception as error:
        raise ValueError(f"descriptors: {name} cannot be used: {shorten(error)}") from None


def _find_in_pool(pool: Any, files: Iterable[Any], name: str) -> Any:
    try:
        return pool.FindMessageTypeByName(name)
    except KeyError:
        valid = [f"{file.package}.{one.name}".lstrip(".") for file in files for one in file.message_type]
        raise ValueError(f"message: the descriptor set has no {name!r}; {suggest(name, valid)}") from None
