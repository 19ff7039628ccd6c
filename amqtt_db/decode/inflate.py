"""Decompress without letting a short payload fill the memory."""

from __future__ import annotations

import zlib
from typing import Final

from amqtt_db.errors import DecodeError

MAX_SIZE: Final = 64 * 2**20
"""The default maximum size of a decompressed payload, in bytes."""

GZIP: Final = 31
ZLIB: Final = 15
RAW_DEFLATE: Final = -15
"""What zlib calls the formats."""


def inflate(payload: bytes, name: str, format_: int, max_size: int = MAX_SIZE) -> bytes:
    """Return decompressed bytes, of all members of a gzip file; ``name`` is for messages.

    Raises DecodeError, also for more than ``max_size`` bytes.
    """
    try:
        return _inflate(payload, name, format_, max_size)
    except zlib.error as error:
        raise DecodeError(f"not {name}: {error}") from None


def _inflate(payload: bytes, name: str, format_: int, max_size: int) -> bytes:
    members: list[bytes] = []
    room = max_size
    while payload or not members:
        stream = zlib.decompressobj(format_)
        members.append(stream.decompress(payload, room + 1))
        room -= len(members[-1])
        if room < 0:
            raise DecodeError(f"more than {max_size} bytes when decompressed")
        if not stream.eof:
            raise DecodeError(f"not {name}: it ends too early" if payload else "empty payload")
        payload = stream.unused_data.lstrip(b"\0")
        if payload and format_ != GZIP:
            raise DecodeError(f"not {name}: unexpected bytes at its end")
    return members[0] if len(members) == 1 else b"".join(members)
