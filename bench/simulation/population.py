"""Simulated problems and what is written about them: lengths, steps and answers of a population; it takes no time.

A problem's pass rate, how its wrong answers scatter and how often a sample has no answer are drawn from the shipped
prior, which was fitted to recorded samples of real models (``adaptive_ttc.estimate.answer_prior``). A solution is a
chain of steps; each stays right with the same probability, so that whole samples are right at the problem's pass rate
and a search over steps can do better. All follows from the request's seed and the place of the step in the sequence, as
a policy's samples do: pieces of one sample fit together, however it was leased.
"""

from __future__ import annotations

import math
import random
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from hashlib import blake2b
from itertools import accumulate

import numpy as np

from adaptive_ttc.estimate.agreement import DISCOUNTS, RATES, SHAPE, SILENT, SPREADS
from adaptive_ttc.estimate.answer_prior import shipped_prior
from adaptive_ttc.types import Problem

EOS, WORD, STEP_END, RIGHT_SO_FAR, WRONG_NOW, NO_ANSWER = range(6)
_FIRST_MARK, _MARKS = 10, 1_000  # words that tell steps apart
_FIRST_ANSWER = _FIRST_MARK + _MARKS
_WRONG_ANSWERS = 24  # different ones of a problem, at most
_RIGHT_ANSWERS = 997
_FIRST_PROBLEM = 1_000_000
GOOD = "so"  # begins a step of a solution that is right so far
_WORDS = {EOS: "", WORD: "x ", STEP_END: "\n\n", RIGHT_SO_FAR: f"{GOOD} ", WRONG_NOW: "but ", NO_ANSWER: "I give up."}


@cache
def _summed_weights() -> tuple[float, ...]:
    """The shipped prior's weights, added up."""
    return tuple(accumulate(shipped_prior().weights.ravel().tolist()))


@dataclass(frozen=True, slots=True)
class Nature:
    """What is true of a problem; ``wrong``: the shares of its wrong answers added up."""

    right: float  # rate of right answers among answers
    silent: float  # rate of samples without an answer
    wrong: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Population:
    """Problems by their numbers.

    Attributes:
        tokens: mean of a solution.
        spread: standard deviation of the logarithm of a step's length.
        steps: of a solution.
        prompt_tokens: of every problem.
        seed: of what the problems are.
    """

    tokens: float = 55.0
    spread: float = 0.4
    steps: int = 4
    prompt_tokens: int = 40
    seed: int = 0
    _cells: tuple[float, ...] = field(default_factory=_summed_weights, repr=False)

    def problem(self, number: int) -> Problem:
        """The problem as it is given to a solver."""
        return Problem.of(f"Simulated problem {number}", str(number))

    def prompt(self, problem: Problem) -> tuple[int, ...]:
        """Its prompt: the first token names it."""
        number = int(
            "".join(filter(str.isdecimal, problem.question))
        )  # a pool asks a stand-in first, which has one too
        return (_FIRST_PROBLEM + number, *(WORD,) * (self.prompt_tokens - 1))

    @staticmethod
    def number(prompt_ids: Sequence[int]) -> int:
        """The problem that a prompt is of."""
        return prompt_ids[0] - _FIRST_PROBLEM

    @staticmethod
    def answer(number: int) -> str:
        """The right answer."""
        return str(number % _RIGHT_ANSWERS)

    def solution(self, prompt_ids: tuple[int, ...], seed: int, most: int, stepwise: bool) -> tuple[int, ...]:
        """The next tokens, at most so many: up to the end of the step where it is ``stepwise``."""
        begun = prompt_ids[self.prompt_tokens :]
        done = begun.count(STEP_END)
        at = len(begun) - begun[::-1].index(STEP_END) if done else 0  # where the step began that is being written
        written, right = len(begun) - at, WRONG_NOW not in begun[:at]
        number = self.number(prompt_ids)
        tokens = self._step(number, seed, at, done, right, begun[at:])
        right = tokens[0] == RIGHT_SO_FAR
        while not (stepwise or tokens[-1] == EOS or len(tokens) >= written + most):
            done += 1
            step = self._step(number, seed, at + len(tokens), done, right)
            right = step[0] == RIGHT_SO_FAR
            tokens += step
        return tokens[written : written + most]

    def nature(self, number: int) -> Nature:
        """What is true of the problem of that number."""
        return _nature(self._cells, self.seed, number)

    def _step(
        self, number: int, seed: int, at: int, done: int, right: bool, begun: tuple[int, ...] = ()
    ) -> tuple[int, ...]:
        """A step that begins there; one that was ``begun``, perhaps with another seed, is as right as it was."""
        nature = self.nature(number)
        chance, mark, radius, angle, silent, which = _uniform(seed, at)
        right = begun[0] == RIGHT_SO_FAR if begun else right and chance < nature.right ** (1 / self.steps)
        normal = math.sqrt(-2 * math.log(1 - radius)) * math.cos(math.tau * angle)
        length = max(4, round(self.tokens / self.steps * math.exp(self.spread * normal - self.spread**2 / 2)))
        answer = number % _RIGHT_ANSWERS if right else _RIGHT_ANSWERS + bisect(nature.wrong, which)
        end: tuple[int, ...] = (NO_ANSWER if silent < nature.silent else _FIRST_ANSWER + answer, EOS)
        if done + 1 < self.steps:
            end = (STEP_END,)
        elif begun and (begun[-1] == NO_ANSWER or begun[-1] >= _FIRST_ANSWER):
            end = (EOS,)
        first: tuple[int, ...] = (RIGHT_SO_FAR if right else WRONG_NOW, _FIRST_MARK + int(_MARKS * mark))
        first = (*begun, *first[len(begun) :])
        return (*first, *(WORD,) * (length - len(end) - len(first)), *end)


def decode(token_ids: Sequence[int]) -> str:
    """The text of a solution's tokens."""
    return "".join(map(_word, token_ids))


def goodness(question: str, steps: Sequence[str]) -> float:
    """What a PRM makes of a solution's last step: a probability, mostly above a half where it is right so far."""
    digest = blake2b("\n".join((question, *steps)).encode(), digest_size=16).digest()
    radius, angle = (int.from_bytes(digest[i : i + 8], "little") / 2**64 for i in (0, 8))
    normal = math.sqrt(-2 * math.log(1 - radius)) * math.cos(math.tau * angle)
    return 1 / (1 + math.exp(-normal - (1.0 if all(step.startswith(GOOD) for step in steps) else -1.0)))


@lru_cache(maxsize=1 << 12)
def _word(token: int) -> str:
    if token in _WORDS:
        return _WORDS[token]
    return f"v{token} " if token < _FIRST_ANSWER else f"The answer is \\boxed{{{token - _FIRST_ANSWER}}}."


def _uniform(seed: int, at: int) -> tuple[float, ...]:
    """Six numbers in [0, 1), by seed and place."""
    digest = blake2b(b"%d %d" % (seed, at), digest_size=48).digest()
    return tuple(int.from_bytes(digest[i : i + 8], "little") / 2**64 for i in range(0, 48, 8))


@lru_cache(maxsize=1 << 14)
def _nature(cells: tuple[float, ...], seed: int, number: int) -> Nature:
    rng = random.Random(f"{seed} {number}")
    rate, spread, silent = np.unravel_index(min(bisect(cells, rng.random() * cells[-1]), len(cells) - 1), SHAPE)
    theta, alpha = float(SPREADS[spread]), float(DISCOUNTS[spread])
    shares, left = [], 1.0
    for k in range(1, _WRONG_ANSWERS):  # sticks of a Pitman-Yor process
        part = rng.betavariate(1 - alpha, theta + k * alpha)
        shares.append(left * part)
        left *= 1 - part
    return Nature(float(RATES[rate]), float(SILENT[silent]), tuple(accumulate(shares)))
