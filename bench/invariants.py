"""What must hold in every run, checked in thousands of random ones over fake engines.

    python bench/invariants.py --json FILE [--pools] [--runs R] [--seed S] [--workers W] [--only NUMBER]

A run draws everything at random: strategy (all, and none named), N, M, budget and what it bounds, evidence, deadline,
stop, cancellation, failures of policy and PRM, engines that ignore aborts, delays. It is the same run whenever seed
and number are; ``--only NUMBER`` repeats one and shows it. Exit code 1 where anything was found.

Figures: ``runs``, and the runs in which

- ``overspent``: an account promised more than it held, or the engines did more than the budget pays for;
- ``leaked_reservations``: an account was not settled in the end; ``leaked_requests``: an engine was not idle;
- ``miscounted``: usage is not what the engines delivered, or the ledger was not charged exactly that;
- ``empty_handed``: no candidate ended, though a budget of at least ``max_tokens`` pays for one solution, the step
  limit allows for it, nothing failed and nobody ended the run early;
- ``duplicates``: a sample was handed in twice, or a search over steps handed in two equal texts;
- ``order_dependent``: other delays, with nothing failing or ending early, gave another result;
- ``crashed``: it raised what it should not, or never ended.

With ``--pools`` the runs are pools of problems that share a budget, and streams: of lists and sources, looped over,
awaited, left, stopped or cancelled, some with a checkpoint from which the same call is made again. Then there are, in
place of the last four but ``crashed``: ``missing``, a problem had no solution, or one with neither an answer nor a
reason (of a source, those do not count that had not arrived when a stop, a deadline or an outage ended the run);
``lost``, something settled, or spent, was not there again; and beside them ``streams`` and ``resumed``.

Beside them ``calm_runs`` (nothing fails or ends early; these run twice), ``solutions``, ``errors``, ``cancelled``,
``calls`` (of the policy) and ``runs_per_s``.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import takewhile
from math import inf

from invariants_fake_runs import Call, Case, Outcome, Recorder, Scoring, carry_out, draw, enough
from invariants_pools import check_pool, draw_pool
from measuring import parser_of, report

from adaptive_ttc.answers import Grader
from adaptive_ttc.cost import Price, price_of
from adaptive_ttc.policies.fake.writers import ASSISTANT, split_prompt
from adaptive_ttc.prm.base import RewardModel, ScoreRequest
from adaptive_ttc.solution import Solution
from adaptive_ttc.strategies import BeamSearch, Strategy
from adaptive_ttc.types import Problem, split_steps

VIOLATIONS = (
    "overspent",
    "leaked_reservations",
    "leaked_requests",
    "miscounted",
    "empty_handed",
    "duplicates",
    "order_dependent",
    "crashed",
)
OF_POOLS = ("overspent", "leaked_reservations", "leaked_requests", "miscounted", "missing", "lost", "crashed")
COUNTS = ("calm_runs", "solutions", "errors", "cancelled", "calls")
SHARE = 50
"""Runs that a worker does at a time."""


def check(case: Case, grader: Grader) -> tuple[Counter[str], list[str]]:
    """Carry a run out; what is counted of it, and what was found, in words."""
    outcome = carry_out(case, grader)
    found = dict(violations(case, outcome))
    if case.calm:
        other = carry_out(case.in_other_order(seed=1), grader)
        found |= dict(violations(case, other))
        if result(outcome) != result(other):
            found["order_dependent"] = f"{result(outcome)} and in another order {result(other)}"
    counts = Counter(
        calm_runs=case.calm,
        solutions=outcome.solution is not None,
        errors=outcome.error is not None,
        cancelled=outcome.solution is None and outcome.error is None,
        calls=len(outcome.recorder.calls),
    )
    counts.update(found.keys())
    return counts, [f"{name}: {text}" for name, text in found.items()]


def violations(case: Case, outcome: Outcome) -> Iterator[tuple[str, str]]:
    """What does not hold after a run, each with its evidence."""
    recorder, solution = outcome.recorder, outcome.solution
    if outcome.crash:
        yield "crashed", outcome.crash
    if outcome.error is not None and not any(trouble.lost or trouble.fatal for trouble in case.troubles):
        yield "crashed", f"no engine failed, and yet: {outcome.error!r}"
    unsettled = [one for ledger in recorder.ledgers if (one := ledger.statistics()).reserved or one.open_reservations]
    if unsettled:
        yield "leaked_reservations", str(unsettled)
    if recorder.open or outcome.policy.in_flight or outcome.policy.running or outcome.prm.in_flight:
        yield "leaked_requests", f"{outcome.policy.in_flight} in the policy, {outcome.prm.in_flight} in the PRM"
    yield from wrong_charges(case, outcome)
    if solution is not None:
        if wrong := miscounts(solution, recorder):
            yield "miscounted", str(wrong)
        if owes_an_end(case) and not any(one.prefix.finish in ("eos", "length") for one in solution.candidates):
            yield "empty_handed", str([one.prefix.finish for one in solution.candidates])
        if copies := duplicates(solution):
            yield "duplicates", str(copies)


def wrong_charges(case: Case, outcome: Outcome) -> Iterator[tuple[str, str]]:
    """Where the ledger, the budget and what the engines did differ."""
    recorder, budget = outcome.recorder, case.request.get("budget_tokens")
    if not recorder.ledgers:
        return  # cancelled before it began
    prm = outcome.prm if case.prm else None
    price = price_of(case.request["count"], outcome.policy, prm)
    strategy = case.request.get("strategy")
    revises = strategy == "revision" or (isinstance(strategy, Strategy) and strategy.revises)
    opening = len(outcome.policy.encode(Problem.of(case.question)))
    low, high = charge(recorder, price, opening, prm, revises=revises)
    spent = recorder.ledgers[0].spent
    if recorder.overdrawn or (budget is not None and max(low, spent) > budget):
        yield "overspent", f"budget {budget}, spent {spent}, due {low} to {high}, overdrawn {recorder.overdrawn} times"
    if not low <= spent <= high:
        yield "miscounted", f"the ledger was charged {spent}, due is {low} to {high}"


def miscounts(solution: Solution, recorder: Recorder) -> dict[str, tuple[int, int]]:
    """What usage says and what the engines did, where they differ."""
    usage, calls = solution.usage, recorder.calls
    replies = [call.sampled for call in calls if call.sampled is not None]
    scored = [scoring.scored for scoring in recorder.scorings if scoring.scored is not None]
    pairs = {
        "completion_tokens": (usage.completion_tokens, delivered(calls)),
        "lost_tokens": (usage.lost_tokens, lost(calls)),
        "prompt_tokens": (usage.prompt_tokens, sum(reply.prompt_tokens for reply in replies)),
        "cached_prompt_tokens": (usage.cached_prompt_tokens, sum(reply.cached_tokens for reply in replies)),
        "discarded_tokens": (usage.discarded_tokens, sum(reply.discarded_tokens for reply in replies)),
        "num_calls": (usage.num_calls, len(calls)),
        "prm_tokens": (usage.prm_tokens, sum(one.prm_tokens for one in scored)),
        "num_prm_calls": (usage.num_prm_calls, len(recorder.scorings)),
        "spent": (solution.spent, recorder.ledgers[0].spent),
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def owes_an_end(case: Case) -> bool:
    """Whether the budget surely finishes a solution, and nothing keeps the run from it."""
    strategy, budget = case.request.get("strategy"), case.request.get("budget_tokens")
    inner = getattr(strategy, "inner", None)
    max_steps = getattr(inner, "max_steps", case.request.get("max_steps", 40))
    # fewer finish_tokens than max_tokens are the caller's word that solutions are shorter
    certain = case.calm and case.config.finish_tokens is None and max_steps >= 40
    return certain and (budget is None or budget >= enough(case))


def duplicates(solution: Solution) -> list[str]:
    """Texts that were handed in twice: of one sample, or in a beam search at all."""
    config = getattr(solution.strategy.config, "inner", solution.strategy.config)
    prefixes = [candidate.prefix for candidate in solution.candidates]
    paths = Counter(prefix.path for prefix in prefixes)
    copies = [prefix.text for prefix in prefixes if paths[prefix.path] > 1]
    if isinstance(config, BeamSearch) and config is solution.strategy.config:  # evidence may be equal, and stays
        texts = Counter((prefix.text, prefix.finished) for prefix in prefixes)
        copies += [text for (text, _), number in texts.items() if number > 1]
    return copies


def charge(
    recorder: Recorder, price: Price, opening: int, prm: RewardModel | None, *, revises: bool
) -> tuple[float, float]:
    """What the run's account should have been charged, see :class:`~adaptive_ttc.cost.Price`: between two numbers.

    The two differ only where the engines' records leave a choice. ``opening`` is the number of tokens of the problem's
    prompt; ``revises`` says whether the policy was shown earlier attempts.
    """
    calls = recorder.calls
    low: float = price.decode * (delivered(calls) + lost(calls))
    high = low
    if price.prompt:
        low += price.prompt * (opening * bool(calls) + revision_prompts(calls))
        # a prompt may be paid for and no request follow: a stop, or a budget that ends there
        high += inf if revises else price.prompt * opening
    if price.score and prm is not None:
        bills = list(scoring_bills(recorder, prm))
        low += price.score * sum(min(bill) for bill in bills)
        high += price.score * sum(max(bill) for bill in bills)
    return low, high


def revision_prompts(calls: list[Call]) -> int:
    """Prompt tokens of revisions that no sequence before them holds, once for each attempt that they follow."""
    whole: dict[tuple[int, ...], tuple[int, ...]] = {}
    new: dict[tuple[int, ...], int] = {}
    for call in calls:
        prompt, path = call.asked.prompt_ids, call.asked.path
        base = prompt[: len(prompt) - prompt[::-1].index(ASSISTANT)]
        if base.count(ASSISTANT) > 1 and path[:-1] not in new:
            new[path[:-1]] = len(base) - max((_shared(base, one) for one in whole.values()), default=0)
        if call.sampled is not None:
            whole[path] = prompt + call.sampled.token_ids
    return sum(new.values())


def _shared(first: tuple[int, ...], second: tuple[int, ...]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def scoring_bills(recorder: Recorder, prm: RewardModel) -> Iterator[set[int]]:
    """For every call of the PRM, its tokens beyond those of the parent's scored steps; several where parents differ."""
    begun: dict[tuple[int, ...], str] = {}
    texts: dict[tuple[int, ...], str] = {}
    scored: set[tuple[str, ...]] = set()
    for entry in recorder.log:
        if isinstance(entry, Scoring):
            question, steps = entry.asked.question, entry.asked.steps
            parents = {split_steps(begun[path]) for path, text in texts.items() if split_steps(text) == steps}
            total = prm.count_tokens(entry.asked)
            yield {
                max(0, total - (prm.count_tokens(ScoreRequest(question, parent)) if parent in scored else 0))
                for parent in parents or {()}
            }
            if entry.scored is not None:
                scored.add(steps)
            continue
        path = entry.asked.path
        _, before = split_prompt(entry.asked.prompt_ids)
        begun.setdefault(path, before)
        if entry.sampled is not None:
            texts[path] = before + bytes(one for one in entry.sampled.token_ids if one < 256).decode()


def delivered(calls: Sequence[Call]) -> int:
    """Tokens that the policy handed over."""
    return sum(len(call.sampled.token_ids) for call in calls if call.sampled is not None)


def lost(calls: Sequence[Call]) -> int:
    """Most tokens of the calls that told nothing."""
    return sum(call.asked.max_tokens for call in calls if call.sampled is None)


def result(outcome: Outcome) -> object:
    """What may not depend on the order of replies."""
    solution = outcome.solution
    if solution is None:
        return repr(outcome.error), outcome.crash
    return solution.answer, solution.candidates, solution.spent, replace(solution.usage, wall_time=0.0)


def check_share(seed: int, pools: bool, first: int, last: int) -> tuple[Counter[str], dict[int, list[str]]]:
    """The runs of these numbers: sums, and by number what was found."""
    total: Counter[str] = Counter()
    found: dict[int, list[str]] = {}
    with Grader() as grader:
        for index in range(first, last):
            counts, words = check_pool(draw_pool(seed, index), grader) if pools else check(draw(seed, index), grader)
            total.update(counts)
            if words:
                found[index] = words
    return total, found


def check_all(
    seed: int, runs: int, workers: int = 1, *, pools: bool = False
) -> tuple[Counter[str], dict[int, list[str]]]:
    """All runs of a seed, in so many processes."""
    firsts = range(0, runs, SHARE)
    work = partial(check_share, seed, pools), list(firsts), [min(first + SHARE, runs) for first in firsts]
    total: Counter[str] = Counter()
    found: dict[int, list[str]] = {}
    with ProcessPoolExecutor(workers) as pool:
        for counts, words in pool.map(*work):
            total.update(counts)
            found |= words
    return total, found


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("--runs", "--limit", type=int, default=10_000)
    parser.add_argument("--pools", action="store_true", help="of pools and streams, in place of single problems")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="repeat the run of this number, and show it")
    options = parser.parse_args()
    if options.only is not None:
        print((draw_pool if options.pools else draw)(options.seed, options.only))
        _, found = check_share(options.seed, options.pools, options.only, options.only + 1)
        print("\n".join(found.get(options.only, ["all holds"])))
        return 1 if found else 0
    started = time.perf_counter()
    total, found = check_all(options.seed, options.runs, options.workers, pools=options.pools)
    names = (*OF_POOLS, *COUNTS, "streams", "resumed") if options.pools else (*VIOLATIONS, *COUNTS)
    figures = {"runs": options.runs, **{name: total[name] for name in names}}
    figures["runs_per_s"] = options.runs / (time.perf_counter() - started)
    report(options.json, "invariants of pools" if options.pools else "invariants", figures)
    for index, words in list(found.items())[:10]:
        print(f"--only {index}: {words[0][:200]}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
