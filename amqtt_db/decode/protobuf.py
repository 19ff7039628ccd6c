"""Protobuf by a descriptor set, with the library ``protobuf``; import this module only when it is needed.

A field is named as in the .proto file.  If a field was not set, it is absent where Protobuf can tell (``optional``,
messages, ``oneof``), and has its default elsewhere.  Enums are names, maps are objects, timestamps are times in UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from operator import attrgetter
from typing import Any, Final

from google.protobuf import message_factory, unknown_fields
from google.protobuf.message import DecodeError as ParseError

from amqtt_db.decode.checks import Decoder, shorten
from amqtt_db.decode.descriptors import find_message
from amqtt_db.errors import DecodeError
from amqtt_db.record import EPOCH, MICROSECOND

MAX_VALUES: Final = 2_000_000
"""The most values that a message may have: two bytes can be a message in a list, and make a default for each field."""

Read = Callable[[Any], Any]


def make_decoder(content: bytes, message: str) -> Decoder:
    """Return a decoder of the message of this name, which the descriptor set ``content`` describes.

    Raises ValueError.
    """
    cls = message_factory.GetMessageClass(find_message(content, message))
    readers = _Readers()
    read, parse = readers.reader(cls.DESCRIPTOR), cls.FromString
    empty = read(cls())

    def decode_protobuf(payload: bytes) -> Any:
        readers.room = MAX_VALUES
        try:
            parsed = parse(payload)
            data = read(parsed)
            if readers.has_required and not parsed.IsInitialized():
                raise DecodeError(f"not {message}: a required field is missing")
            if payload and data == empty:
                _check_knows_some(parsed, message)
        except DecodeError:
            raise
        except ParseError:
            raise DecodeError(f"not {message}: it cannot be parsed") from None
        except Exception as error:
            raise DecodeError(f"not {message}: {shorten(error)}") from None
        return data

    return decode_protobuf


def _check_knows_some(parsed: Any, message: str) -> None:
    """Raise DecodeError if all that was sent is unknown: it is another message."""
    if not parsed.ListFields() and len(unknown_fields.UnknownFieldSet(parsed)) > 0:
        raise DecodeError(f"not {message}: it has none of its fields")


class _Readers:
    """Makes what reads each type of message, once.

    ``has_required`` is true if some message has required fields; ``room`` is how many values may still be made.
    """

    def __init__(self) -> None:
        self.room = MAX_VALUES
        self.has_required = False
        self._made: dict[str, Read] = {}

    def reader(self, descriptor: Any) -> Read:
        """Return what makes plain data of a message."""
        name = descriptor.full_name
        if name in _WELL_KNOWN:
            return _WELL_KNOWN[name]
        if name not in self._made:
            self._made[name] = self._reader_of_itself(name)
            self._made[name] = self._make_reader(descriptor)
        return self._made[name]

    def _reader_of_itself(self, name: str) -> Read:
        """Return the reader of a message that contains itself, and whose own reader is still being made."""

        def read_inner(message: Any) -> Any:
            return self._made[name](message)

        return read_inner

    def _make_reader(self, descriptor: Any) -> Read:
        fields = descriptor.fields
        self.has_required |= any(field.is_required for field in fields)
        names = [field.name for field in fields]
        optional = [field.name for field in fields if field.has_presence and not field.is_required]
        converted = [(field.name, convert) for field in fields if (convert := self._converter(field)) is not None]
        lists = frozenset(field.name for field in fields if field.is_repeated)
        get = _getter(names)

        def read(message: Any) -> dict[str, Any]:
            self.room -= len(names)
            if self.room < 0:
                raise DecodeError(f"a message with more than {MAX_VALUES} values")
            data = dict(zip(names, get(message), strict=True))
            for name in optional:
                if not message.HasField(name):
                    del data[name]
            for name, convert in converted:
                if name in data:
                    data[name] = convert(data[name])
                    if name in lists and not data[name]:
                        del data[name]
            return data

        return read

    def _converter(self, field: Any) -> Read | None:
        """Return what makes plain data of a field's value, None if it is plain."""
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            return self._map_converter(field.message_type.fields_by_name)
        one = self._one_converter(field)
        if not field.is_repeated:
            return one
        return list if one is None else lambda values: [one(value) for value in values]

    def _one_converter(self, field: Any) -> Read | None:
        if field.message_type is not None:
            return self.reader(field.message_type)
        if field.enum_type is None:
            return None
        names = {number: value.name for number, value in field.enum_type.values_by_number.items()}
        return lambda number: names.get(number, number)

    def _map_converter(self, entry: Mapping[str, Any]) -> Read:
        convert = self._one_converter(entry["value"]) or _unchanged
        write = _TRUTH_KEYS.__getitem__ if entry["key"].type == entry["key"].TYPE_BOOL else str
        return lambda items: {write(key): convert(items[key]) for key in items}


_TRUTH_KEYS: Final = {True: "true", False: "false"}


def _unchanged(value: Any) -> Any:
    return value


def _getter(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) > 1:
        return attrgetter(*names)
    return lambda message: tuple(getattr(message, name) for name in names)


def _read_timestamp_message(message: Any) -> datetime:
    if not 0 <= message.nanos < 10**9:
        raise DecodeError("a timestamp has more nanoseconds than a second")
    try:
        micros: int = message.seconds * 10**6 + message.nanos // 1000
        return EPOCH + micros * MICROSECOND
    except OverflowError:
        raise DecodeError("a timestamp is beyond the year 9999") from None


def _read_duration(message: Any) -> float:
    seconds: float = message.seconds + message.nanos / 10**9
    return seconds


def _read_wrapper(message: Any) -> Any:
    return message.value


def _read_struct(message: Any) -> dict[str, Any]:
    return {name: _read_json_value(message.fields[name]) for name in message.fields}


def _read_list(message: Any) -> list[Any]:
    return [_read_json_value(value) for value in message.values]


def _read_json_value(message: Any) -> Any:
    kind = message.WhichOneof("kind")
    if kind == "struct_value":
        return _read_struct(message.struct_value)
    if kind == "list_value":
        return _read_list(message.list_value)
    return None if kind in {None, "null_value"} else getattr(message, kind)


def _wrappers() -> Iterator[str]:
    for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes"):
        yield f"google.protobuf.{kind}Value"


_WELL_KNOWN: Final[Mapping[str, Read]] = {
    "google.protobuf.Duration": _read_duration,
    "google.protobuf.ListValue": _read_list,
    "google.protobuf.Struct": _read_struct,
    "google.protobuf.Timestamp": _read_timestamp_message,
    "google.protobuf.Value": _read_json_value,
    **dict.fromkeys(_wrappers(), _read_wrapper),
}
"""What reads the messages that stand for a value."""
