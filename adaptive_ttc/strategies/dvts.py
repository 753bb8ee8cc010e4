"""Diverse verifier tree search: small greedy trees side by side.

Source: "Scaling test-time compute with open models" (Beeching, Tunstall, Rush; Hugging Face, 2024), section on DVTS,
which extends arXiv 2408.03314.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from adaptive_ttc.strategies.registry import register
from adaptive_ttc.strategies.requests import Fork, Search
from adaptive_ttc.strategies.steps import Evidence, StepSearch, distinct, resumption, tips
from adaptive_ttc.types import ROOT, Prefix


@register("dvts")
@dataclass(frozen=True, kw_only=True)
class DVTS(StepSearch):
    """``n / beam_width`` independent trees; each samples ``beam_width`` steps and keeps the best, repeatedly."""

    n: int = 16
    beam_width: int = 4

    def search(self, start: Sequence[Prefix] = ()) -> Search:
        """Grow all trees; every finished solution of a tree is a candidate, its unfinished siblings are not.

        Finished evidence replaces as many first steps, unfinished evidence is dealt to the trees, unless ``n`` are
        finished already. What a tree leaves of its part of the budget goes to those that were cut; what stays cut is
        handed in unfinished.
        """
        known = Evidence.of(start)
        begun = (*known.whole, *known.cut)
        missing = self.n - len(known.finished)
        slots = max(len(begun), missing) if missing > 0 else 0
        first_steps = (*begun, *[ROOT] * (slots - len(begun)))
        trees = [Tree.of(self, first_steps[i : i + self.beam_width]) for i in range(0, slots, self.beam_width)]
        growing = trees
        while growing:
            before = [(tree.whole, tree.parents) for tree in growing]
            yield from Fork(searches=tuple(tree.grow() for tree in growing), least=self.max_tokens)
            moved = before != [(tree.whole, tree.parents) for tree in growing]
            growing = [tree for tree in growing if tree.parents] if moved else []
        finished = (*known.finished, *(one for tree in trees for one in tree.found))
        foreseen = (one for tree in trees for one in distinct(tree.foreseen))
        return (*(finished or foreseen), *known.over, *(one for tree in trees for one in tree.left))


@dataclass(slots=True)
class Tree:
    """One greedy tree, which can be continued after its budget cut it."""

    settings: DVTS  # of the search
    whole: tuple[Prefix, ...]  # first steps that exist already
    parents: tuple[Prefix, ...]  # of the step to be sampled, one for each child; none once the tree has ended
    over: tuple[Prefix, ...] = ()  # unfinished solutions that are not continued
    depth: int = 1  # of that step, from 1
    found: list[Prefix] = field(default_factory=list)  # finished solutions
    foreseen: list[Prefix] = field(default_factory=list)  # finished roll-outs

    @classmethod
    def of(cls, settings: DVTS, first_steps: Sequence[Prefix]) -> Tree:
        """A tree with these first steps: whole ones, begun ones, and roots for those to be drawn."""
        whole = tuple(prefix for prefix in first_steps if prefix.finish == "stop")
        return cls(settings, whole, tuple(prefix for prefix in first_steps if prefix.finish != "stop"))

    @property
    def left(self) -> tuple[Prefix, ...]:
        """Unfinished solutions in hand."""
        return tips((*self.over, *self.parents), self.found)

    def grow(self) -> Search:
        """Keep the best step until it is a final one, the budget cuts the tree, or ``max_steps``."""
        while self.whole or self.parents:
            children = (yield from self.settings.next_steps(self.parents, self.whole)) if self.parents else ()
            step = distinct((*self.whole, *children))
            self.whole = ()
            self.found += [one for one in step if one.finished]
            ranked = yield from self.settings.rank([one for one in step if one.finish in ("eos", "stop")])
            self.foreseen += ranked.foreseen
            if not ranked.prefixes:
                self.over += tuple(one for one in step if one.finish == "length")
                self.parents = resumption(self.parents, children)
                break
            self._keep(ranked.prefixes[0])
        return (*self.found, *self.left)

    def _keep(self, best: Prefix) -> None:
        self.over = self.parents = ()
        if best.finish == "stop" and self.depth == self.settings.max_steps:
            self.over = (best,)
        elif best.finish == "stop":
            self.depth += 1
            self.parents = (best,) * self.settings.beam_width
