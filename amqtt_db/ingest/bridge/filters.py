"""From the routes' filters to a subscription's: as few as possible, and no two that match the same topic.

Some brokers deliver a message once for each filter of a client that matches it.
"""

from __future__ import annotations

from collections.abc import Iterable


def cover(filters: Iterable[str]) -> list[str]:
    """Return filters that cover all of ``filters``, sorted; no two of them match the same topic.

    Filters that overlap without one covering the other are joined: additional messages that the result matches go to
    no route, and are counted as ignored.
    """
    found: list[str] = []
    for topic_filter in filters:
        joined = topic_filter
        while (other := next((one for one in found if overlap(one, joined)), None)) is not None:
            found.remove(other)
            joined = _join(other, joined)
        found.append(joined)
    return sorted(found)


def overlap(one: str, other: str) -> bool:
    """Return True if there is a topic that both filters match."""
    left, right = one.split("/"), other.split("/")
    if _is_hidden(left[0], right[0]):
        return False
    for index in range(max(len(left), len(right))):
        mine = left[index] if index < len(left) else None
        theirs = right[index] if index < len(right) else None
        if "#" in (mine, theirs):
            return True  # it matches its parent too
        if mine is None or theirs is None or (mine != theirs and "+" not in (mine, theirs)):
            return False
    return True


def _is_hidden(one: str, other: str) -> bool:
    """Return True if one first level begins with $ and the other is a wildcard, which does not match it."""
    return (one.startswith("$") and other in ("+", "#")) or (other.startswith("$") and one in ("+", "#"))


def _join(one: str, other: str) -> str:
    """Return the narrowest filter that covers both of two that overlap."""
    levels: list[str] = []
    left, right = one.split("/"), other.split("/")
    for index in range(max(len(left), len(right))):
        mine = left[index] if index < len(left) else None
        theirs = right[index] if index < len(right) else None
        if "#" in (mine, theirs) or mine is None or theirs is None:
            return "/".join([*levels, "#"])
        levels.append(mine if mine == theirs else "+")
    return "/".join(levels)
