"""What the tests of all decoders use."""

from __future__ import annotations

from types import GeneratorType
from typing import Any

import pytest

from amqtt_db.decode import Decoder, DecoderByLevel, DecoderByProperty, RememberingDecoder, resolve
from amqtt_db.errors import DecodeError
from amqtt_db.registry import SpecError


def plain_decoder(spec: Any) -> Decoder:
    """Return a decoder that needs nothing but the payload."""
    decoder = resolve(spec, where="decode")
    assert not isinstance(decoder, (RememberingDecoder, DecoderByLevel, DecoderByProperty))
    return decoder


def decoded(spec: Any, payload: bytes) -> Any:
    """Return what a decoder makes of a payload; several records as a list."""
    data = plain_decoder(spec)(payload)
    return list(data) if isinstance(data, GeneratorType) else data


def refusal(spec: Any, payload: bytes) -> str:
    """Return the reason why a decoder refuses a payload."""
    with pytest.raises(DecodeError) as error:
        decoded(spec, payload)
    return str(error.value)


def mistakes(spec: Any) -> list[str]:
    """Return the mistakes in a spec."""
    with pytest.raises(SpecError) as error:
        resolve(spec, where="decode")
    return [str(problem) for problem in error.value.problems]
