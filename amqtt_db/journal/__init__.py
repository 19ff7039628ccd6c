"""The durable queue between the broker or bridge and the writer.

Once :meth:`Journal.commit` has returned, its entries are as safe as ``sync`` says, survive the killing of any process,
and can be read exactly and in order by any number of other processes, which never block the owner.

The journal is an SQLite file in WAL mode.  One process owns it, which a lock on ``<path>.lock`` ensures, and only the
owner writes to it.  Entries are stored in groups, one row each: the position of the first entry, the number of entries,
and a blob that :mod:`amqtt_db.journal.group` explains.  Positions ascend and may have gaps.  The next one comes from
the groups in the file and from a stored number that is updated whenever groups are deleted.  Notes are small values by
scope and key that are committed with the entries and outlive them.

Each opening by an owner begins a generation with a random token, which is on disk before anything else, whatever
``sync`` says.  So a position together with its token is never used twice, even if a power failure undoes entries that
were not synced yet, or somebody restores a copy.  The first entry of a generation is of kind START.  In the file the
table of generations is called ``opening``.

The process that stores the entries elsewhere reports how far it has got (:mod:`amqtt_db.journal.progress`); the owner
deletes the groups before that position in its own commits.  The file keeps its size; the space inside is reused.
"""

from __future__ import annotations

from amqtt_db.journal.backlog import Backlog, read_backlog
from amqtt_db.journal.file import require_unowned
from amqtt_db.journal.group import Entry, with_properties
from amqtt_db.journal.owner import NO_LONGER_FULL, Journal, Sync
from amqtt_db.journal.progress import Progress, read_progress, write_progress
from amqtt_db.journal.reader import Generation, JournalReader
from amqtt_db.journal.report import Failure, WriterReport, read_report, write_report

__all__ = [
    "NO_LONGER_FULL",
    "Backlog",
    "Entry",
    "Failure",
    "Generation",
    "Journal",
    "JournalReader",
    "Progress",
    "Sync",
    "WriterReport",
    "read_backlog",
    "read_progress",
    "read_report",
    "require_unowned",
    "with_properties",
    "write_progress",
    "write_report",
]
