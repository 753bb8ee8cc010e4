"""The equivalence classes of a set of answers, as a generator that asks for comparisons; it knows no checker."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from fractions import Fraction

from adaptive_ttc.answers.extraction import canonical, exact_value

Comparison = tuple[str, str]
"""(gold, answer), both canonical: "is ``answer`` right where ``gold`` is the right answer?"."""


def partition(answers: Sequence[str | None]) -> Generator[Comparison, bool, tuple[str | None, ...]]:
    """Map every answer to the text that stands for its equivalence class; None and empty answers to None.

    Answers with the same canonical text are one class at no cost. The remaining texts are taken from
    short to long (equals alphabetically) and each joins the first class whose representative agrees
    with it in *both* directions, as equivalence checkers are not symmetric; else it founds a class. So
    the shortest text stands for a class, and the result depends on the set of the texts alone, never
    on the order of the answers.
    """
    texts = tuple(canonical(answer) if answer is not None else "" for answer in answers)
    class_of: dict[str, str] = {}
    representatives: list[str] = []
    exact: dict[
        Fraction | tuple[Fraction, ...], str
    ] = {}  # representatives that are exact values: different ones need no comparison
    inexact: list[str] = []
    for text in sorted(set(texts) - {""}, key=lambda text: (len(text), text)):
        value = exact_value(text)
        found = exact.get(value) if value is not None else None
        for representative in inexact if value is not None else representatives:
            if found is not None:
                break
            if (yield representative, text) and (yield text, representative):
                found = representative
        if found is None:
            found = text
            representatives.append(text)
            if value is None:
                inexact.append(text)
            else:
                exact[value] = text
        class_of[text] = found
    return tuple(class_of.get(text) for text in texts)
