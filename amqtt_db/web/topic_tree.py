"""Topics as a tree: what a page of it shows, whether there are ten topics or ten thousand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import attrs


@attrs.frozen
class TopicNode:
    """A branch of the tree, or a topic, or both.

    ``name`` is what the levels above do not say, ``topic`` the levels from the top, ``count`` how many topics are here
    and below.  ``children`` are those that are shown; ``hidden`` is how many more there are.
    """

    name: str
    topic: str
    count: int
    is_topic: bool
    children: tuple[TopicNode, ...] = ()
    hidden: int = 0


@attrs.define
class _Branch:
    count: int = 0
    is_topic: bool = False
    below: dict[str, _Branch] = attrs.field(factory=dict)


def find_topics(topics: Iterable[str], words: str) -> list[str]:
    """Return the topics that contain all words, whatever their case."""
    wanted = words.casefold().split()
    return [topic for topic in topics if all(word in topic.casefold() for word in wanted)]


def make_tree(topics: Iterable[str], at: str | None, most: int, first: int = 0) -> TopicNode:
    """Return the tree of the topics below ``at`` (None: of all), with at most ``most`` nodes, from child ``first`` on.

    Levels are opened as long as there is room, the upper ones first.  A level with nothing beside it is shown together
    with the next one.
    """
    top = _Branch()
    levels = [] if at is None else at.split("/")
    for topic in topics:
        split = topic.split("/")
        if split[: len(levels)] == levels:
            _add_topic(top, split[len(levels) :])
    opened = _find_opened(top, most)
    return _make_node("" if at is None else at, at, top, opened, most, first)


def _add_topic(branch: _Branch, levels: Iterable[str]) -> None:
    branch.count += 1
    for level in levels:
        branch = branch.below.setdefault(level, _Branch())
        branch.count += 1
    branch.is_topic = True


def _find_opened(top: _Branch, most: int) -> set[int]:
    """Return the identities of the branches whose children are shown."""
    opened, shown, level = {id(top)}, len(top.below), list(top.below.values())
    while level:
        needed = sum(len(branch.below) for branch in level)
        if shown + needed > most:
            break
        opened.update(map(id, level))
        shown += needed
        level = [child for branch in level for child in branch.below.values()]
    return opened


def _make_node(name: str, topic: str | None, branch: _Branch, opened: set[int], most: int, first: int = 0) -> TopicNode:
    children: tuple[TopicNode, ...] = ()
    hidden = 0
    if id(branch) in opened:
        below = sorted(branch.below.items())
        children = tuple(
            _chain_levels(level, topic, child, opened, most) for level, child in below[first : first + most]
        )
        hidden = max(0, len(below) - first - most)
    return TopicNode(name, topic or "", branch.count, branch.is_topic, children, hidden)


def _chain_levels(level: str, above: str | None, branch: _Branch, opened: set[int], most: int) -> TopicNode:
    """Return a node; levels that have nothing beside them are one node."""
    name, topic = level, level if above is None else f"{above}/{level}"
    while len(branch.below) == 1 and not branch.is_topic:
        ((level, branch),) = branch.below.items()
        name, topic = f"{name}/{level}", f"{topic}/{level}"
    return _make_node(name, topic, branch, opened, most)


def leaves_of(node: TopicNode) -> Iterator[str]:
    """Yield the topics that a tree shows."""
    if node.is_topic:
        yield node.topic
    for child in node.children:
        yield from leaves_of(child)
