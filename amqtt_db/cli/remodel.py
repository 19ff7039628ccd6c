"""`remodel` with a progress bar."""

from __future__ import annotations

from collections.abc import Iterable

from rich.progress import Progress as Bar
from sqlalchemy.exc import DBAPIError

from amqtt_db.cli import show
from amqtt_db.cli.output import make_console
from amqtt_db.config import Settings
from amqtt_db.database.snapshot import answer, require_database
from amqtt_db.errors import DatabaseError, format_count
from amqtt_db.writer.lock import require_same_routes
from amqtt_db.writer.remodel import Move, MoveProgress, Remodel


def move_topics(settings: Settings, topic: str, *, drop: bool) -> str:
    """Move the records of all topics that a filter covers to their routes' models; return a summary.

    Raises DatabaseError if the database cannot be used, RemodelError if a record reads back differently, AmqttDbError
    if a writer is running with different routes.
    """
    require_database(settings.database)
    require_same_routes(settings.journal.path, settings.routes)
    try:
        remodel = Remodel(settings.database, settings.routes)
        try:
            moves = [move for move in remodel.moves(topic) if drop or not move.is_done]
            with Bar(console=make_console()) as bar:
                records = sum(_move_one(remodel, move, bar) for move in moves)
                for move in moves if drop else ():
                    _show_progress(remodel.drop(move), move, bar)
        finally:
            remodel.close()
    except DBAPIError as error:
        raise DatabaseError(answer(error)) from error
    if not moves:
        return "Nothing to do: every topic already uses its route's model."
    end = "old rows deleted" if drop else "old rows kept; --drop deletes them"
    return f"{format_count(records, 'record')} of {format_count(len(moves), 'topic')} rewritten and compared; {end}"


def _move_one(remodel: Remodel, move: Move, bar: Bar) -> int:
    """Move one topic; return how many of its records were compared."""
    return _show_progress(remodel.move(move), move, bar).get("compared", 0)


def _show_progress(steps: Iterable[MoveProgress], move: Move, bar: Bar) -> dict[str, int]:
    """Show each step; return how many records each kind of step handled."""
    task = bar.add_task(show.escape_text(move.topic), total=None)
    counts: dict[str, int] = {}
    for progress in steps:
        bar.update(task, description=_describe_progress(move, progress))
        counts[progress.step] = progress.records
    bar.remove_task(task)
    return counts


def _describe_progress(move: Move, progress: MoveProgress) -> str:
    return f"{show.escape_text(move.topic)}: {format_count(progress.records, 'record')} {progress.step}"
