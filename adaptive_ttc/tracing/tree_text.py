"""Turns a search tree into rows for a reader: similar nodes folded together, in words and colours."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from adaptive_ttc.tracing.explain import ENDS, NOT_ENDED, UNITS, counted
from adaptive_ttc.tracing.outcomes import Outcome
from adaptive_ttc.tracing.tree import Node, SearchTree

WIDE = 12  # most solutions beside each other that are not folded by their answers

SHOWN_ANSWERS = 8

Colour = tuple[int, int, int]
FoldKind = Literal["tree", "lost", "answer", "answers"]

_STOPS: tuple[Colour, ...] = ((203, 84, 47), (226, 196, 104), (44, 145, 160))
"""Red, green and blue of the scores 0, 1/2 and 1: apart for the colour-blind too."""

UNSCORED: Colour = (150, 150, 150)

_FOLDERS = re.compile(r"^(?:/|[.~]+/|[A-Za-z]:\\)(?:.*[/\\])?(?=[^/\\])")
"""What stands before the last name of a path that is no name of a hub."""

_TURNS = frozenset(("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"))
"""Unicode's bidirectional classes of controls of direction."""

_FATES: Mapping[str, str] = {"pruned": "pruned", "merged": "merged", "unused": "not handed in"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fold:
    """Siblings under one heading; ``fruitful``, ``wins`` and ``best`` tell whether one of its nodes is."""

    # those of one ``tree`` of several; ``lost`` without a candidate; those with one ``answer``, or other ``answers``
    kind: FoldKind
    answer: str | None  # of an ``answer``, None where they hold none
    number: int | None  # of a ``tree``, from 1 in the order in which the searches were forked
    nodes: tuple[Node, ...]  # all that lie in it, best first
    entries: tuple[Node | Fold, ...]  # the same, perhaps folded again
    samples: int  # how many samples lie in it and below; ``tokens`` likewise
    tokens: int
    votes: int  # how many samples in it were handed in, those below not counted
    answers: tuple[str, ...]  # the answer classes of the candidates below it
    value: float | None  # the highest of its nodes, in [0, 1], or None
    fruitful: bool
    wins: bool
    best: bool

    @classmethod
    def of(
        cls,
        kind: FoldKind,
        nodes: Sequence[Node],
        entries: Sequence[Entry] | None = None,
        answer: str | None = None,
        number: int | None = None,
    ) -> Fold:
        """Put nodes under a heading."""
        return cls(
            kind=kind,
            answer=answer,
            number=number,
            nodes=tuple(nodes),
            entries=tuple(nodes if entries is None else entries),
            samples=sum(node.branch_samples for node in nodes),
            tokens=sum(node.branch_tokens for node in nodes),
            votes=sum(len(node.samples) for node in nodes if node.fate == "candidate"),
            answers=tuple(dict.fromkeys(answer for node in nodes for answer in node.answers)),
            value=max((node.value for node in nodes if node.value is not None), default=None),
            fruitful=any(node.fruitful for node in nodes),
            wins=any(node.wins for node in nodes),
            best=any(node.best for node in nodes),
        )


Entry = Node | Fold


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Row:
    """One line of the outline."""

    entry: Entry  # what stands there
    level: int  # 1 for a root, one more for each level below it
    closes: int  # levels that end after it: 0 where rows lie under it, 1 where its sibling follows

    @property
    def inner(self) -> bool:
        """Whether rows lie under it."""
        return self.closes == 0


def rows(tree: SearchTree) -> tuple[Row, ...]:
    """All rows, in reading order."""
    answers = tuple(one.answer for one in tree.vote.classes) if tree.vote else ()
    found: list[Row] = []
    waiting: list[tuple[Entry, int]] = [(entry, 1) for entry in reversed(_by_tree(tree.roots, answers))]
    while waiting:
        entry, level = waiting.pop()
        below = entry.entries if isinstance(entry, Fold) else _folded(entry.children, answers, entry.fruitful)
        waiting += [(one, level + 1) for one in reversed(below)]
        closes = 0 if below else level + 1 - (waiting[-1][1] if waiting else 1)
        found.append(Row(entry=entry, level=level, closes=closes))
    return tuple(found)


def _by_tree(roots: Sequence[Node], answers: tuple[str, ...]) -> tuple[Entry, ...]:
    """The roots, those of each forked search under a heading where several searches have several roots."""
    searches = [(branch, tuple(group)) for branch, group in groupby(roots, key=lambda node: node.head.branch)]
    if len(searches) < 2 or len(searches) == len(roots):
        return _folded(roots, answers, False)
    forked = sorted(branch for branch, _ in searches if branch)
    entries: list[Entry] = []
    for branch, group in searches:
        below = _folded(group, answers, any(node.fruitful for node in group))
        entries += [Fold.of("tree", group, below, number=forked.index(branch) + 1)] if branch else below
    return tuple(entries)


def _folded(nodes: Sequence[Node], answers: tuple[str, ...], fruitful: bool) -> tuple[Entry, ...]:
    """Siblings, best first, similar ones folded into one entry; where none led anywhere, nothing is folded."""
    lost = [node for node in nodes if not node.fruitful]
    nothing_else = len(lost) == len(nodes) and not fruitful
    if nothing_else or (len(lost) == 1 and not lost[0].children):
        lost = []
    solved = [node for node in nodes if node.fate == "candidate" and not node.children]
    solved = solved if len(solved) > WIDE else []
    folded = {*lost, *solved}
    entries: list[Entry] = [*_by_answer(solved, answers)] if solved else []
    entries += [node for node in nodes if node not in folded]
    if lost:
        entries.append(Fold.of("lost", lost))
    return tuple(entries)


def _by_answer(nodes: Sequence[Node], answers: tuple[str, ...]) -> list[Fold]:
    held: dict[str | None, list[Node]] = {}
    for node in nodes:
        held.setdefault(node.head.answer_class, []).append(node)
    place = {answer: number for number, answer in enumerate(answers)}
    order = sorted(held, key=lambda answer: (answer is None, place.get(answer or "", len(place)), answer or ""))
    folds = [Fold.of("answer", held[answer], answer=answer) for answer in order]
    rest = folds[SHOWN_ANSWERS:]
    if len(rest) < 2:
        return folds
    return [*folds[:SHOWN_ANSWERS], Fold.of("answers", [node for fold in rest for node in fold.nodes], rest)]


def colour(score: float | None) -> Colour:
    """The colour of a score in [0, 1]; grey where there is none."""
    if score is None:
        return UNSCORED
    place = min(max(score, 0.0), 1.0) * (len(_STOPS) - 1)
    first = min(int(place), len(_STOPS) - 2)
    low, high = _STOPS[first], _STOPS[first + 1]
    red, green, blue = (round(a + (b - a) * (place - first)) for a, b in zip(low, high, strict=True))
    return red, green, blue


def printable(text: str) -> str:
    """The text on one line, with control characters and changes of reading direction replaced."""
    return legible(" ".join(text.split()))


def legible(text: str) -> str:
    """The same as :func:`printable`, with line breaks and tabs kept."""
    if text.isascii() and text.isprintable():
        return text
    return "".join("\N{REPLACEMENT CHARACTER}" if _steers(letter) else letter for letter in text)


def _steers(letter: str) -> bool:
    if unicodedata.category(letter) in ("Cc", "Cs"):
        return letter not in "\n\t"
    return unicodedata.bidirectional(letter) in _TURNS


def title(entry: Entry) -> str:
    """What stands in a row: the step, or the steps of a whole solution; for a fold, what lies in it."""
    if isinstance(entry, Node):
        return " \N{PILCROW SIGN} ".join(step.text for step in entry.steps) or "(no text)"
    if entry.kind == "tree":
        return f"tree {entry.number}: {counted(entry.samples, 'sample')}"
    if entry.kind == "lost":
        return f"{counted(entry.samples, 'sample')} that led nowhere"
    if entry.kind == "answers":
        return f"{len(entry.entries)} further answers"
    return f"answer {entry.answer}" if entry.answer else "without an answer"


def copies(entry: Entry) -> str:
    """How many samples a row stands for; empty for one."""
    if isinstance(entry, Fold):
        return f"{entry.votes}\N{MULTIPLICATION SIGN}" if entry.votes and entry.kind != "tree" else ""
    words = [f"{len(entry.samples)}\N{MULTIPLICATION SIGN}"] if len(entry.samples) > 1 else []
    return ", ".join([*words, *([f"+{len(entry.merged)} merged"] if entry.merged else [])])


def outcome(entry: Entry, at_work: bool = False) -> str:
    """What came of it, in a word or two; or will, while the search is ``at_work``."""
    if isinstance(entry, Fold):
        return _towards(entry) if entry.kind == "tree" else ""
    one = entry.head
    if one.lookahead and one.fate != "candidate":
        return "look-ahead"
    if at_work and one.fate == "candidate" and not one.answer_class:
        return "no answer yet"
    if one.fate == "candidate":
        return f"= {one.answer_class}" if one.answer_class else f"no answer, {ENDS.get(one.finish, one.finish)}"
    if one.fate == "cut":
        return "left open" if one.finish == "stop" else ENDS.get(one.finish, one.finish)
    if one.twin is not None:
        return f"merged into {name(one.twin)}"
    return _FATES.get(one.fate) or _towards(entry)


def _towards(entry: Entry, most: int = 3) -> str:
    """The answers that lie below."""
    shown = ", ".join(entry.answers[:most])
    rest = ", \N{HORIZONTAL ELLIPSIS}" if len(entry.answers) > most else ""
    return f"\N{RIGHTWARDS ARROW} {shown}{rest}" if shown else ""


def details(node: Node) -> str:
    """Where a node stands in the search and how its sample ended."""
    one = node.head
    parts = [f"sample {name(one.path)}", ENDS.get(one.finish, one.finish)]
    parts += [f"log-probability {one.logprob:.2f}"] if one.logprob else []
    if one.revises:
        parts.insert(1, f"revises {name(one.path[:-1])}")
    if len(node.samples) > 1:
        parts.append(f"equal to {_names(node.samples[1:])}")
    if node.merged:
        parts.append(f"merged into it: {_names(node.merged)}")
    return " \N{MIDDLE DOT} ".join(parts)


def name(path: tuple[int, ...]) -> str:
    """A path as text."""
    return ".".join(map(str, path)) or "the root"


def spent(tree: SearchTree) -> str:
    """What the run was charged, of what it was allowed."""
    charged = f"{tree.done.spent:,}" if tree.done else f"unknown: {NOT_ENDED}"
    unit = UNITS.get(tree.run.count, tree.run.count)
    return f"{charged} {unit}, no limit" if tree.run.budget is None else f"{charged} of {tree.run.budget:,} {unit}"


def answer(tree: SearchTree) -> str:
    """The answer, or why there is none."""
    if tree.done is None:
        return f"none: {NOT_ENDED}"
    return tree.done.answer if tree.done.answer is not None else f"none: {tree.done.abstained}"


def ended(tree: SearchTree) -> str:
    """Why it got no more, and how sure the answer is."""
    if tree.done is None:
        return NOT_ENDED
    sure = tree.done.answer is not None and tree.done.confidence is not None
    right = f"; right with probability {tree.done.confidence:.2f}" if sure else ""
    return f"{tree.done.stopped}: {tree.done.why}{right}"


def settings(tree: SearchTree) -> str:
    """The strategy with its options."""
    if tree.search is None:
        return "none was begun"
    options = (f"{key}={value}" for key, value in tree.search.options.items() if value is not None)
    return f"{tree.search.strategy}: {', '.join(options)}"


def models(tree: SearchTree) -> str:
    """The pair, of which folders are named without the way to them, and the seed."""
    run = tree.run
    policy, prm = (None if one is None else _FOLDERS.sub("", one) for one in (run.policy, run.prm))
    seed = "no seed" if run.seed is None else f"seed {run.seed}"
    return f"{policy}, {'no PRM' if prm is None else f'PRM {prm}'}, {seed}"


def question(tree: SearchTree) -> str:
    """The chat turns before the solution; a single user turn stands by itself."""
    turns = tree.run.messages
    return turns[0][1] if len(turns) == 1 else "\n".join(f"{role}: {content}" for role, content in turns)


def _names(samples: tuple[Outcome, ...], most: int = 8) -> str:
    shown = ", ".join(name(one.path) for one in samples[:most])
    return f"{shown} and {len(samples) - most} more" if len(samples) > most else shown
