"""The lines of every format, from the graded solutions of one problem: pure functions.

The columns are those that TRL names conversational language modelling (``messages``), conversational preference
(``prompt``, ``chosen``, ``rejected``) and stepwise supervision (``prompt``, ``completions``, ``labels``); the others
say where a line comes from, and trainers leave them aside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

from adaptive_ttc.export.samples import GradedProblem, GradedSample, best_first, distinct, shared

Format = Literal["sft", "dpo", "prm", "rollouts"]
FORMATS: tuple[str, ...] = get_args(Format)

Line = dict[str, Any]

MOST: Mapping[str, int | None] = {"sft": 4, "dpo": 4, "prm": 8, "rollouts": None}
"""Lines of one problem, where it is not said."""

_COMPARED = 64
"""Right and wrong solutions of one problem each that are compared for pairs."""


def sft(problem: GradedProblem, most: int, system: str = "") -> list[Line]:
    """Chats with right solutions, distinct once normalised, the best-scored first."""
    right = [one for one in best_first(distinct(problem.samples)) if one.correct and one.whole]
    return [
        {"messages": _asked(problem, system) + _said(one), **_origin(problem), "score": one.score}
        for one in right[:most]
    ]


def dpo(problem: GradedProblem, most: int, system: str = "", least_shared: int = 0) -> list[Line]:
    """Right against wrong solutions, those that share the longest beginning first; no solution is in two pairs.

    ``least_shared``: steps that both must begin with. Of pairs that share as much, those come first in which the PRM,
    where there is one, is most wrong.
    """
    whole = [one for one in distinct(problem.samples) if one.whole]
    right = [one for one in whole if one.correct][:_COMPARED]
    wrong = [one for one in whole if not one.correct][:_COMPARED]
    pairs = [(shared(one.steps, other.steps), i, j) for i, one in enumerate(right) for j, other in enumerate(wrong)]
    pairs.sort(key=lambda pair: (-pair[0], _margin(right[pair[1]], wrong[pair[2]]), *pair[1:]))
    taken: set[tuple[str, int]] = set()
    lines: list[Line] = []
    for common, i, j in pairs:
        if len(lines) == most or common < least_shared:
            break
        if ("right", i) in taken or ("wrong", j) in taken:
            continue
        taken |= {("right", i), ("wrong", j)}
        pair = {"prompt": _asked(problem, system), "chosen": _said(right[i]), "rejected": _said(wrong[j])}
        lines.append({**pair, **_origin(problem), "shared_steps": common})
    return lines


def rollouts(problem: GradedProblem, most: int | None = None) -> list[Line]:
    """Every sample as it is, in the order in which they were drawn."""
    row = problem.row
    known = {"id": row["unique_id"], "problem": row["problem"], "gold": row.get("answer", "")}
    return [
        {
            **known,
            "answers": row.get("answers"),
            "text": one.text,
            "steps": list(one.steps),
            "answer": one.answer,
            "correct": one.correct,
            "scores": list(one.scores),
            "tokens": one.tokens,
            "token_ids": list(one.token_ids),
            "finish": one.finish,
            "answer_at": one.answer_at,
            "thought": one.thought,
        }
        for one in problem.samples[:most]
    ]


def prm(problem: GradedProblem, sample: GradedSample, labels: Sequence[float | bool]) -> Line:
    """A solution with a label for each of its steps."""
    return {
        "prompt": problem.row["problem"],
        "completions": list(sample.steps),
        "labels": list(labels),
        **_origin(problem),
        "correct": sample.correct,
    }


def outcome(problem: GradedProblem, most: int) -> list[Line]:
    """Step labels without roll-outs: every step has that of the whole solution."""
    return [prm(problem, one, [one.correct] * len(one.steps)) for one in to_label(problem, most)]


def to_label(problem: GradedProblem, most: int) -> list[GradedSample]:
    """Distinct whole solutions, right and wrong ones in turn for as long as there are both, at most ``most``."""
    whole = [one for one in distinct(problem.samples) if one.whole]
    right, wrong = [one for one in whole if one.correct], [one for one in whole if not one.correct]
    half = most // 2
    number = min(len(right), max(most - half, most - len(wrong)))
    return right[:number] + wrong[: most - number]


def maker(format: str, most: int | None, system: str, least_shared: int) -> Callable[[GradedProblem], list[Line]]:
    """What makes the lines of a problem in a format that needs no roll-outs; ``prm`` has outcome labels."""
    number = most or MOST[format] or 0
    if format == "sft":
        return lambda problem: sft(problem, number, system)
    if format == "dpo":
        return lambda problem: dpo(problem, number, system, least_shared)
    if format == "prm":
        return lambda problem: outcome(problem, number)
    return lambda problem: rollouts(problem, most)


def _origin(problem: GradedProblem) -> Line:
    return {"id": problem.row["unique_id"], "pass_rate": round(problem.pass_rate, 4)}


def _asked(problem: GradedProblem, system: str) -> list[dict[str, str]]:
    before = [{"role": "system", "content": system}] if system else []
    return [*before, {"role": "user", "content": problem.row["problem"]}]


def _said(sample: GradedSample) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": sample.text.strip()}]


def _margin(right: GradedSample, wrong: GradedSample) -> float:
    return 0.0 if right.score is None or wrong.score is None else right.score - wrong.score
