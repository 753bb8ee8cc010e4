"""``show``: the search tree of a saved trace, in the terminal and as a page; it solves nothing."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.result_file import writable
from adaptive_ttc.tracing import render as wording
from adaptive_ttc.tracing.explain import in_words
from adaptive_ttc.tracing.outline import Entry, Fold, Row, plain_rows, rows
from adaptive_ttc.tracing.page import render
from adaptive_ttc.tracing.rounds import rounds
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.tracing.tree import Node, SearchTree, search_tree

SHOWN_CLASSES = 12
SHOWN_STEPS = 12
DEEPEST = 16
"""Levels that are indented; rows that lie deeper tell their level."""


def add(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = subparsers.add_parser(
        "show",
        help="draw the search tree of a saved trace",
        description="Draw the search tree of a trace that `solve --trace FILE` or Trace.save wrote.",
    )
    parser.add_argument("trace", metavar="FILE", help="the trace")
    parser.add_argument(
        "--html", metavar="FILE", help="write it to this file as well, as one page that needs no network"
    )
    parser.add_argument("--all", action="store_true", help="fold nothing: a line for every step that was sampled")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Draw, and write the page; see :func:`add`."""
    if options.html is not None:
        writable(options.html)
    tree = read(options.trace)
    console = Console(highlight=False)
    show(tree, console, plain_rows(tree) if options.all else rows(tree))
    if options.html is not None:
        Path(options.html).write_text(render(tree), encoding="utf-8", errors="replace")
        console.print(Text(f"Written to {options.html}."))
    return 0


def read(path: str | Path) -> SearchTree:
    """The search tree of a trace.

    Raises:
        ConfigError: there is no such file, or it is not a trace of a run.
    """
    try:
        return search_tree(Trace.load(path))
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror or error}; give a file that `solve --trace FILE` or Trace.save wrote"
        ) from error


def show(tree: SearchTree, console: Console, lines: tuple[Row, ...]) -> None:
    """Print heading, votes, rounds, and the rows of the tree; text of the model is never markup or control."""
    console.print(heading(tree))
    if tree.vote and tree.vote.classes:
        console.print(votes(tree))
    depths = rounds(tree.outcomes)
    for number, one in enumerate(depths if len(depths) > 1 else (), start=1):
        console.print(Text(f"round {number}: {in_words(one)}", style="dim"))
    console.print(drawing(lines))
    console.print(legend())


def heading(tree: SearchTree) -> Table:
    """Problem, strategy, models, answer and cost."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    good = "bold green" if tree.done and tree.done.answer is not None else "bold red"
    table.add_row("problem", Text(wording.printable(wording.question(tree))))
    table.add_row("strategy", Text(wording.printable(wording.settings(tree))))
    table.add_row("models", Text(wording.printable(f"{tree.run.policy}, PRM {tree.run.prm}, seed {tree.run.seed}")))
    table.add_row("answer", Text(wording.printable(wording.answer(tree)), style=good))
    table.add_row("charged", Text(wording.spent(tree)))
    return table


def votes(tree: SearchTree) -> Table:
    """The answer classes, best first."""
    assert tree.vote is not None
    table = Table("answer", title=f"Votes ({wording.printable(tree.vote.method)})", title_justify="left")
    table.add_column("votes", justify="right")
    table.add_column("weight", justify="right")
    shown = tree.vote.classes[:SHOWN_CLASSES]
    for one in shown:
        style = "green" if one.answer == tree.vote.answer else ""
        table.add_row(Text(wording.printable(one.answer)), str(one.votes), f"{one.weight:.3f}", style=style)
    hidden = tree.vote.classes[len(shown) :]
    if hidden:
        weight = sum(one.weight for one in hidden)
        table.add_row(f"{len(hidden)} more", str(sum(one.votes for one in hidden)), f"{weight:.3f}", style="dim")
    return table


def drawing(lines: tuple[Row, ...]) -> Table:
    """The rows: a tree of steps at the left, what each scored and cost at the right."""
    table = Table(box=None, expand=True, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("search tree", no_wrap=True, overflow="ellipsis", ratio=1)
    for label in ("score", "tokens", "branch"):
        table.add_column(label, justify="right", no_wrap=True)
    table.add_column("outcome", no_wrap=True, overflow="ellipsis", max_width=28)
    for row in _unfolded(lines):
        entry = row.entry
        tokens = entry.tokens
        branch = "" if isinstance(entry, Fold) or not row.inner else f"{entry.branch_tokens:,}"
        most = "\N{LESS-THAN OR EQUAL TO}" if isinstance(entry, Fold) else ""
        score = Text("" if entry.value is None else f"{most}{entry.value:.3f}", style=_style(entry.value))
        words = ", ".join(part for part in (wording.outcome(entry), wording.copies(entry)) if part)
        won = Text(wording.printable(words), style="bold green" if entry.wins and not row.inner else "")
        table.add_row(_label(row), score, f"{tokens:,}", branch, won, style="" if entry.fruitful else "dim")
    return table


def legend() -> Text:
    """What the signs mean."""
    text = Text(
        "\N{BLACK STAR} the way to the best candidate with the answer  \N{CHECK MARK} to others with it  ", style="dim"
    )
    for score in (0.0, 0.25, 0.5, 0.75, 1.0):
        text.append("\N{BLACK SQUARE}", style=_style(score))
        text.append(f" {score:g} ")
    text.append("scores of steps  branch: tokens with all below")
    return text


def _unfolded(lines: tuple[Row, ...]) -> list[Row]:
    """Of a fold, its heading; of the solutions that hold one answer, the first as well."""
    shown: list[Row] = []
    closed: int | None = None
    for row in lines:
        level = len(row.lasts)
        if closed is not None and level > closed:
            continue
        closed = None
        if isinstance(row.entry, Fold) and row.entry.kind in ("lost", "answers"):
            closed = level
        elif shown and isinstance(row.entry, Node) and _answers(shown[-1].entry) and level > len(shown[-1].lasts):
            closed = level - 1
            row = Row(entry=row.entry, lasts=(*row.lasts[:-1], True), inner=row.inner, closes=row.closes)
        shown.append(row)
    return shown


def _answers(entry: Entry) -> bool:
    return isinstance(entry, Fold) and entry.kind == "answer"


def _label(row: Row) -> Text:
    entry = row.entry
    text = Text(_guides(row.lasts), style="dim")
    sign = "\N{BLACK STAR} " if entry.best else "\N{CHECK MARK} " if entry.wins else ""
    text.append(sign, style="bold green")
    if isinstance(entry, Fold):
        text.append(wording.printable(wording.title(entry)), style="italic")
        return text
    if entry.head.revises:
        text.append("revised: ", style="italic")
    for step in entry.steps[-SHOWN_STEPS:]:
        text.append("\N{BLACK SQUARE}", style=_style(step.score))
    gap = " " if entry.steps else ""
    text.append(f"{gap}{wording.printable(wording.title(entry))}", style="bold" if entry.best else None)
    return text


def _guides(lasts: tuple[bool, ...]) -> str:
    depth = len(lasts)
    start = f"{depth}\N{HORIZONTAL ELLIPSIS} " if depth > DEEPEST else ""
    above = "".join("  " if last else "\N{BOX DRAWINGS LIGHT VERTICAL} " for last in lasts[-DEEPEST:-1])
    corner = "\N{BOX DRAWINGS LIGHT UP AND RIGHT} " if lasts[-1] else "\N{BOX DRAWINGS LIGHT VERTICAL AND RIGHT} "
    return start + above + corner


def _style(score: float | None) -> Style:
    red, green, blue = wording.colour(score)
    return Style(color=f"#{red:02x}{green:02x}{blue:02x}")
