"""Checks of what scores solutions: right ones above wrong ones, a score for every step, prefixes that are kept."""

from __future__ import annotations

from collections.abc import Iterator

from adaptive_ttc.doctor.check import Check, by_share, judged
from adaptive_ttc.doctor.policy_checks import Samples
from adaptive_ttc.doctor.problems import WORKED, Worked
from adaptive_ttc.errors import see
from adaptive_ttc.prm.base import RewardModel, Scored, ScoreRequest, traits_of

FEW = 3  # pairs of the policy's own samples below which they say too little by themselves


async def check_polarity(prm: RewardModel, samples: Samples) -> Check:
    """Whether right solutions score above wrong ones: those of :data:`WORKED`, and the policy's own."""
    own = list(_own_pairs(samples))
    worked = [] if traits_of(prm).logprobs else [await _scores_of(prm, one) for one in WORKED]
    pairs = own + worked
    if not pairs:
        found = "none of the problems has right and wrong samples with scores to compare"
        remedy = "give problems that the policy solves now and then: --dataset FILE"
        return Check(name="PRM polarity", status="warning", found=found, remedy=remedy)
    share = _share(pairs)
    figures = {"pairs": len(pairs), "share": share}
    figures |= {"own_share": _share(own)} if own else {}
    figures |= {"worked_share": _share(worked)} if worked else {}
    found = f"right solutions score above wrong ones in {share:.0%} of {len(pairs)} pairs, {len(own)} of them samples"
    least = min([share, *([_share(own)] if len(own) >= FEW else []), *([_share(worked)] if worked else [])])
    status = by_share(least, well=0.7, badly=0.5)
    remedy = (
        "check that the PRM is read by its own reader (reader=...), was made for such problems, and that its head and "
        f"its labels are not turned round {see('prms.md#families')}"
    )
    return judged("PRM polarity", status, found, remedy, figures)


def _share(pairs: list[tuple[float, float]]) -> float:
    return sum((right > wrong) + 0.5 * (right == wrong) for right, wrong in pairs) / len(pairs)


def _own_pairs(samples: Samples) -> Iterator[tuple[float, float]]:
    """The scores of every right and every wrong sample of one problem."""
    for candidates, right in zip(samples.candidates, samples.right, strict=True):
        known = [(one.score, good) for one, good in zip(candidates, right, strict=True) if one.score is not None]
        yield from ((a, b) for a, good in known if good for b, other in known if other is False)


async def _scores_of(prm: RewardModel, worked: Worked) -> tuple[float, float]:
    """The last scores of the right and of the wrong solution; 0 where there is none."""
    rivals = bool(traits_of(prm).rivals)
    found = []
    for steps, other in ((worked.right, worked.wrong), (worked.wrong, worked.right)):
        scored = await prm.score(ScoreRequest(worked.problem, steps, rivals=(other,) if rivals else ()))
        found.append(scored.scores[-1] if scored.scores else 0.0)
    return found[0], found[1]


async def check_scores(prm: RewardModel) -> Check | None:
    """Whether every step gets a score between 0 and 1; None for what needs a policy's own tokens, or rivals."""
    traits = traits_of(prm)
    if traits.logprobs or traits.rivals:
        return None
    first = WORKED[0]
    scored = await prm.score(ScoreRequest(first.problem, first.right))
    wrong = len(scored.scores) != len(first.right) or not all(0 <= score <= 1 for score in scored.scores)
    found = (
        f"{len(scored.scores)} scores for {len(first.right)} steps: {', '.join(f'{one:.3f}' for one in scored.scores)}"
    )
    if wrong and not (traits.written and not scored.scores):
        remedy = f"the PRM is read in another form than it was trained in: choose its reader {see('prms.md#families')}"
        return Check(name="PRM scores", status="fault", found=found, remedy=remedy)
    if wrong:
        found = "it wrote no verdict that could be read"
        remedy = f"give it the prompt that it was trained with, or more max_tokens {see('verifiers.md')}"
        return Check(name="PRM scores", status="fault", found=found, remedy=remedy)
    return Check(name="PRM scores", status="ok", found=found)


async def check_prm_cache(prm: RewardModel) -> Check | None:
    """Whether a solution that goes on is read from where it was; None for what reads no steps or nothing at all."""
    traits = traits_of(prm)
    if traits.free or traits.finished_only or traits.written:
        return None
    one = WORKED[1]
    await prm.score(ScoreRequest(one.problem, one.right[:-1]))
    again: Scored = await prm.score(ScoreRequest(one.problem, one.right))
    figures = {"cached_tokens": again.cached_tokens, "read_tokens": again.prm_tokens}
    found = f"{again.cached_tokens} tokens of a solution that went on were cached, {again.prm_tokens} were read"
    if again.cached_tokens:
        return Check(name="PRM cache", status="ok", found=found, figures=figures)
    why = see("prms.md#only-new-steps-are-computed")
    remedy = f"beam_search reads every solution from its beginning at every step {why}"
    return Check(name="PRM cache", status="warning", found=found, remedy=remedy, figures=figures)
