"""Extraction and canonical text: string work that must be right, stable and quick on any text."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adaptive_ttc.answers import canonical, extract_answer
from adaptive_ttc.answers.extraction import MAX_CHARS

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

# Text made of what the rules look for, so that a rule's outcome can become another rule's input.
PIECES = [
    "\\", "{", "}", "$", " ", "~", ".", ",", ";", "-", "\u2212", "1", "23", "000", "x", "!", "(", ")", "[", "]", "\n",
    "\x00", "\ud800", "\\left", "\\right", "\\frac", "\\dfrac", "\\sqrt", "\\text", "\\mbox", "\\boxed", "\\fbox{",
    "boxed", "\\,", "\\!", "{,}", "\\ ", "\\leq", "\\$", "\\%", "\\pi", "\\quad",
]  # fmt: skip
latex = st.lists(st.sampled_from(PIECES), max_size=25).map("".join)
plain = st.lists(st.sampled_from([p for p in PIECES if not set(p) & set("\\{}")]), max_size=9).map("".join)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{7}.", "7"),
        (r"first \boxed{1}, then \boxed{2} in the end", "2"),
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{\{1, 2\}}", r"\{1,2\}"),
        (r"\boxed{\left[0, 1\right\}}", r"[0,1\}"),
        (r"\boxed{\text{Answer: } \boxed{5}}", "5"),
        (r"\boxed {3} and \fbox{4}", "4"),
        (r"\\boxed{9}", "9"),
        (r"\boxed 17$", "17"),
        (r"\boxed{7\ }", "7"),
        ("\\boxed{\n  x = 5\n}", "x=5"),
        (r"lost } brace, { another, \boxed{6}", "6"),
        (r"\boxed{8} and then cut off: \boxed{1", "8"),
    ],
)
def test_the_last_complete_box_is_the_answer(text: str, answer: str) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The answer is 9.",
        "Thus, 196 has exactly **9** positive whole-number divisors.",
        r"cut off within \boxed{12",
        r"\boxed{\frac{1}{2}",
        r"boxed{5}",
        r"\boxed and so on",
    ],
)
def test_without_a_complete_box_there_is_no_answer_and_none_is_guessed(text: str) -> None:
    assert extract_answer(text) is None


@pytest.mark.parametrize("empty", ["", " ", "\n", "$$", r"\,", ".", r"\left.\right.", "\x00", r"\( \)", "\ud800"])
def test_trap_5_an_empty_box_is_no_answer(empty: str) -> None:
    assert canonical(empty) == ""
    assert extract_answer(rf"\boxed{{{empty}}}") is None
    assert extract_answer(rf"\boxed{{5}}, put your answer into \boxed{{{empty}}}") == "5"


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})"),
        (r"\dfrac{3}{4}", r"\frac{3}{4}"),
        (r"\frac34", r"\frac{3}{4}"),
        (r"\frac 5 9", r"\frac{5}{9}"),
        (r"11\sqrt2", r"11\sqrt{2}"),
        ("$7$", "7"),
        (r"\(7\)", "7"),
        ("7.", "7"),
        (r"\$18.90", "$18.90"),
        ("1,000", "1000"),
        (r"7\ ", "7"),
        ("**7**", "7"),
        (r"\textbf{7}", "7"),
        (r"11,\! 111,\! 100", "11111100"),
        (r"10{,}080", "10080"),
        ("\u22125", "-5"),
        ("- 5", "-5"),
        (r"x \leq 3", r"x\le 3"),
        (r"\mbox{ inches}", r"\text{inches}"),
        (r"\bigl(1,~2\bigr)", "(1,2)"),
    ],
)
def test_layout_does_not_matter(left: str, right: str) -> None:
    assert canonical(left) == canonical(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("11, 100", "11100"),
        (r"\$18", "18"),
        ("x^10", "x^{10}"),
        (r"\frac123", r"\frac{1}{23}"),
        (r"\sqrt23", r"\sqrt{2}3"),
        ("0.333...", "0.333"),
        ("no solution", "nosolution"),
        (r"\pi r", r"\pir"),
        ("1 2", "12"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 12 \end{pmatrix}"),
        ("50", r"50\%"),
        ("(1,2)", "[1,2]"),
        (r"\leftarrow", "arrow"),
        ("Yes", "yes"),
    ],
)
def test_what_may_differ_in_meaning_stays_apart(left: str, right: str) -> None:
    assert canonical(left) != canonical(right)


@unhurried
@given(st.one_of(latex, st.text()))
def test_canonical_is_idempotent_and_safe_to_print_and_store(text: str) -> None:
    once = canonical(text)
    assert canonical(once) == once
    assert once.isprintable()
    once.encode("utf-8")


@unhurried
@given(latex)
def test_extraction_returns_canonical_text_or_none(text: str) -> None:
    answer = extract_answer(text)
    assert answer is None or (answer and canonical(answer) == answer)


@unhurried
@given(plain, latex)
def test_a_final_box_is_found_whatever_stands_before_it(content: str, before: str) -> None:
    text = before + " \\boxed{" + content + "1}"
    if not before.endswith("\\"):
        assert extract_answer(text) == canonical(content + "1")


@pytest.mark.parametrize(
    "hostile",
    [
        "\\boxed{" * 20_000,
        "{" * 100_000 + "\\boxed{1}",
        "\\" * 100_000 + "boxed{1}",
        "\\boxed" + " " * 100_000 + "{1}",
        "\\boxed{" + "(" * 100_000 + "}",
        "\\boxed{" + "\\left." * 20_000 + "}",
        "\\boxed{" + " ,\\!" * 30_000 + "}",
        ("\\boxed{}" * 15_000),
    ],
)
def test_long_hostile_text_is_read_in_linear_time(hostile: str) -> None:
    # A quadratic pass over 100,000 characters would run into the suite's time limit.
    extract_answer(hostile)


def test_an_over_long_answer_is_kept_as_text() -> None:
    text = "\\boxed{" + "1 + " * MAX_CHARS + "1}"
    assert extract_answer(text) == "1 + " * MAX_CHARS + "1"
