"""Diverse verifier tree search: small greedy trees side by side; it knows no engine, budget or answer.

Source: "Scaling test-time compute with open models" (Beeching, Tunstall, Rush; Hugging Face, 2024), section on
DVTS, which extends arXiv 2408.03314.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from adaptive_ttc.requests import Fork, Search
from adaptive_ttc.strategies.base import register
from adaptive_ttc.strategies.steps import StepSearch, cut_short, distinct
from adaptive_ttc.types import Prefix


@register("dvts")
@dataclass(frozen=True, kw_only=True)
class DVTS(StepSearch):
    """``n / beam_width`` independent trees; each samples ``beam_width`` steps and keeps the best, again and again."""

    n: int = 16
    beam_width: int = 4

    def search(self, start: Sequence[Prefix] = ()) -> Search:
        """Grow all trees; every finished solution that a tree met is a candidate, its unfinished siblings are not.

        Finished evidence takes the place of as many first steps, unfinished evidence is dealt to the trees. What a
        tree leaves of its part of the budget goes to those that were cut; what stays cut is handed in unfinished.
        """
        ended = [prefix for prefix in start if prefix.finish in ("eos", "length")]
        begun = [prefix for prefix in start if prefix.finish not in ("eos", "length")]
        slots = max(len(begun), self.n - sum(prefix.finished for prefix in ended))
        trees = [
            Tree(self, begun[first : first + self.beam_width], min(self.beam_width, slots - first))
            for first in range(0, slots, self.beam_width)
        ]
        growing = trees
        while growing:
            before = [tree.left for tree in growing]
            yield from Fork(searches=tuple(tree.grow() for tree in growing), least=self.max_tokens)
            growing = [tree for tree, left in zip(growing, before, strict=True) if tree.cut and tree.left != left]
        found = [one for tree in trees for one in tree.found] or [one for tree in trees for one in tree.foreseen]
        return (*ended, *found, *(one for tree in trees for one in tree.left))


@dataclass(slots=True)
class Tree:
    """One greedy tree, which can be gone on with after its budget cut it.

    Attributes:
        settings: of the search.
        left: unfinished solutions in hand.
        width: first steps, those in hand included.
        depth: steps so far.
        found: finished solutions.
        foreseen: finished roll-outs.
        cut: whether the budget ended its growth.
    """

    settings: DVTS
    left: Sequence[Prefix]
    width: int
    depth: int = 1
    found: list[Prefix] = field(default_factory=list)
    foreseen: list[Prefix] = field(default_factory=list)
    cut: bool = False

    def grow(self) -> Search:
        """Keep the best step until it is a final one, or ``max_steps``."""
        parents = self.left
        children = yield from self.settings.first_steps(parents, self.width)
        self.width, self.cut, self.left = 0, False, ()
        while True:
            children = distinct(children)
            self.found += [child for child in children if child.finished]
            ranked = yield from self.settings.rank([child for child in children if child.finish in ("eos", "stop")])
            self.foreseen += ranked.foreseen
            if not ranked.prefixes:
                self.cut, self.left = True, cut_short(parents, children)
                break
            best = ranked.prefixes[0]
            if best.finished:
                break
            if self.depth == self.settings.max_steps:
                self.left = (best,)
                break
            self.depth += 1
            parents = (best,)
            children = yield from self.settings.next_steps([best] * self.settings.beam_width)
        return (*self.found, *self.left)
