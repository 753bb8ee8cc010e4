"""The page of a run over a data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adaptive_ttc.evaluation.settled import Settled
from adaptive_ttc.tracing.page.board import RunProblem, render_run
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.types import Stopped


def page_of_run(
    title: str,
    settled: Mapping[int, Settled],
    traces: Mapping[int, Trace],
    *,
    budget: int | None = None,
    count: str = "generated",
) -> str:
    """The page, as HTML.

    Args:
        title: of it.
        settled: what became of the problems, by their number in the data set.
        traces: of those that this run has solved.
        budget: that all of them shared; None where each had its own, or none was set.
        count: what budgets bound.
    """
    problems = [
        RunProblem(
            name=one.id,
            question=one.problem,
            trace=traces.get(number),
            correct=one.correct,
            error=one.error,
            known=_known(one),
        )
        for number, one in sorted(settled.items())
    ]
    return render_run(title, problems, budget=budget, count=count)


def _known(one: Settled) -> dict[str, Any]:
    state = "answered" if one.answer is not None else "failed" if one.stopped == Stopped.FAILED.value else "no answer"
    return {
        "state": state,
        "answer": one.answer,
        "right": one.confidence if one.answer is not None else None,
        "spent": one.spent,
        "budget": one.budget,
        "strategy": one.strategy,
        "why": f"{one.stopped}: {one.why}",
    }
