"""``amqtt-db``, which is also ``python -m amqtt_db``."""

from __future__ import annotations

import os
import sys

if sys.path[:1] in ([os.getcwd()], [""]):  # a user's queue.py must not take the place of Python's
    sys.path.append(sys.path.pop(0))


def run_command_line() -> None:
    """Run ``amqtt-db``.

    Before a command begins and after it has ended there is nothing to tidy up, so Ctrl-C ends the process at once, not
    by an exception that would show a traceback.
    """
    import signal  # noqa: PLC0415 - not before a user's signal.py is out of the way

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from amqtt_db.cli import main  # noqa: PLC0415 - most of the time of a short command goes into this

    main()


if __name__ == "__main__":
    run_command_line()
