"""How many messages the writer takes from the journal at once: more than usual while they spread over many tables.

A table costs a batch a statement, pages to write and memory that the processor has to fetch, for one row as for eight.
"""

from __future__ import annotations

from typing import Final

import attrs

USUAL_BATCH: Final = 5000
LARGEST_BATCH: Final = 40_000
ROWS_PER_TABLE: Final = 8  # of each table, from which on a table's own cost is small
LARGE_SECONDS: Final = 2.0  # that a larger batch should take: other programs wait 5 s for a lock, and this is a guess


@attrs.frozen
class StoredBatch:
    """What storing a batch was like: its messages, the tables that got rows together, and the seconds it took.

    If it had to be divided, no tables did.
    """

    messages: int
    tables: int
    seconds: float

    def next_size(self, longest: float = LARGE_SECONDS) -> int:
        """Return how many messages the next batch may have; if they are like these, it takes ``longest``."""
        in_time = self.messages * longest / max(self.seconds, 1e-9)
        return max(USUAL_BATCH, min(LARGEST_BATCH, ROWS_PER_TABLE * self.tables, int(in_time)))


def longest_batch(time_limit: float) -> float:
    """Return how many seconds a larger batch may take if user code may take ``time_limit``; 0 means no limit."""
    return min(LARGE_SECONDS, time_limit / 2) if time_limit else LARGE_SECONDS
