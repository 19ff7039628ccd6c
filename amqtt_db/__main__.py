"""``python -m amqtt_db`` is ``amqtt-db``."""

from __future__ import annotations

import os
import sys

if sys.path[:1] in ([os.getcwd()], [""]):  # a user's queue.py must not take the place of Python's
    sys.path.append(sys.path.pop(0))

from amqtt_db.cli import main

if __name__ == "__main__":
    main()
