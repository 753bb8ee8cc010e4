"""Training batches for the mini models, drawn endlessly and reproducibly; it knows no model."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from adaptive_ttc.mini.minimath import MiniMath, right_tokens_end
from adaptive_ttc.mini.numbers import Exercise
from adaptive_ttc.mini.slips import latex, signed, wrapped
from adaptive_ttc.mini.tokenizer import ASSISTANT, BOS, EOS, REVISE, USER

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

IGNORE = -100


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a training text: context (``target`` None), text to be written, or text to be judged.

    For judged text ``target`` is how many of its characters are on a right path.
    """

    text: str
    target: int | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Right-padded ids and targets, both int64 ``[rows, length]``; :data:`IGNORE` where nothing is asked.

    For a language model the target at a position is the next token; for a verifier it is 1 where the
    solution is right up to and including that position's token, else 0.
    """

    input_ids: np.ndarray
    targets: np.ndarray


Render = Callable[[Exercise, random.Random], list[Segment]]


def attempt(source: MiniMath, rates: Mapping[str, float]) -> Render:
    """The policy's own format: the question, then a solution with mistakes at the given rates."""

    def render(exercise: Exercise, rng: random.Random) -> list[Segment]:
        solution = source.solve(exercise, rng, rates)
        return [Segment(f"{BOS}{USER}{exercise.question}{EOS}{ASSISTANT}"), Segment(solution + EOS, 0)]

    return render


def revision(source: MiniMath, rates: Mapping[str, float], care: float) -> Render:
    """One to four earlier attempts in the conversation, then one whose mistakes are ``care`` times as likely."""
    careful = {kind: rate * care for kind, rate in rates.items()}

    def render(exercise: Exercise, rng: random.Random) -> list[Segment]:
        context = f"{BOS}{USER}{exercise.question}{EOS}{ASSISTANT}"
        for _ in range(rng.randint(1, 4)):
            context += f"{source.solve(exercise, rng, rates)}{EOS}{USER}{REVISE}{EOS}{ASSISTANT}"
        return [Segment(context), Segment(source.solve(exercise, rng, careful) + EOS, 0)]

    return render


def drill(lines: int = 16) -> Render:
    """Elementary sums, products, quotients and fractions, one a line: a small model learns these slowest."""

    def line(rng: random.Random) -> tuple[str, str]:
        kind = rng.choice(["sum", "sum", "sum", "product", "division", "quotient", "fraction"])
        a, b = rng.randint(-50, 50), rng.randint(-25, 25)
        m, n = rng.randint(2, 10), rng.choice([-1, 1]) * rng.randint(1, 10)
        if kind == "sum":
            bracketed = b > 0 and rng.random() < 0.2
            return f"{a} - ({-b})" if bracketed else f"{a}{signed(b)}", f"{a + b}"
        if kind == "product":
            a, b = rng.choice([(n, m), (m, n)])
            return f"{a} \\cdot {wrapped(b)}", f"{n * m}"
        if kind == "division":
            return f"{abs(a)}", f"{abs(a) // m} \\cdot {m} + {abs(a) % m}"
        if kind == "quotient":
            top, bottom = (n * m if rng.random() < 0.5 else a), rng.choice([m, -m])
            return f"{bottom}x = {top}: x", latex(Fraction(top, bottom))
        sign, scale = rng.choice(["", "", "-"]), rng.randint(1, 4)
        fraction = f"{sign}\\frac{{{abs(n) * scale}}}{{{m * scale}}}"
        return fraction, sign + latex(Fraction(abs(n), m))

    def render(exercise: Exercise, rng: random.Random) -> list[Segment]:
        segments = [Segment(BOS)]
        for _ in range(lines):
            asked, answer = line(rng)
            segments += [Segment(f"{asked} = "), Segment(f"{answer}\n\n", 0)]
        return segments

    return render


def judged(question: str, solution: str, right: int) -> list[Segment]:
    """The verifier's format: every step a user turn answered by ``+``; ``right`` characters are right."""
    segments = [Segment(f"{BOS}{USER}{question}")]
    position = 0
    for index, step in enumerate(solution.split("\n\n")):
        space = "" if index else " "  # belongs to the first token of the step
        if index:
            segments.append(Segment(USER))
        segments.append(Segment(space + step, max(0, right - position) + len(space)))
        segments.append(Segment(f"{EOS}{ASSISTANT}+{EOS}"))
        position += len(step) + 2
    return segments


def verdict(source: MiniMath, rates: Mapping[str, float]) -> Render:
    """Solutions with synthetic mistakes in the verifier's format."""

    def render(exercise: Exercise, rng: random.Random) -> list[Segment]:
        solution = source.solve(exercise, rng, rates)
        return judged(exercise.question, solution, right_tokens_end(exercise, solution))

    return render


def mixture(parts: list[tuple[float, Render]]) -> Render:
    """Draw the format of every text by weight."""

    def render(exercise: Exercise, rng: random.Random) -> list[Segment]:
        (chosen,) = rng.choices([part for _, part in parts], [weight for weight, _ in parts])
        return chosen(exercise, rng)

    return render


def drawn(source: MiniMath, render: Render, seed: int | str) -> Callable[[int], list[list[Segment]]]:
    """Group number -> 512 texts of the train split."""

    def group(number: int) -> list[list[Segment]]:
        name = f"{seed}/{number}"
        rng = random.Random(name)
        return [render(exercise, rng) for _, _, exercise in islice(source.exercises("train", name), 512)]

    return group


def batches(
    tokenizer: PreTrainedTokenizerFast,
    group: Callable[[int], list[list[Segment]]],
    *,
    verifier: bool,
    tokens: int,
    start: int = 0,
    stride: int = 1,
) -> Iterator[tuple[int, Batch]]:
    """Cut groups of texts, sorted by length, into batches of about ``tokens`` padded tokens.

    Takes the groups ``start``, ``start + stride``, ...; yields with every batch the number of the
    group to resume from.
    """
    encode = _verifier_targets if verifier else _writer_targets
    for number in range(start, 2**31, stride):
        texts = group(number)
        encoded = tokenizer(
            ["".join(s.text for s in text) for text in texts], add_special_tokens=False, return_offsets_mapping=True
        )
        rows = [
            (ids, encode(text, ids, offsets))
            for text, ids, offsets in zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True)
        ]
        rows.sort(key=lambda row: len(row[0]))
        pieces: list[list[tuple[list[int], list[int]]]] = [[]]
        for row in rows:
            if (len(pieces[-1]) + 1) * len(row[0]) > tokens and pieces[-1]:
                pieces.append([])
            pieces[-1].append(row)
        random.Random(number).shuffle(pieces)
        for piece in pieces:
            yield number + stride, _pad(piece, tokenizer.pad_token_id)


def _pad(rows: list[tuple[list[int], list[int]]], pad: int) -> Batch:
    longest = max(len(ids) for ids, _ in rows)
    input_ids = np.full((len(rows), longest), pad, dtype=np.int64)
    targets = np.full((len(rows), longest), IGNORE, dtype=np.int64)
    for row, (ids, wanted) in enumerate(rows):
        input_ids[row, : len(ids)] = ids
        targets[row, : len(ids)] = wanted
    return Batch(input_ids, targets)


def _writer_targets(text: list[Segment], ids: list[int], offsets: list[tuple[int, int]]) -> list[int]:
    """Predict every token that lies in a segment with a target."""
    spans = _spans(text)
    wanted = [IGNORE] * len(ids)
    at = 0
    for position, (start, _) in enumerate(offsets):
        while start >= spans[at][1]:
            at += 1
        if spans[at][2] is not None and position:
            wanted[position - 1] = ids[position]
    return wanted


def _verifier_targets(text: list[Segment], ids: list[int], offsets: list[tuple[int, int]]) -> list[int]:
    """Judge every token of a step, and the step as a whole where the ``+`` after it is predicted."""
    spans = _spans(text)
    wanted = [IGNORE] * len(ids)
    at = 0
    for position, (start, end) in enumerate(offsets):
        while start >= spans[at][1]:
            at += 1
        first, last, right = spans[at]
        if right is not None:
            wanted[position] = int(end - first <= right)
            if end == last:
                # EOS, then the assistant token at which ``+`` is predicted
                wanted[position + 2] = int(last - first <= right)
    return wanted


def _spans(text: list[Segment]) -> list[tuple[int, int, int | None]]:
    spans, position = [], 0
    for segment in text:
        spans.append((position, position + len(segment.text), segment.target))
        position += len(segment.text)
    return spans
