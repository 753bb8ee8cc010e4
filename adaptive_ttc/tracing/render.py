"""The words and colours in which a tree's rows are told, on the screen and on the page alike; it lays nothing out."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

from adaptive_ttc.tracing.outcomes import Outcome
from adaptive_ttc.tracing.outline import Entry, Fold
from adaptive_ttc.tracing.tree import Node, SearchTree

Colour = tuple[int, int, int]

_STOPS: tuple[Colour, ...] = ((203, 84, 47), (226, 196, 104), (44, 145, 160))
"""Red, green and blue of the scores 0, 1/2 and 1: apart for the colour-blind too."""

_TURNS = frozenset(("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"))
"""Unicode's controls of direction, by their bidirectional class."""

UNSCORED: Colour = (150, 150, 150)

_ENDS: Mapping[str, str] = {
    "eos": "the policy ended it",
    "stop": "a step",
    "length": "cut at its length limit",
    "budget": "cut by the budget",
    "abort": "stopped",
}

_UNITS: Mapping[str, str] = {
    "generated": "generated tokens",
    "generated+prm": "tokens of policy and PRM",
    "flops": "FLOPs",
}

_FATES: Mapping[str, str] = {"pruned": "pruned", "merged": "merged", "unused": "not handed in"}


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
    """Text on one line in which nothing steers a terminal or turns the direction of reading."""
    return legible(" ".join(text.split()))


def legible(text: str) -> str:
    """The same with its lines left as they are."""
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
        return f"tree {entry.nodes[0].head.branch[-1] + 1}: {_count(entry.samples, 'sample')}"
    if entry.kind == "lost":
        return f"{_count(entry.samples, 'sample')} that led nowhere"
    if entry.kind == "answers":
        return f"{len(entry.entries)} further answers"
    return f"answer {entry.answer}" if entry.answer else "without an answer"


def copies(entry: Entry) -> str:
    """How many samples a row stands for; empty for one."""
    if isinstance(entry, Fold):
        return f"{entry.votes}\N{MULTIPLICATION SIGN}" if entry.votes and entry.kind != "tree" else ""
    words = [f"{len(entry.samples)}\N{MULTIPLICATION SIGN}"] if len(entry.samples) > 1 else []
    return ", ".join([*words, *([f"+{len(entry.merged)} merged"] if entry.merged else [])])


def outcome(entry: Entry) -> str:
    """What came of it, in a word or two."""
    if isinstance(entry, Fold):
        return _towards(entry) if entry.kind == "tree" else ""
    one = entry.head
    if one.foreseen and one.fate != "candidate":
        return "look-ahead"
    if one.fate == "candidate":
        return f"= {one.answer_class}" if one.answer_class else f"no answer, {_ENDS.get(one.finish, one.finish)}"
    if one.fate == "cut":
        return "left open" if one.finish == "stop" else _ENDS.get(one.finish, one.finish)
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
    parts = [f"sample {name(one.path)}", _ENDS.get(one.finish, one.finish), f"log-probability {one.logprob:.2f}"]
    if one.revises:
        parts.insert(1, f"revises {name(one.path[:-1])}")
    if len(node.samples) > 1:
        parts.append(f"equal to {_names(node.samples[1:])}")
    if node.merged:
        parts.append(f"merged into it: {_names(node.merged)}")
    return " \N{MIDDLE DOT} ".join(parts)


def name(path: tuple[int, ...]) -> str:
    """How a path is written."""
    return ".".join(map(str, path)) or "the root"


def spent(tree: SearchTree) -> str:
    """What the run was charged, of what it was allowed."""
    charged = f"{tree.done.spent:,}" if tree.done else "unknown: the run did not end"
    unit = _UNITS.get(tree.run.count, tree.run.count)
    return f"{charged} {unit}, no limit" if tree.run.budget is None else f"{charged} of {tree.run.budget:,} {unit}"


def answer(tree: SearchTree) -> str:
    """The answer, or why there is none."""
    if tree.done is None:
        return "none: the run did not end"
    return tree.done.answer if tree.done.answer is not None else f"none: {tree.done.abstained}"


def settings(tree: SearchTree) -> str:
    """The strategy with its options."""
    if tree.search is None:
        return "none was begun"
    options = (f"{key}={value}" for key, value in tree.search.options.items() if value is not None)
    return f"{tree.search.strategy}: {', '.join(options)}"


def question(tree: SearchTree) -> str:
    """The chat turns before the solution; a single user turn stands by itself."""
    turns = tree.run.messages
    if len(turns) == 1:
        return turns[0][1]
    return "\n".join(f"{role}: {content}" for role, content in turns)


def _names(samples: tuple[Outcome, ...], most: int = 8) -> str:
    shown = ", ".join(name(one.path) for one in samples[:most])
    return f"{shown} and {len(samples) - most} more" if len(samples) > most else shown


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
