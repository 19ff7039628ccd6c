"""Another decoder for each value of a topic's level: chosen once for each topic, so a message costs nothing more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

import attrs

from amqtt_db.decode.by_property import DecoderByProperty
from amqtt_db.decode.checks import Decoder
from amqtt_db.decode.remembering import RememberingDecoder
from amqtt_db.errors import DecodeError

OneDecoder = Decoder | RememberingDecoder


@attrs.frozen(eq=False)
class DecoderByLevel:
    """The decoders for the values of a named level; ``other`` is for all other values, None if these are refused."""

    level: str
    decoders: Mapping[str, OneDecoder]
    other: OneDecoder | None = None

    def choose(self, levels: Mapping[str, str]) -> OneDecoder:
        """Return the decoder for a topic with these levels."""
        value = levels.get(self.level, "")
        return self.decoders.get(value) or self.other or self._refuse_all

    @property
    def remembers(self) -> bool:
        """True if one of the decoders remembers messages."""
        return any(isinstance(one, RememberingDecoder) for one in (*self.decoders.values(), self.other))

    def _refuse_all(self, _: bytes) -> NoReturn:
        raise DecodeError(f"`decode` has no decoder for this {{{self.level}}}, only for {', '.join(self.decoders)}")


RouteDecoder = OneDecoder | DecoderByLevel | DecoderByProperty
"""What a route may decode with."""


def choose_decoder(decoder: RouteDecoder, levels: Mapping[str, str]) -> OneDecoder | DecoderByProperty:
    """Return what decodes the messages of a topic with these levels."""
    return decoder.choose(levels) if isinstance(decoder, DecoderByLevel) else decoder


def is_remembering(decoder: RouteDecoder) -> bool:
    """Return True if a route's decoder, or one of them, remembers messages."""
    return decoder.remembers if isinstance(decoder, DecoderByLevel) else isinstance(decoder, RememberingDecoder)
