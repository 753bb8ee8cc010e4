import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_ttc.prm.prefix_cache import PrefixTree

SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12).map(tuple), max_size=20)


class Pool:
    """Remembers, for every place, the prefix that was put there."""

    def __init__(self, capacity):
        self.tree = PrefixTree(capacity)
        self.places = {}

    def insert(self, tokens):
        insertion = self.tree.insert(tokens)
        for offset, place in enumerate(insertion.places.tolist(), insertion.start + 1):
            self.places[place] = tokens[:offset]
        return insertion

    def check(self, tokens):
        found = self.tree.match(tokens).tolist()
        assert [self.places[place] for place in found] == [tokens[: index + 1] for index in range(len(found))]
        return len(found)


def shared(a, b):
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def test_a_stored_sequence_and_every_prefix_of_it_are_found():
    pool = Pool(100)
    pool.insert((1, 2, 3, 4, 5))
    assert pool.check((1, 2, 3, 4, 5, 6)) == 5
    assert pool.check((1, 2, 3)) == 3
    assert pool.check((1, 2, 9)) == 2
    assert pool.check((9,)) == 0
    assert pool.check(()) == 0


def test_only_what_is_new_takes_places():
    pool = Pool(100)
    assert len(pool.insert((1, 2, 3, 4)).places) == 4
    branch = pool.insert((1, 2, 7, 8))
    assert (branch.start, len(branch.places)) == (2, 2)
    assert len(pool.insert((1, 2, 3)).places) == 0
    longer = pool.insert((1, 2, 3, 4, 5))
    assert (longer.start, len(longer.places)) == (4, 1)
    assert pool.tree.stored_tokens == 7
    for sequence in ((1, 2, 3, 4, 5), (1, 2, 7, 8)):
        assert pool.check(sequence) == len(sequence)


def test_the_least_recently_used_leaf_goes_first():
    pool = Pool(9)
    for first in (1, 2, 3):
        pool.insert((first, 0, 0))
    pool.check((1, 0, 0))
    pool.insert((4, 0, 0))
    assert [pool.check((first, 0, 0)) for first in (1, 2, 3, 4)] == [3, 0, 3, 3]


def test_a_shared_trunk_outlives_its_leaves():
    pool = Pool(8)
    pool.insert((1, 1, 1, 2, 2))
    pool.insert((1, 1, 1, 3, 3))
    pool.insert((1, 1, 1, 4, 4))
    assert pool.check((1, 1, 1, 2, 2)) == 3
    assert pool.check((1, 1, 1, 3, 3)) == 5
    assert pool.check((1, 1, 1, 4, 4)) == 5


def test_a_sequence_longer_than_the_pool_is_stored_in_part():
    pool = Pool(4)
    assert len(pool.insert(tuple(range(10))).places) == 4
    assert pool.check(tuple(range(10))) == 4


def test_a_sequence_does_not_evict_its_own_prefix():
    pool = Pool(4)
    pool.insert((1, 2, 3))
    insertion = pool.insert((1, 2, 3, 4, 5, 6))
    assert (insertion.start, len(insertion.places)) == (3, 1)
    assert pool.check((1, 2, 3, 4, 5, 6)) == 4


def test_an_empty_pool_stores_nothing():
    pool = Pool(0)
    assert len(pool.insert((1, 2)).places) == 0
    assert pool.check((1, 2)) == 0


@settings(deadline=None, max_examples=30)
@given(SEQUENCES)
def test_without_eviction_the_longest_shared_prefix_is_found(sequences):
    pool = Pool(1000)
    for index, sequence in enumerate(sequences):
        assert pool.check(sequence) == max([shared(sequence, other) for other in sequences[:index]], default=0)
        pool.insert(sequence)


@settings(deadline=None, max_examples=30)
@given(SEQUENCES, st.integers(1, 30))
def test_under_eviction_no_place_is_lost_or_given_twice(sequences, capacity):
    pool = Pool(capacity)
    for sequence in sequences:
        insertion = pool.insert(sequence)
        assert pool.check(sequence) == insertion.start + len(insertion.places)
        for other in sequences:
            pool.check(other)
    held = []
    stack = [pool.tree._root]
    while stack:
        node = stack.pop()
        held += node.places.tolist()
        stack += node.children.values()
    free = pool.tree._free[: pool.tree._free_count].tolist()
    assert sorted(held + free) == np.arange(capacity).tolist()
    assert pool.tree.stored_tokens == len(held)
