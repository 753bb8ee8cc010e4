"""Beam search over steps under a process reward model; it knows no engine, budget or answer.

Source: arXiv 2408.03314, section 3.2. The width shrinks as beams finish, the search ends when ``n`` have,
and equal beams are merged: no candidate is a copy of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adaptive_ttc.requests import Search
from adaptive_ttc.strategies.base import register
from adaptive_ttc.strategies.steps import StepSearch, cut_short, distinct
from adaptive_ttc.types import Prefix


@register("beam_search")
@dataclass(frozen=True, kw_only=True)
class BeamSearch(StepSearch):
    """``n`` beams; a round keeps the best of those that go on, and samples ``beam_width`` next steps from each."""

    n: int = 16
    beam_width: int = 4

    def search(self, start: Sequence[Prefix] = ()) -> Search:
        """Search until ``n`` beams have finished, none goes on, or ``max_steps``; all finished ones are candidates.

        First come ``n`` first steps. With f beams finished the best ceil((n - f) / M) others are kept, and n - f
        next steps are sampled from them in turn, M from each at most. Where the budget, a stop or ``max_steps``
        cuts the search, the beams that it then works on are handed in unfinished.
        """
        finished = [prefix for prefix in start if prefix.finished]
        over = [prefix for prefix in start if prefix.finish == "length"]
        parents: Sequence[Prefix] = [prefix for prefix in start if prefix.finish not in ("eos", "length")]
        foreseen: tuple[Prefix, ...] = ()
        children = yield from self.first_steps(parents, self.n - len(finished))
        for depth in range(1, self.max_steps + 1):
            children = distinct(children)
            finished += [child for child in children if child.finished]
            over += [child for child in children if child.finish == "length"]
            room = self.n - len(finished)
            ranked = yield from self.rank([child for child in children if child.finish == "stop"])
            foreseen += ranked.foreseen
            if room <= 0:
                return (*finished, *over)
            if not ranked.prefixes:
                over += cut_short(parents, children)
                break
            if depth == self.max_steps:
                over += ranked.prefixes
                break
            parents = ranked.prefixes[: -(-room // self.beam_width)]
            width = min(room, self.beam_width * len(parents))
            children = yield from self.next_steps([parents[index % len(parents)] for index in range(width)])
        return (*(finished or foreseen), *distinct(over))
