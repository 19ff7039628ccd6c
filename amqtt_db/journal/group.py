"""The layout of a group of consecutive entries in one blob, column by column.

A blob is: one byte with the version of this layout; a CRC-32 of all that follows; then for all entries their times and
sessions (int64), topic and payload lengths (uint32) and flags (one byte), all little-endian; then all topics; then all
payloads.  Writing or reading a group takes a handful of calls, however many entries it has.  SQLite has no checksums
outside the WAL: without this one, a damaged payload would be stored as if it had been published.

If messages have properties, the version is another one, and what stands for the payload of each message flagged so is
the length of its properties (uint32), these, and the payload.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain, pairwise
from struct import Struct, calcsize, error, pack
from typing import Final
from zlib import crc32

import attrs

from amqtt_db.errors import JournalError
from amqtt_db.message import CONNECT, HAS_PROPERTIES, flags

Entry = tuple[int, int, int, bytes, bytes]
"""Time, flags, session, topic and payload; the position follows from the index in the group.

For a message with properties, see :func:`with_properties`.
"""

LAYOUT_VERSION: Final = 2
LAYOUT_WITH_PROPERTIES: Final = 3
FIXED: Final = calcsize("<qqIIB")
"""Bytes that an entry takes besides its topic and payload."""
OTHER_KINDS: Final = flags(CONNECT)
"""The lowest value of flags that does not belong to a published message."""

DAMAGED: Final = (
    "a group of the journal is damaged; restart the broker, which sets the file aside and keeps everything readable"
)

_CHECKSUM_STARTS: Final = {LAYOUT_VERSION: 0, LAYOUT_WITH_PROPERTIES: 1}  # so that it covers the version too
_HEAD: Final = Struct("<BI")
_LENGTH: Final = Struct("<I")
_WITHOUT_PROPERTIES: Final = bytes(value for value in range(256) if not value & HAS_PROPERTIES)
_MOST_ENTRIES: Final = 5000
_MOST_BYTES: Final = 4 * 2**20


@attrs.frozen
class EntryColumns:
    """The decoded entries of one group or of several."""

    times: Sequence[int]
    flags: Sequence[int]
    sessions: Sequence[int]
    topics: Sequence[bytes]
    payloads: Sequence[bytes]
    properties: Sequence[bytes] = ()

    def part(self, start: int, stop: int) -> EntryColumns:
        """Return the entries from index ``start`` up to ``stop``."""
        here = slice(start, stop)
        return EntryColumns(
            self.times[here], self.flags[here], self.sessions[here], self.topics[here], self.payloads[here],
            self.properties[here],
        )  # fmt: skip

    @classmethod
    def joined(cls, parts: Sequence[EntryColumns]) -> EntryColumns:
        """Return all entries of ``parts``, in order."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            list(chain.from_iterable(part.times for part in parts)),
            b"".join(bytes(part.flags) for part in parts),
            list(chain.from_iterable(part.sessions for part in parts)),
            list(chain.from_iterable(part.topics for part in parts)),
            list(chain.from_iterable(part.payloads for part in parts)),
            _joined_properties(parts),
        )

    def all(self) -> tuple[Sequence[int], Sequence[int], Sequence[int], Sequence[bytes], Sequence[bytes]]:
        """Return the columns in the order of a :class:`~amqtt_db.message.Batch`."""
        return self.times, self.flags, self.sessions, self.topics, self.payloads


def with_properties(flags: int, payload: bytes, properties: bytes) -> tuple[int, bytes]:
    """Return the flags and the payload of an entry for a message with properties; unchanged if these are empty."""
    if not properties:
        return flags, payload
    return flags | HAS_PROPERTIES, _LENGTH.pack(len(properties)) + properties + payload


def _joined_properties(parts: Sequence[EntryColumns]) -> Sequence[bytes]:
    if not any(part.properties for part in parts):
        return ()
    return list(chain.from_iterable(part.properties or [b""] * len(part.times) for part in parts))


def encode_group(entries: Sequence[Entry]) -> bytes:
    """Return the blob of a group of at least one entry."""
    times, flags, sessions, topics, payloads = zip(*entries, strict=True)
    count = len(entries)
    lengths = pack(f"<{2 * count}I", *map(len, topics), *map(len, payloads))
    kinds = bytes(flags)
    body = b"".join((pack(f"<{2 * count}q", *times, *sessions), lengths, kinds, *topics, *payloads))
    layout = LAYOUT_WITH_PROPERTIES if kinds.translate(None, _WITHOUT_PROPERTIES) else LAYOUT_VERSION
    return _HEAD.pack(layout, crc32(body, _CHECKSUM_STARTS[layout])) + body


def decode_group(count: int, blob: bytes) -> EntryColumns:
    """Return the ``count`` entries of a blob.  Raises JournalError if it is damaged or of a newer layout."""
    layout = blob[0] if blob else 0
    if layout not in _CHECKSUM_STARTS:
        raise JournalError("a group of the journal has an unknown layout: damaged, or written by another version")
    head = Struct(f"<{_HEAD.size}x{2 * count}q{2 * count}I{count}s")
    try:
        (_, checksum), (*numbers, flags) = _HEAD.unpack_from(blob), head.unpack_from(blob)
    except error as cause:
        raise JournalError(DAMAGED) from cause
    bounds = list(accumulate(numbers[2 * count :], initial=head.size))
    if bounds[-1] != len(blob) or crc32(memoryview(blob)[_HEAD.size :], _CHECKSUM_STARTS[layout]) != checksum:
        raise JournalError(DAMAGED)
    values = [blob[start:stop] for start, stop in pairwise(bounds)]
    columns = EntryColumns(numbers[:count], flags, numbers[count : 2 * count], values[:count], values[count:])
    return _with_divided_payloads(columns) if layout == LAYOUT_WITH_PROPERTIES else columns


def _with_divided_payloads(columns: EntryColumns) -> EntryColumns:
    properties, payloads = zip(*map(_divide_payload, columns.flags, columns.payloads), strict=True)
    return attrs.evolve(columns, payloads=payloads, properties=properties)


def _divide_payload(flag: int, stored: bytes) -> tuple[bytes, bytes]:
    """Return the properties and the payload of an entry."""
    if not flag & HAS_PROPERTIES:
        return b"", stored
    end = _LENGTH.size + _LENGTH.unpack_from(stored)[0]
    return stored[_LENGTH.size : end], stored[end:]


def split_groups(entries: Sequence[Entry], most_bytes: int = _MOST_BYTES) -> Iterator[Sequence[Entry]]:
    """Split entries into groups of at most 5,000 entries and ``most_bytes``, but at least one entry."""
    start = 0
    while start < len(entries):
        stop = start + fitting(map(_entry_size, entries[start : start + _MOST_ENTRIES]), most_bytes)
        yield entries[start:stop]
        start = stop


def fitting(sizes: Iterable[int], most_bytes: int) -> int:
    """Return how many of the sizes, at least one, add up to ``most_bytes`` or less."""
    count = 0
    for total in accumulate(sizes):
        if total > most_bytes and count:
            break
        count += 1
    return count


def _entry_size(entry: Entry) -> int:
    return FIXED + len(entry[3]) + len(entry[4])
