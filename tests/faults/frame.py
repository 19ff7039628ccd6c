"""What most faults have around them: clients that publish from before it until after it, and the judgement."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.faults.load import Load
from tests.faults.scene import Scene, Verdict


@contextmanager
def judged(scene: Scene, count: Callable[[Verdict], None], first: int = 300, **judging: Any) -> Iterator[Load]:
    """A load on a scene; ``first`` messages are acknowledged before the context begins.

    At its end the clients end, all that was acknowledged is stored, nothing has become a dead letter, and it counts.
    If the context fails, the clients are stopped, too.
    ``judging`` are arguments for :meth:`Scene.judge`.
    """
    load = Load(scene.port)
    try:
        load.wait(first)
        yield load
    except BaseException:
        load.stop()
        raise
    verdict = scene.judge(load.end(), **judging)
    assert verdict.dead == 0
    count(verdict)
