"""Equivalence classes as a transcript: which comparisons are asked for, and what comes of the replies."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adaptive_ttc.answers.equivalence import Comparison, partition
from tests.answers.workers import ASKING

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def run(
    answers: Sequence[str | None], agree: Callable[[str, str], bool]
) -> tuple[tuple[str | None, ...], list[Comparison]]:
    """Drive a partition with a checker; return its result and the comparisons that it asked for."""
    search = partition(answers, ASKING)
    asked = []
    try:
        comparison = next(search)
        while True:
            asked.append(comparison)
            comparison = search.send(agree(*comparison))
    except StopIteration as end:
        return end.value, asked


def same_letters(gold: str, answer: str) -> bool:
    return sorted(gold) == sorted(answer)


def test_equal_texts_and_exact_numbers_are_classes_without_a_question() -> None:
    answers = ["7", "8", r"\dfrac{1}{2}", "7", r"\frac{2}{4}", "1/2", "$7$", "-3"] * 32
    classes, asked = run(answers, same_letters)
    assert asked == []
    assert classes == ("7", "8", "1/2", "7", "1/2", "1/2", "7", "-3") * 32


def test_only_representatives_are_compared_and_both_ways() -> None:
    answers = ["ab", "ba", "x", "ab", "xx", "ba"]
    classes, asked = run(answers, same_letters)
    assert classes == ("ab", "ab", "x", "ab", "xx", "ab")
    assert asked == [("x", "ab"), ("x", "ba"), ("ab", "ba"), ("ba", "ab"), ("x", "xx"), ("ab", "xx")]


def test_256_answers_in_three_classes_take_a_handful_of_comparisons() -> None:
    answers = ["ab"] * 120 + ["cd"] * 100 + ["ef"] * 36
    _, asked = run(answers, same_letters)
    assert len(asked) == 3


def test_a_number_is_compared_with_what_is_no_exact_number() -> None:
    classes, asked = run(["7", "8", "x=8", "0.50", "1/2"], lambda gold, answer: {gold, answer} == {"8", "x=8"})
    assert classes == ("7", "8", "8", "0.50", "1/2")
    assert ("1/2", "0.50") in asked
    assert not {("7", "8"), ("7", "1/2"), ("8", "1/2")} & set(asked)


def test_trap_5_missing_and_empty_answers_are_in_no_class() -> None:
    classes, asked = run([None, "", "  ", "$$", "5", None], same_letters)
    assert classes == (None, None, None, None, "5", None)
    assert asked == []
    assert run([], same_letters) == ((), [])


def test_trap_11_a_checker_that_agrees_one_way_only_merges_nothing() -> None:
    def longer_may_stand_for_shorter(gold: str, answer: str) -> bool:
        return len(gold) <= len(answer)

    answers = ["x", "xy", "xyz"]
    assert run(answers, longer_may_stand_for_shorter)[0] == ("x", "xy", "xyz")
    assert run(answers, lambda gold, answer: len(gold) >= len(answer))[0] == ("x", "xy", "xyz")


words = st.text(alphabet="abc", min_size=1, max_size=3)


@unhurried
@given(
    st.lists(st.one_of(words, st.none(), st.sampled_from(["7", "7.0", "14/2"])), max_size=14), st.data(), st.randoms()
)
def test_trap_11_the_order_of_the_answers_changes_nothing_even_for_an_inconsistent_checker(
    answers: list[str | None], data: st.DataObject, rng: random.Random
) -> None:
    # Any relation at all: neither symmetric nor transitive, but the same for the same pair.
    table: dict[Comparison, bool] = {}

    def arbitrary(gold: str, answer: str) -> bool:
        return table.setdefault((gold, answer), data.draw(st.booleans(), label=f"{gold} ~ {answer}"))

    classes, _ = run(answers, arbitrary)
    order = rng.sample(range(len(answers)), len(answers))
    shuffled, _ = run([answers[i] for i in order], lambda gold, answer: table[gold, answer])
    assert shuffled == tuple(classes[i] for i in order)


@unhurried
@given(st.lists(words, min_size=1, max_size=14))
def test_with_a_true_equivalence_the_classes_are_its_classes(answers: list[str]) -> None:
    classes, _ = run(answers, same_letters)
    for i, first in enumerate(answers):
        assert classes[i] == min(
            (text for text in answers if same_letters(text, first)), key=lambda text: (len(text), text)
        )
