"""Beam search over steps under a process reward model.

Source: arXiv 2408.03314, section 3.2. The width shrinks as beams finish, the search ends when ``n`` have, and equal
beams are merged: no candidate is a copy of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adaptive_ttc.strategies.registry import register
from adaptive_ttc.strategies.requests import Search
from adaptive_ttc.strategies.steps import Evidence, StepSearch, distinct, resumption, tips
from adaptive_ttc.types import ROOT, Prefix


@register("beam_search")
@dataclass(frozen=True, kw_only=True)
class BeamSearch(StepSearch):
    """``n`` beams; a round keeps the best unfinished ones, and samples ``beam_width`` next steps from each."""

    n: int = 16
    beam_width: int = 4

    def search(self, start: Sequence[Prefix] = ()) -> Search:
        """Search until ``n`` beams have finished, none is left, or ``max_steps``; all finished ones are candidates.

        First come ``n`` first steps. With f beams finished the best ceil((n - f) / M) others are kept, and n - f next
        steps are sampled from them in turn, M from each at most. Where the budget, a stop or ``max_steps`` cuts the
        search, its current beams are handed in unfinished.
        """
        known = Evidence.of(start)
        finished, over = list(known.finished), list(known.over)
        foreseen: tuple[Prefix, ...] = ()
        room = self.n - len(finished)
        if room <= 0:
            return (*finished, *over)
        whole = known.whole
        parents = (*known.cut, *[ROOT] * (room - len(known.cut) - len(whole)))
        for depth in range(1, self.max_steps + 1):
            children = (yield from self.next_steps(parents, whole)) if parents else ()
            step = distinct((*whole, *children))
            finished += [one for one in step if one.finished]
            over += [one for one in step if one.finish == "length"]
            going = [one for one in step if one.finish == "stop"]
            room = self.n - len(finished)
            if room <= 0:
                break
            if not going:
                over += tips(resumption(parents, children), (*finished, *over))
                break
            if depth == self.max_steps:
                over += going
                break
            ranked = yield from self.rank(going)
            foreseen += ranked.foreseen
            kept = ranked.prefixes[: -(-room // self.beam_width)]
            width = min(room, self.beam_width * len(kept))
            whole, parents = (), tuple(kept[index % len(kept)] for index in range(width))
        return (*(finished or distinct(foreseen)), *over)
