"""XML: the elements and attributes within the outermost element are the properties of a record.

An element with only text is that text; an element with other elements or attributes is an object; several elements
with the same name are a list.  An attribute's name begins with ``@``; ``#text`` is the text beside attributes or
elements.  A payload with a document type is rejected, because that can declare entities that fill the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final
from xml.parsers import expat

from amqtt_db.decode.checks import MAX_DEPTH, Decoder, as_text, number_reader
from amqtt_db.decode.delimited import Numbers
from amqtt_db.errors import DecodeError

_OWN_TEXT: Final = "#text"


def xml_format(*, numbers: Numbers = True) -> Decoder:
    """Return a decoder of XML: the elements and attributes within the outermost element."""
    read = number_reader() if numbers else as_text

    def decode_xml(payload: bytes) -> Any:
        if not payload:
            raise DecodeError("empty payload")
        builder = _TreeBuilder(read)
        try:
            builder.parser().Parse(payload, True)
        except DecodeError:
            raise
        except expat.ExpatError as error:
            what = expat.errors.messages.get(error.code, "syntax error")
            raise DecodeError(f"not XML: line {error.lineno}, column {error.offset + 1}: {what}") from None
        except Exception:
            raise DecodeError("not XML: its encoding cannot be read") from None
        return builder.data

    return decode_xml


class _TreeBuilder:
    """Builds ``data`` from what a parser finds.  ``read`` makes a value of text."""

    def __init__(self, read: Callable[[str], Any]) -> None:
        self.data: Any = None
        self._read = read
        self._open: list[tuple[dict[str, Any], list[str]]] = []

    def parser(self) -> expat.XMLParserType:
        """Return a new parser, which refers to this builder but not the other way round: nothing waits to be freed."""
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = _reject_doctype
        parser.StartElementHandler = self._start
        parser.CharacterDataHandler = self._add_text
        parser.EndElementHandler = self._end
        return parser

    def _start(self, _: str, attributes: Mapping[str, str]) -> None:
        if len(self._open) >= MAX_DEPTH:
            raise DecodeError(f"nested deeper than {MAX_DEPTH} levels")
        read = self._read
        self._open.append(
            ({f"@{name}": read(text) for name, text in attributes.items() if not _is_declaration(name)}, [])
        )

    def _add_text(self, text: str) -> None:
        self._open[-1][1].append(text)

    def _end(self, name: str) -> None:
        inner, texts = self._open.pop()
        value: Any = self._read("".join(texts).strip())
        if inner:
            if value is not None:
                inner[_OWN_TEXT] = value
            value = inner
        if not self._open:
            self.data = value
            return
        around = self._open[-1][0]
        if name not in around:
            around[name] = value
        elif isinstance(around[name], list):
            around[name].append(value)
        else:
            around[name] = [around[name], value]


def _is_declaration(name: str) -> bool:
    """Return True for an attribute that says which namespace a prefix means."""
    return name == "xmlns" or name.startswith("xmlns:")


def _reject_doctype(*_: Any) -> None:
    raise DecodeError("XML with a document type is not supported, because it can declare entities")
