"""What the tests of all decoders use."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from types import GeneratorType
from typing import Any, Final
from uuid import UUID

import pytest

from amqtt_db.decode import EMPTY, Decoder, DecoderByLevel, DecoderByProperty, RememberingDecoder, resolve
from amqtt_db.decode.checks import MAX_DEPTH
from amqtt_db.errors import DecodeError
from amqtt_db.registry import SpecError

SCALARS: Final = frozenset({type(None), bool, int, float, str, bytes, datetime, date, time, Decimal, UUID})
MOST_VALUES: Final = 20  # of a payload, and of each of its bytes: a record has properties that it does not spell out


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


def check_any(decode: Callable[[bytes], Any], payload: bytes, kind: type = object) -> None:
    """Check what a decoder makes of any payload: plain data within the bounds, or its own error with a reason.

    ``kind`` is that of each record.
    """
    try:
        data = decode(payload)
        records, reason = list(data) if isinstance(data, GeneratorType) else [data], "none"
    except DecodeError as error:
        records, reason = [], str(error)
    assert reason
    assert all(isinstance(record, kind) for record in records)
    assert sum(map(count_values, records)) <= MOST_VALUES * (len(payload) + 1)


def count_values(data: Any, depth: int = 0) -> int:
    """Return the number of values in plain data; check that nothing else is in it, and that it is not too deep."""
    if data is EMPTY or type(data) in SCALARS:
        return 1
    assert depth < MAX_DEPTH
    if type(data) is list:
        return 1 + sum(count_values(item, depth + 1) for item in data)
    assert type(data) is dict
    assert set(map(type, data)) <= {str}
    return 1 + sum(count_values(item, depth + 1) for item in data.values())
