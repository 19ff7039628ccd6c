"""Bytes on disk per message for each model, of one history.

usage: python benchmarks/size.py [--messages 100000] [--json FILE]

Seven fields a message over 20 topics, as `benchmarks/writer.py` stores them; the file is vacuumed first.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import tempfile
from pathlib import Path

from writer import ROUTES, drain, fill, payload


def main() -> None:
    """Fill a database for each route and look at its size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rng = random.Random(7)
    payloads = [payload(rng, number) for number in range(arguments.messages)]
    results = {"payload": sum(map(len, payloads)) / len(payloads)}
    for name, route in ROUTES.items():
        with tempfile.TemporaryDirectory() as folder:
            directory = Path(folder)
            fill(directory / "journal", payloads)
            drain(directory, directory / "journal", route)
            connection = sqlite3.connect(directory / "mqtt.db")
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.close()
            results[name] = (directory / "mqtt.db").stat().st_size / len(payloads)
    for name, size in results.items():
        print(f"{name:28}{size:8.0f} bytes")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
