"""`remodel` with a progress bar."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.progress import Progress as Bar
from sqlalchemy.exc import DBAPIError

from amqtt_db.cli import show
from amqtt_db.cli.output import make_console
from amqtt_db.config import Settings
from amqtt_db.database.snapshot import answer, require_database
from amqtt_db.errors import DatabaseError, format_count
from amqtt_db.writer.lock import require_same_routes
from amqtt_db.writer.moving import Move, MoveProgress
from amqtt_db.writer.remodel import Remodel
from amqtt_db.writer.retyping import RetypeProgress, Retyping


def move_topics(settings: Settings, topic: str, *, drop: bool) -> str:
    """Rewrite the records of all topics that a filter covers as their routes say; return a summary.

    Raises DatabaseError if the database cannot be used, RewriteError if a record reads back differently, AmqttDbError
    if a writer uses other routes.
    """
    require_database(settings.database)
    require_same_routes(settings.journal.path, settings.routes)
    try:
        remodel = Remodel(settings.database, settings.routes)
        try:
            with Bar(console=make_console()) as bar:
                return _rewrite(remodel, topic, bar, drop=drop)
        finally:
            remodel.close()
    except DBAPIError as error:
        raise DatabaseError(answer(error)) from error


def _rewrite(remodel: Remodel, topic: str, bar: Bar, *, drop: bool) -> str:
    moves = [move for move in remodel.moves(topic) if drop or not move.is_done]
    records = _move_all(remodel, moves, bar)
    retypings = remodel.retypings(topic)
    retyped = [_retype_one(remodel, one, bar) for one in retypings]
    kept = remodel.tidy(retypings)
    for move in moves if drop else ():
        _show_deletion(remodel.drop(move), move, bar)
    lines = [*_tell_moves(moves, records, drop=drop), *_tell_retyped(retyped), *kept]
    return "\n".join(lines) or "Nothing to do: everything is stored as its route says."


def _tell_moves(moves: Sequence[Move], records: int, *, drop: bool) -> Iterator[str]:
    if moves:
        end = "old rows deleted" if drop else "old rows kept; --drop deletes them"
        topics = format_count(len(moves), "topic")
        if all(move.is_done for move in moves):
            yield f"{topics} had been moved before; {end}"
        else:
            yield f"{format_count(records, 'record')} of {topics} rewritten and compared; {end}"


def _tell_retyped(retyped: Sequence[RetypeProgress]) -> Iterator[str]:
    rewritten, converted, left = (
        sum(getattr(one, name) for one in retyped) for name in ("rewritten", "converted", "left")
    )
    if rewritten:
        values = format_count(converted, "value")
        yield f"{format_count(rewritten, 'record')} rewritten as declared; {values} converted"
    if left:
        yield f"{format_count(left, 'value')} kept as before: the declared type does not fit exactly"


def _move_all(remodel: Remodel, moves: Sequence[Move], bar: Bar) -> int:
    """Move all topics; return how many of their records were compared."""
    task, compared = bar.add_task("moving", total=len(moves)), 0
    for progress in remodel.move(*moves):
        compared = progress.records if progress.step == "compared" else compared
        records = format_count(progress.records, "record")
        bar.update(task, completed=progress.topics, description=f"{records} {progress.step}")
    bar.remove_task(task)
    return compared


def _retype_one(remodel: Remodel, retyping: Retyping, bar: Bar) -> RetypeProgress:
    """Type the records of one topic again."""
    topic, progress = show.escape_text(retyping.topic), RetypeProgress()
    task = bar.add_task(topic, total=None)
    for progress in remodel.retype(retyping):
        bar.update(task, description=f"{topic}: {format_count(progress.read, 'record')} read")
    bar.remove_task(task)
    return progress


def _show_deletion(steps: Iterable[MoveProgress], move: Move, bar: Bar) -> None:
    """Show how many old records of a topic are deleted."""
    topic = show.escape_text(move.topic)
    task = bar.add_task(topic, total=None)
    for progress in steps:
        bar.update(task, description=f"{topic}: {format_count(progress.records, 'record')} {progress.step}")
    bar.remove_task(task)
