"""Which answers are equal and which are not: the pairs of ``equal.txt`` and ``unequal.txt``, by kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from adaptive_ttc.answers import Grader, canonical
from adaptive_ttc.answers.spaces.mathematics import MATH

Pair = tuple[str, str]


def pairs_of(name: str) -> dict[str, list[Pair]]:
    """Pairs by kind."""
    kinds: dict[str, list[Pair]] = {}
    for line in Path(__file__).with_name(name).read_text(encoding="utf-8").splitlines()[1:]:
        if line.startswith("# "):
            found = kinds.setdefault(line[2:], [])
        elif line:
            first, second = line.split(" | ", 1)
            found.append((first, second))
    return kinds


EQUAL, UNEQUAL = pairs_of("equal.txt"), pairs_of("unequal.txt")
TEXTS = sorted({canonical(text) for kinds in (EQUAL, UNEQUAL) for pairs in kinds.values() for p in pairs for text in p})


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader() as grader:
        yield grader


def test_there_are_enough_pairs_and_none_is_in_both_tables() -> None:
    equal, unequal = ({frozenset(p) for pairs in kinds.values() for p in pairs} for kinds in (EQUAL, UNEQUAL))
    assert len(equal) > 350
    assert len(unequal) > 250
    assert not equal & unequal


@pytest.mark.parametrize("kind", EQUAL)
def test_equal_answers_are_right_in_both_orders_and_share_a_class(grader: Grader, kind: str) -> None:
    wrong = [pair for pair in EQUAL[kind] if not (grader.equal_sync(*pair) and grader.equal_sync(*pair[::-1]))]
    parted = [pair for pair in EQUAL[kind] if len(set(grader.classes_sync(pair))) > 1]
    assert (wrong, parted) == ([], [])


@pytest.mark.parametrize("kind", UNEQUAL)
def test_unequal_answers_are_wrong_in_both_orders_and_share_no_class(grader: Grader, kind: str) -> None:
    wrong = [pair for pair in UNEQUAL[kind] if grader.equal_sync(*pair) or grader.equal_sync(*pair[::-1])]
    merged = [pair for pair in UNEQUAL[kind] if len(set(grader.classes_sync(pair))) < 2]
    assert (wrong, merged) == ([], [])


def test_hardly_any_pair_needs_a_worker() -> None:
    told = [MATH.equal(*map(canonical, pair)) for kinds in (EQUAL, UNEQUAL) for ps in kinds.values() for pair in ps]
    assert sum(verdict is None for verdict in told) < 0.02 * len(told)


def test_verdicts_are_symmetric_and_keys_say_the_same_as_comparisons() -> None:
    keys = {text: MATH.key(text) for text in TEXTS}
    assert sum(key is not None for key in keys.values()) > 0.5 * len(TEXTS)
    for place, first in enumerate(TEXTS):
        for second in TEXTS[place % 7 : place : 7]:  # every seventh
            verdict = MATH.equal(first, second)
            assert verdict is MATH.equal(second, first), (first, second)
            if keys[first] is not None and keys[second] is not None:
                assert verdict is (keys[first] == keys[second]), (first, second)


def test_answers_without_a_second_meaning_are_equal_transitively() -> None:
    plain = [text for text in TEXTS if MATH.key(text) is not None]
    classes: dict[object, list[str]] = {}
    for text in plain:
        classes.setdefault(MATH.key(text), []).append(text)
    large = [texts for texts in classes.values() if len(texts) > 2]
    assert len(large) > 10
    for texts in large:
        assert all(MATH.equal(first, second) for first in texts for second in texts)
