"""``python -m amqtt_db`` is ``amqtt-db``."""

from __future__ import annotations

from amqtt_db.cli import main

if __name__ == "__main__":
    main()
