"""Puts many problems on one page: those of a run, written with their trees into one file, or those of a server."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from adaptive_ttc.events import DoneEvent
from adaptive_ttc.tracing.explain import UNITS, counted
from adaptive_ttc.tracing.page.rendering import fill, fragment, policy
from adaptive_ttc.tracing.page.summary import Summary, as_drawn, short
from adaptive_ttc.tracing.trace import Trace, finite
from adaptive_ttc.tracing.tree import search_tree

SCRIPTS = ("tree.js", "problems.js")

LIVE_POLICY = policy(SCRIPTS, connect="'self'", ancestors=True)
"""The Content-Security-Policy that a server sends with :func:`live_page`."""

MOST_SAMPLES = 3000  # of a tree that is drawn
MOST_CHARACTERS = 30_000_000  # of all trees in one file


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProblem:
    """One problem of a run."""

    name: str
    question: str
    trace: Trace | None  # None where solving failed before there was one
    correct: bool | None = None  # whether its answer is right; None where that is not known
    error: str | None = None  # what ended it early
    known: Mapping[str, Any] = field(default_factory=dict)  # what the table tells of it where there is no trace


def render_run(
    title: str, problems: Sequence[RunProblem], *, budget: int | None = None, count: str = "generated"
) -> str:
    """The page of a run, as HTML; trees beyond :data:`MOST_CHARACTERS` together are left out, which the page tells.

    Args:
        title: of the page.
        problems: in the order of the data set.
        budget: that all of them shared; None where each had its own, or none was set.
        count: what budgets bound, see :data:`adaptive_ttc.cost.Count`.
    """
    rows, trees, room = [], {}, MOST_CHARACTERS
    for number, problem in enumerate(problems):
        tree = tree_of(problem.trace)
        if len(tree) <= room:
            trees[str(number)] = Markup(tree)  # the template of trees has escaped what is in it
            room -= len(tree)
        rows.append(row_of(problem, str(number)))
    spent = sum(row.get("spent") or 0 for row in rows)
    head = {"title": short(title), "live": False, "budget": budget, "spent": spent, "unit": UNITS.get(count, count)}
    return _page(head | {"left": None if budget is None else budget - spent}, rows, trees)


def live_page(title: str) -> str:
    """The page of a server, as HTML; it asks the server for all that it shows."""
    return _page({"title": short(title), "live": True}, [], {})


def row_of(problem: RunProblem, id: str) -> dict[str, Any]:
    """What the page's table tells of a problem."""
    known = Summary(problem.trace or Trace()).data()
    if problem.trace is None or problem.trace.last(DoneEvent) is None:
        known |= {"state": "failed" if problem.error else "left", **problem.known}
        known["answer"] = short(known.get("answer"))
    beside = {"id": id, "name": short(problem.name), "correct": problem.correct, "error": short(problem.error)}
    return {"question": short(problem.question), **known, **beside}


def tree_of(trace: Trace | None, *, at_work: bool = False) -> str:
    """The tree of a trace as a part of a page, or why it is not drawn."""
    if trace is None or not len(trace):
        return _notice("There is no trace of it.")
    tree = search_tree(as_drawn(trace))
    if len(tree.outcomes) > MOST_SAMPLES:
        return _notice(f"Its search tree has {counted(len(tree.outcomes), 'sample')}: too many to be drawn here.")
    return fragment(tree, at_work=at_work)


def _notice(text: str) -> str:
    return str(Markup('<p class="hint">{}</p>').format(text))


def _page(head: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], trees: Mapping[str, Markup]) -> str:
    data = embedded({"head": head, "problems": list(rows), "order": None})
    return fill("problems.html", scripts=SCRIPTS, head=head, data=data, trees=trees)


def embedded(data: object) -> Markup:
    """JSON to stand in an element ``script``: nothing in it can end that, or begin another."""
    text = json.dumps(finite(data), ensure_ascii=True, allow_nan=False)
    return Markup(text.translate({ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&"}))
