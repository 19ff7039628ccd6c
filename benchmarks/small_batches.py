"""What a small batch costs the writer, in a loop and after a pause in which others have used the processor's caches.

usage: python benchmarks/small_batches.py [--sizes 1,6,25] [--batches 200] [--engines sqlite,postgresql,mysql]
                                          [--json FILE]

Microseconds of CPU per batch, without the journal: medians.  For ``after a pause`` this program copies 64 MB before
each batch; at ten messages a second every batch comes after a pause.
"""

from __future__ import annotations

import argparse
import logging
import statistics
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from common import ENGINES, ROUTES, Storing, at_hand, batches, climate, show_and_save, timed

from amqtt_db.message import Batch

WARM: Final = 50  # batches before the first that counts
MEMORY: Final = bytearray(64 * 2**20)
WIDTHS: Final = (-12, 10, 12, 15)


def measure(storing: Storing, some: Sequence[Batch], *, is_cold: bool) -> float:
    """Return the median of the microseconds of CPU that a batch takes."""
    taken = []
    for batch in some:
        if is_cold:
            bytes(MEMORY)
        taken.append(timed(partial(storing.store, batch)).cpu * 1e6)
    return statistics.median(taken)


def rows(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield a row for each database and size."""
    for database in at_hand(arguments.engines):
        for size in map(int, arguments.sizes.split(",")):
            with database.fresh() as url, Storing(url, ROUTES["wide"]) as storing:
                storing.register("a", 1)
                made = batches(climate((WARM + 2 * arguments.batches) * size), size)
                storing.store_all(made[:WARM])
                middle = WARM + arguments.batches
                loop = measure(storing, made[WARM:middle], is_cold=False)
                pause = measure(storing, made[middle:], is_cold=True)
                yield {"engine": database.name, "messages": size, "in a loop": loop, "after a pause": pause}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1,6,25")
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--engines", default=ENGINES)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    logging.disable()
    show_and_save(rows(arguments), WIDTHS, arguments.json)


if __name__ == "__main__":
    main()
