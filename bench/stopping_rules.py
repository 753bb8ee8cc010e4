"""What published rules of stopping keep of their promises, by simulation: error, samples, shared budgets, scores.

    python bench/stopping_rules.py [--runs 300] [--seed 0] [--json FILE] [--results bench/RESULTS.md]

**One problem.** Answers are drawn independently from a known distribution, and a rule looks after every sample, up to
200. ``wrong``: share of runs in which it stops with a leader that is not the most frequent answer; of a certificate
that an answer was certified that is not, at any number of samples at all. Where answers are exactly tied, every one of
them may lead. ``samples``: mean, those that never stopped counted as 200. ``ratio``: to the fixed number that suffices
by Hoeffding's inequality for an error of .05, 2 ln((k - 1) / .05) / (p1 - p2)^2 with the k answers and the gap known.

**Many problems.** 100 problems of 4 answers, whose shares differ from problem to problem, share a budget; the problem
of the largest worth gets the next sample. Share of them whose vote is the most frequent answer, by samples a problem.

**Scores.** The best score less the cost of all samples, for four distributions of scores and a cost of .01: with the
distribution known (Weitzman's rule), at the best fixed number, by ``pandora_ucb``, and by the same with the paper's
tail, an exponential one above the median.

Figures: ``wrong.<rule>.<distribution>``, ``samples.<rule>.<distribution>``, ``ratio.<rule>.<distribution>``,
``mode.<rule>.<samples a problem>``, ``net.<rule>.<distribution>``, and ``us_per_look.<rule>``: microseconds of
processor time for a look at 16 samples (a rule keeps what it computed by votes).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from measuring import markdown_table, parser_of, provenance, report, write_section

from adaptive_ttc.stopping.base import Draw, StoppingRule
from adaptive_ttc.stopping.pandora_ucb import PandoraUcb
from adaptive_ttc.stopping.registry import make_rule
from adaptive_ttc.stopping.simulated import leader, shared

ALPHA = 0.05
HORIZON = 200

DISTRIBUTIONS: Mapping[str, tuple[float, ...] | None] = {
    "sure": (0.95, 0.05),
    "clear": (0.6, 0.25, 0.15),
    "diffuse": (0.3, *[0.02] * 35),
    "close": (0.45, 0.35, 0.2),
    "near tie": (0.34, 0.33, 0.33),
    "tie": (0.5, 0.5),
    "many near": (0.06, *[0.047] * 20),
    "growing": None,
}
"""Shares of answers; ``growing``: one in three is the mode, one in eight a rival, and every other answer is new."""

GROWING = (1 / 3, 1 / 8)

RULES: Mapping[str, StoppingRule] = {
    "martingale": make_rule("martingale", level=1 - ALPHA),
    "cite": make_rule("cite", level=1 - ALPHA),
    "cite, weighted": make_rule("cite", level=1 - ALPHA, weighted=True),
    "adaptive_consistency": make_rule("adaptive_consistency", level=1 - ALPHA),
    "adaptive_consistency .8": make_rule("adaptive_consistency", level=0.8),
    "bayes_factor": make_rule("bayes_factor"),
    "bayesian_stopping": make_rule("bayesian_stopping", level=1 - ALPHA),
    "esc": make_rule("esc"),
}
CERTIFICATES = ("martingale", "cite", "cite, weighted")

SHARED: Mapping[str, StoppingRule] = {
    "uniform": make_rule("uniform"),
    "adaptive_consistency .8": RULES["adaptive_consistency .8"],
    "adaptive_consistency": RULES["adaptive_consistency"],
    "blend_asc": make_rule("blend_asc"),
    "least_settled": make_rule("least_settled"),
    "pets": make_rule("pets"),
    "bayes_factor": RULES["bayes_factor"],
    "esc": make_rule("esc", window=3),
}
EACH = (3, 4, 6, 8)

SCORES: Mapping[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "uniform": lambda rng, n: rng.random(n),
    "low": lambda rng, n: rng.beta(2, 5, n),
    "two humps": lambda rng, n: np.where(rng.random(n) < 0.3, rng.beta(20, 3, n), rng.beta(2, 8, n)),
    "exponential": lambda rng, n: np.minimum(0.4 + rng.exponential(0.05, n), 1.0),
}
COST = 0.01
MOST_SCORES = 60


def drawn(name: str, rng: np.random.Generator, weighted: bool) -> tuple[list[Draw], set[str]]:
    """As many samples of a distribution as are ever looked at, and its most frequent answers.

    Weights vary from .5 to 1.5 whatever the answer, so that the modes of both votes are the same.
    """
    shares = DISTRIBUTIONS[name]
    if shares is None:
        mode, rival = GROWING
        places = np.searchsorted(np.cumsum([mode, rival]), rng.random(HORIZON)).tolist()
        answers = [f"new {n}" if place == 2 else str(place) for n, place in enumerate(places)]
        modes = {"0"}
    else:
        answers = [str(one) for one in rng.choice(len(shares), HORIZON, p=shares).tolist()]
        modes = {str(k) for k, share in enumerate(shares) if share == max(shares)}
    weights = rng.uniform(0.5, 1.5, HORIZON).tolist() if weighted else [1.0] * HORIZON
    return [Draw(answer, 1, weight) for answer, weight in zip(answers, weights, strict=True)], modes


def stopped(rule: StoppingRule, draws: Sequence[Draw]) -> int | None:
    """After how many samples a rule stops; None if never."""
    n = 0
    while n < len(draws):
        n += rule.samples(draws[:n])
        if n <= len(draws) and rule.worth(draws[:n]) <= 0:
            return n
    return None


def one_problem(name: str, rule: StoppingRule, distribution: str, runs: int, seed: int) -> tuple[float, float, float]:
    """Share of wrong stops, mean samples, and their ratio to Hoeffding's number (nan where the gap is 0)."""
    rng, wrong, taken = np.random.default_rng(seed), 0, []
    for _ in range(runs):
        draws, modes = drawn(distribution, rng, "weighted" in name)
        n = stopped(rule, draws)
        taken.append(n or HORIZON)
        if n is not None:
            certificate = rule.certificate(draws[:n]) if name in CERTIFICATES else None
            wrong += (certificate.answer if certificate else leader(draws[:n])) not in modes
    return wrong / runs, fmean(taken), fmean(taken) / fixed_number(distribution)


def fixed_number(distribution: str) -> float:
    """Samples that suffice for a known gap and number of answers, by Hoeffding's inequality; nan for a tie."""
    shares = DISTRIBUTIONS[distribution]
    first, second = GROWING if shares is None else shares[:2]
    others = HORIZON if shares is None else len(shares) - 1
    return 2 * math.log(others / ALPHA) / (first - second) ** 2 if first > second else math.nan


def mode_share(rule: StoppingRule, problems: Sequence[Sequence[Draw]], budget: int) -> float:
    """Share of problems whose vote is answer 0, the most frequent, with one budget in samples for all."""
    return fmean(leader(one) == "0" for one in shared(rule, problems, budget))


def pools(seed: int, number: int = 100, pools: int = 5) -> list[list[list[Draw]]]:
    """Pools of problems, each with 64 samples of 4 answers; answer 0 is the most frequent."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(pools):
        shares = [np.sort(rng.dirichlet([6 * rng.random() + 0.5, 1.0, 0.5, 0.5]))[::-1] for _ in range(number)]
        made.append([[Draw(str(one), 1) for one in rng.choice(4, 64, p=p).tolist()] for p in shares])
    return made


def papers_rise(scores: Sequence[float], delta: float = 0.05) -> float:
    """The rise of the best score by the paper's tail: the median plus an exponential variable, its mean enlarged."""
    ordered, n = sorted(scores), len(scores)
    upper = ordered[n // 2 :]
    wider = 1 + math.sqrt(math.log(math.log(max(n, 3))) * math.log(1 / delta) / n)
    mean = max(fmean(upper) - upper[0], 1e-6) * wider
    return 0.5 * mean * math.exp(-(ordered[-1] - upper[0]) / mean)


def net(name: str, runs: int, seed: int) -> dict[str, float]:
    """Best score less costs: the distribution known, the best fixed number, learned, and by the paper's tail."""
    rng, rule = np.random.default_rng(seed), PandoraUcb(cost=COST)
    values = np.sort(SCORES[name](rng, 100_000))[::-1]
    caps = (np.cumsum(values) - COST * len(values)) / np.arange(1, len(values) + 1)
    cap = float(caps[np.argmax(caps >= np.append(values[1:], -np.inf))])  # E[(v - cap)+] = cost
    rows = SCORES[name](rng, runs * MOST_SCORES).reshape(runs, MOST_SCORES)

    def learned(rise: Callable[[Sequence[float]], float]) -> float:
        found = []
        for row in rows.tolist():
            n = 2
            while n < MOST_SCORES and rise(row[:n]) > COST:
                n += 1
            found.append(max(row[:n]) - COST * n)
        return fmean(found)

    reached = np.where((rows >= cap).any(axis=1), (rows >= cap).argmax(axis=1) + 1, MOST_SCORES)
    return {
        "known": fmean(row[:n].max() - COST * n for row, n in zip(rows, reached, strict=True)),
        "fixed": max(float(rows[:, :n].max(axis=1).mean()) - COST * n for n in range(1, MOST_SCORES + 1)),
        "pandora_ucb": learned(rule.rise),
        "exponential tail": learned(papers_rise),
    }


def microseconds(rule: StoppingRule, looks: int = 2_000) -> float:
    """Of processor time for a look at 16 samples with scores, the fastest of five rounds."""
    draws = [Draw("aabacabdab"[k % 10], 1, 1.0, 0.3 + 0.04 * (k % 7)) for k in range(16)]
    rule.worth(draws)
    rounds = []
    for _ in range(5):
        started = time.process_time()
        for _ in range(looks):
            rule.worth(draws)
        rounds.append(time.process_time() - started)
    return 1e6 * min(rounds) / looks


def measure(runs: int, seed: int) -> dict[str, float]:
    """All figures."""
    found: dict[str, float] = {}
    for name, rule in RULES.items():
        for distribution in DISTRIBUTIONS:
            values = one_problem(name, rule, distribution, runs, seed)
            found |= {
                f"{k}.{name}.{distribution}": v for k, v in zip(("wrong", "samples", "ratio"), values, strict=True)
            }
    made = pools(seed)
    for name, rule in SHARED.items():
        for each in EACH:
            found[f"mode.{name}.{each}"] = fmean(mode_share(rule, one, each * len(one)) for one in made)
    for name in SCORES:
        found |= {f"net.{rule}.{name}": value for rule, value in net(name, runs, seed).items()}
    every = {**RULES, **SHARED, "pandora_ucb": PandoraUcb()}
    return found | {f"us_per_look.{name}": microseconds(rule) for name, rule in every.items()}


def section(found: Mapping[str, float], runs: int) -> str:
    """The figures as tables."""
    certificates = [[name, *(_cell(found, name, one) for one in DISTRIBUTIONS)] for name in RULES]
    parts = [
        provenance(),
        f"{runs} runs a cell: share of wrong stops (of certificates: false ones, at any time), mean samples of at most "
        f"{HORIZON}, and in brackets their ratio to the fixed number that Hoeffding's inequality asks for where gap "
        "and number of answers are known. The first three promise an error of at most .05 whatever the distribution; "
        "the others promise none.",
        markdown_table(["rule", *DISTRIBUTIONS], certificates),
        "Many problems, one budget: share of problems whose vote is the most frequent answer, by samples a problem.",
        markdown_table(
            ["rule", *map(str, EACH)],
            [[name, *(f"{found[f'mode.{name}.{each}']:.3f}" for each in EACH)] for name in SHARED],
        ),
        f"Scores: the best score less {COST} a sample.",
        markdown_table(
            ["rule", *SCORES],
            [
                [name, *(f"{found[f'net.{name}.{one}']:.3f}" for one in SCORES)]
                for name in ("known", "fixed", "pandora_ucb", "exponential tail")
            ],
        ),
        "Microseconds for a look at 16 samples: "
        + ", ".join(f"{key.partition('.')[2]} {found[key]:.0f}" for key in found if key.startswith("us_per_look"))
        + ".",
    ]
    return "\n\n".join(parts)


def _cell(found: Mapping[str, float], rule: str, distribution: str) -> str:
    wrong, samples, ratio = (found[f"{kind}.{rule}.{distribution}"] for kind in ("wrong", "samples", "ratio"))
    return f"{wrong:.3f}, {samples:.0f}" + ("" if math.isnan(ratio) else f" ({ratio:.2f})")


def main() -> None:
    """Measure, print, and write what is asked for."""
    parser = parser_of(__doc__)
    parser.add_argument("--runs", type=int, default=300, help="simulated problems a cell (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the simulation (default: %(default)s)")
    parser.add_argument("--results", type=Path, metavar="FILE", help="write the tables into this file")
    options = parser.parse_args()
    found = measure(options.runs, options.seed)
    report(options.json, "stopping_rules", {key: value for key, value in found.items() if not math.isnan(value)})
    if options.results is not None:
        write_section(options.results, "stopping_rules", section(found, options.runs))


if __name__ == "__main__":
    main()
