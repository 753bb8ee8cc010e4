"""Answers that attack whoever reads them: giants, endless computations, deep nesting, malformed text, code.

The families are generated from a few patterns and numbers, so that each is small here and large in number.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

Family = Callable[[int], str]
"""The i-th text of a family, i >= 0."""


def _nested(opening: str, closing: str, core: str) -> Family:
    """Depth grows with i, to what a text of 1000 characters can hold, which is the longest that is read."""

    def text(i: int) -> str:
        depth = min(5 + 12 * i, (1000 - len(core)) // (len(opening) + len(closing)))
        return opening * depth + core + closing * depth

    return text


_DEEDS = ("__import__('os').system('touch hacked')", "open('hacked', 'w')", "exec('raise SystemExit')", "lambda: 0")
_CONTROLS = ("\x00", "\ud800", "\udfff", "\u202e", "\u200b", "\x1b[2J", "\r\n", "\ufeff", "\U0001f600", "\x7f")
_UNFINISHED = ("\\", "\\frac", "\\frac{1", "\\sqrt[", "\\left(", "\\begin{pmatrix}", "{", "}", "$", "%", "&", "_", "^")

FAMILIES: Mapping[str, Family] = {
    # read as numbers of megabytes, which a cache would keep
    "giant power": lambda i: f"2^{{{10**8 + i}}}",
    "giant of seven": lambda i: f"7^{{{10**6 + i}}}",
    "giant sum": lambda i: f"3^{{{2 * 10**6 + i}}}+5^{{{10**6}}}",
    # more memory than there is, or without end
    "tower": lambda i: f"{2 + i}^({10 + i}^(10^10))",
    "power of a power": lambda i: f"{2 + i}^{{2^{{{34 + i}}}}}",
    "factorial": lambda i: f"({10**6 + i})!",
    "double factorial": lambda i: f"(({9 + i})!)!",
    "binomial": lambda i: f"\\binom{{10^{{{7 + i}}}}}{{5\\cdot10^{{{6 + i}}}}}",
    "expansion": lambda i: f"(x+y+z+{i})^{{{3000 + i}}}",
    "sum": lambda i: f"\\sum_{{k=1}}^{{10^{{{6 + i}}}}}\\frac{{1}}{{k}}",
    "product": lambda i: f"\\prod_{{k=1}}^{{10^{{{6 + i}}}}}k",
    "integral": lambda i: f"\\int_0^{{{i + 1}}}e^{{-x^{{{i + 3}}}}}\\sin(x^{{x}})dx",
    "limit": lambda i: f"\\lim_{{x\\to 0}}\\frac{{\\sin^{{{40 + i}}}x}}{{x^{{{40 + i}}}}}",
    "roots": lambda i: "+".join(f"\\sqrt{{{n * n + n + i + 1}}}" for n in range(2, 60)),
    "digits": lambda i: "9" * (900 + i),
    "decimal": lambda i: "0." + "3" * (900 + i),
    "long sum": lambda i: "+".join(str(n + i) for n in range(1, 240)),
    "huge exponent": lambda i: f"1e{10 ** (5 + i)}",
    "solve": lambda i: f"x^{{{30 + i}}}-x-{i + 1}<0",
    # nesting
    "brackets": _nested("(", ")", "x"),
    "braces": _nested("{", "}", "x"),
    "fractions": _nested("\\frac{1}{1+", "}", "x"),
    "square roots": _nested("\\sqrt{", "}", "2"),
    "exponents": _nested("2^{", "}", "2"),
    "absolute values": _nested("|", "|", "x"),
    "minus signs": _nested("-", "", "1"),
    "open brackets": _nested("(", "", "1"),
    "boxes": _nested("\\boxed{", "}", "7"),
    # many parts
    "set": lambda i: "\\{" + ",".join(str(n * (i + 1)) for n in range(180)) + "\\}",
    "point": lambda i: "(" + ",".join(f"\\sqrt{{{n + i}}}" for n in range(90)) + ")",
    "matrix": lambda i: (
        "\\begin{pmatrix}" + "\\\\".join("&".join(["x"] * 15) for _ in range(15 + i)) + "\\end{pmatrix}"
    ),
    "union": lambda i: "\\cup".join(f"[{2 * n},{2 * n + 1}]" for n in range(40 + i)),
    "chain": lambda i: "=".join(f"x_{{{n}}}" for n in range(80 + i)),
    # no mathematics
    "control characters": lambda i: "5" + _CONTROLS[i % len(_CONTROLS)] * (1 + i) + "6",
    "unfinished": lambda i: "1" + _UNFINISHED[i % len(_UNFINISHED)] * (1 + i // len(_UNFINISHED)),
    "code": lambda i: _DEEDS[i % len(_DEEDS)] + " " * (i // len(_DEEDS)) + str(i),
    "code in text": lambda i: f"\\text{{{_DEEDS[i % len(_DEEDS)]}}}" + "!" * i,
    "zero": lambda i: f"\\frac{{{i}}}{{0}}",
    "infinities": lambda i: f"\\infty-\\infty+{i}" if i % 2 else f"0^{{-{i}}}",
    "words": lambda i: "no idea, sorry " * (1 + i % 60),
}

GIANTS = ("giant power", "giant of seven", "giant sum")


def hostile_answers(count: int, families: Sequence[str] = tuple(FAMILIES)) -> list[str]:
    """So many different texts: the first of every family, the second of every family, and so on."""
    texts: dict[str, None] = {}
    i = 0
    while len(texts) < count:
        texts |= dict.fromkeys(FAMILIES[name](i) for name in families)
        i += 1
    return list(texts)[:count]


_PIECES = (
    *"0123456789xyzabc+-*/^_=<>(){}[]|,.;:!%$&~'\" \\",
    *_CONTROLS,
    *("\\frac{", "\\sqrt{", "\\sum_{", "\\int_", "\\binom{", "\\left(", "\\right)", "\\text{", "\\pi", "\\infty"),
    *("\\begin{pmatrix}", "\\end{pmatrix}", "\\\\", "\\boxed{", "\\cup", "\\le", "^{", "10^", "!", "\\log", "\\lim_{"),
)


def fuzzed_answer(rng: random.Random, answers: Sequence[str]) -> str:
    """A text of random pieces, or one of the answers with a few of its characters changed for pieces."""
    if rng.random() < 0.5:
        return "".join(rng.choices(_PIECES, k=rng.randint(1, 40)))
    text = list(rng.choice(answers))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(text) + 1)
        text[at : at + rng.randint(0, 3)] = rng.choice(_PIECES)
    return "".join(text)
