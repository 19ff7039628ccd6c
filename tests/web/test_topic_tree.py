"""Topics as a tree."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from amqtt_db.web.topic_tree import TopicNode, find_topics, leaves_of, make_tree

topics = st.sets(st.lists(st.sampled_from(["a", "b", "", "c"]), min_size=1, max_size=4).map("/".join), max_size=40)


def size(node: TopicNode) -> int:
    """How many nodes there are below."""
    return sum(1 + size(child) for child in node.children)


@given(topics)
def test_all_topics_are_in_a_tree_with_room(names: set[str]) -> None:
    """Each once."""
    assert sorted(leaves_of(make_tree(names, None, 1000))) == sorted(names)


@given(topics, st.integers(4, 12))
def test_a_tree_keeps_to_its_size(names: set[str], most: int) -> None:
    """What is not shown is counted where it is, and shown there when asked for."""
    tree = make_tree(names, None, most)
    assert size(tree) <= most
    found, rest = set(), [tree]
    while rest:
        node = rest.pop()
        found |= {node.topic} if node.is_topic and node is not tree else set()
        if not node.children and node.count > node.is_topic:
            node = make_tree(names, node.topic, most)
        rest += node.children
    assert found == names


def test_levels_with_nothing_beside_them_are_one_node() -> None:
    """And a topic is never hidden inside such a node."""
    tree = make_tree(["a/b/c/d", "a/b/c/e", "f/g", "f/g/h"], None, 100)
    assert [child.name for child in tree.children] == ["a/b/c", "f/g"]
    assert [child.name for child in tree.children[1].children] == ["h"]
    assert tree.children[1].is_topic


def test_words_find_topics() -> None:
    """All of them must be there, in any order and case."""
    assert find_topics(["Home/Kitchen", "home/attic"], "kitchen HOME") == ["Home/Kitchen"]
