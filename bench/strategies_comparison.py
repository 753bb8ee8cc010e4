"""What a journal's entries say about strategies: accuracy, cost, differences, by difficulty; tables and pictures.

Every measure is one number a problem, so that all intervals are bootstraps over the same problems, and differences
are paired. What a pool of samples says about k of them is an expectation over its subsets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Entry, Journal, markdown_table, picture_links, provenance
from numpy.typing import NDArray
from rich.table import Table
from rich.text import Text

from adaptive_ttc.calibration.pareto.plots import Curve, draw_bars, draw_sizes, name_of, save, styled
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.evaluation.datasets import Row
from adaptive_ttc.evaluation.evaluate import Pool
from adaptive_ttc.evaluation.metrics import NO_ANSWER, Interval, interval, paired_interval, pass_at_k, quintiles
from adaptive_ttc.strategies import make_strategy
from adaptive_ttc.types import split_steps

POOL = "pool"
SAMPLES = 64
POOLED = ("majority", "best_of_n", "weighted_best_of_n")
BEAM_WIDTH = 4
WITH_BEAMS = ("beam_search", "dvts")
BASELINE = "weighted_best_of_n"
_NOTHING = Interval(math.nan, math.nan, math.nan)
_ENDS = (("", "mean"), ("_low", "low"), ("_high", "high"))
QUINTILES = range(5)
MIDDLE = (1, 2, 3)
MEANS = ("coverage", "generated_tokens", "prm_tokens", "flops", "candidates", "effective_n")
"""Probability that a right answer is among the candidates; tokens; FLOPs; candidates, and those that voted."""

Column = NDArray[np.float64]
Figure = float | int | list[float] | list[int]


@dataclass(frozen=True, slots=True)
class Arm:
    """A strategy at one N.

    Raises:
        ConfigError: no such strategy, or it cannot be run at that N.
    """

    strategy: str
    n: int

    def __post_init__(self) -> None:
        if self.strategy != POOL:
            make_strategy(self.strategy, **self.options)
        if not 1 <= self.n <= SAMPLES and self.strategy in (POOL, *POOLED):
            raise ConfigError(f"--n {self.n}: a pool holds {SAMPLES} samples a problem; take n from 1 to {SAMPLES}")

    @property
    def options(self) -> dict[str, Any]:
        """Of the strategy."""
        return {"n": self.n, **({"beam_width": BEAM_WIDTH} if self.strategy in WITH_BEAMS else {})}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All arms on the same problems.

    Attributes:
        arms: arm -> measure -> shape [problems]; the baseline at every N is among them. The measures are those of
            :data:`MEANS` and ``accuracy``, the probability that the answer is right.
        asked: the arms that are to be reported, in their order.
        pass_at_1: share of right samples of every problem, shape [problems].
        quintile: difficulty of every problem by that share, 0 the easiest.
    """

    arms: Mapping[Arm, Mapping[str, Column]]
    asked: tuple[Arm, ...]
    pass_at_1: Column
    quintile: NDArray[np.int64]

    def accuracy(self, arm: Arm, quintiles: Sequence[int] = QUINTILES) -> Interval | None:
        """Mean over the problems of some quintiles, with its interval; None where there is no problem."""
        chosen = np.isin(self.quintile, quintiles)
        return interval(self.arms[arm]["accuracy"][chosen]) if chosen.any() else None

    def difference(self, arm: Arm, other: Arm, quintiles: Sequence[int] = QUINTILES) -> Interval | None:
        """Mean of the first's accuracy less the other's, paired by problem."""
        chosen = np.isin(self.quintile, quintiles)
        if not chosen.any():
            return None
        return paired_interval(self.arms[arm]["accuracy"][chosen], self.arms[other]["accuracy"][chosen])

    @property
    def rates(self) -> list[float]:
        """Share of right samples by quintile; nan where one is empty."""
        parts = [self.pass_at_1[self.quintile == one] for one in QUINTILES]
        return [float(part.mean()) if len(part) else math.nan for part in parts]

    def mean(self, arm: Arm, name: str) -> float:
        """Mean of a measure over the problems."""
        return float(self.arms[arm][name].mean())

    def against_baseline(self, arm: Arm, quintiles: Sequence[int] = QUINTILES) -> Interval | None:
        """:meth:`difference` from weighted best-of-N at the same N; None for itself and for greedy."""
        if arm.strategy in (BASELINE, "greedy"):
            return None
        return self.difference(arm, Arm(BASELINE, arm.n), quintiles)


def compare(journal: Journal, rows: Sequence[Row], asked: Sequence[Arm]) -> Comparison:
    """Read the arms' entries of these problems, all of which must be there.

    Args:
        journal: of a run that is done.
        rows: the problems.
        asked: the arms.
    """
    pools = [journal[POOL, SAMPLES, row["unique_id"]] for row in rows]
    needed = dict.fromkeys([*asked, *(Arm(BASELINE, arm.n) for arm in asked)])
    arms = {}
    for arm in needed:
        if arm.strategy in POOLED:
            found = [_of_pool(entry, row, arm, seed) for seed, (entry, row) in enumerate(zip(pools, rows, strict=True))]
        else:
            found = [_of_search(journal[arm.strategy, arm.n, row["unique_id"]]) for row in rows]
        arms[arm] = {name: np.array([one[name] for one in found], dtype=float) for name in found[0]}
    rates = np.array([np.mean(entry["correct"]) for entry in pools])
    return Comparison(arms=arms, asked=tuple(asked), pass_at_1=rates, quintile=quintiles(rates))


def figures_of(comparison: Comparison) -> dict[str, Figure]:
    """The figures that ``strategies.py`` describes; nan, which is written as null, for an empty quintile."""
    figures: dict[str, Figure] = {
        "problems": len(comparison.pass_at_1),
        "problems_by_quintile": [int((comparison.quintile == one).sum()) for one in QUINTILES],
        "pass_at_1": float(comparison.pass_at_1.mean()),
        "pass_at_1_by_quintile": comparison.rates,
    }
    for arm in comparison.asked:
        name = f"{arm.strategy}.{arm.n}"
        figures |= _spread("accuracy", name, comparison.accuracy(arm))
        figures |= _spread_by_quintile("accuracy", name, [comparison.accuracy(arm, [one]) for one in QUINTILES])
        figures |= {f"{measure}.{name}": comparison.mean(arm, measure) for measure in MEANS}
        if difference := comparison.against_baseline(arm):
            figures |= _spread("difference", name, difference)
            parts = [comparison.against_baseline(arm, [one]) for one in QUINTILES]
            figures |= _spread_by_quintile("difference", name, parts)
            figures |= _spread("middle_difference", name, comparison.against_baseline(arm, MIDDLE))
        if arm.strategy == "dvts" and (beam := Arm("beam_search", arm.n)) in comparison.arms:
            figures |= _spread("dvts_minus_beam_search", str(arm.n), comparison.difference(arm, beam))
    return figures


def _spread(measure: str, name: str, found: Interval | None) -> dict[str, Figure]:
    return {} if found is None else {f"{measure}{end}.{name}": getattr(found, key) for end, key in _ENDS}


def _spread_by_quintile(measure: str, name: str, found: Sequence[Interval | None]) -> dict[str, Figure]:
    return {
        f"{measure}{end}.{name}_by_quintile": [getattr(one or _NOTHING, key) for one in found] for end, key in _ENDS
    }


def _of_search(entry: Entry) -> dict[str, float]:
    same = ("generated_tokens", "prm_tokens", "flops", "candidates", "effective_n")
    return {"accuracy": entry["correct"], "coverage": entry["covered"], **{name: entry[name] for name in same}}


def _of_pool(entry: Entry, row: Row, arm: Arm, seed: int) -> dict[str, float]:
    """Expectations for ``arm.n`` samples of a pool; the prompt is computed once however many there are."""
    pool, share = _pool(entry, row), arm.n / SAMPLES
    scored = 0.0 if arm.strategy == "majority" else _scored_share(entry, arm.n)
    return {
        "accuracy": pool.accuracy(arm.strategy, arm.n, seed=seed),
        "coverage": pool.pass_at(arm.n),
        "generated_tokens": float(pool.tokens.sum()) * share,
        "prm_tokens": entry["prm_tokens"] * scored,
        "flops": entry["prompt_flops"] + entry["decode_flops"] * share + entry["score_flops"] * scored,
        "candidates": float(arm.n),
        "effective_n": float((pool.classes != NO_ANSWER).sum()) * share,
    }


def _scored_share(entry: Entry, k: int) -> float:
    """Share of a pool's PRM tokens that k of its samples take.

    What several samples have in common is read once: equal solutions by the solver, equal beginnings too by a PRM
    with a prefix cache. What m samples of the pool have in common is among k of them with the probability that
    pass@k states for m right ones, so the share falls less than k does.
    """
    holders: dict[tuple[str, ...], set[int]] = {}
    tokens: dict[tuple[str, ...], int] = {}
    for index, (text, counts) in enumerate(zip(entry["texts"], entry["score_tokens"], strict=True)):
        if counts:
            steps = split_steps(text)
            pieces = [(steps, counts[-1])]
            if entry["prm_cached_tokens"]:  # the question, and every step after those before it, with its own tokens
                so_far = [entry["question_tokens"], *counts]
                own = [so_far[0], *(max(0, after - before) for before, after in pairwise(so_far))]
                pieces = [(steps[:number], new) for number, new in enumerate(own)]
            for piece, number in pieces:
                holders.setdefault(piece, set()).add(index)
                tokens[piece] = number
    samples = np.arange(len(entry["texts"]))
    read = math.fsum(tokens[one] * pass_at_k(np.isin(samples, list(holders[one])), k) for one in tokens)
    return read / sum(tokens.values()) if tokens else 0.0


def _pool(entry: Entry, row: Row) -> Pool:
    return Pool(
        row=row,
        correct=np.array(entry["correct"], dtype=bool),
        classes=np.array(entry["classes"], dtype=np.int64),
        scores=np.array([np.nan if score is None else score for score in entry["scores"]]),
        tokens=np.array(entry["tokens"], dtype=np.int64),
        texts=tuple(entry["texts"]),
    )


_HEAD = (
    "strategy", "N", "accuracy", "less weighted best-of-N", "coverage",
    "generated tokens", "PRM tokens", "MFLOPs", "candidates", "that voted",
)  # fmt: skip
_QUINTILE_NAMES = ("1 (easiest)", "2", "3", "4", "5 (hardest)")


def overview(comparison: Comparison) -> Table:
    """One line an arm, for a terminal of 80 columns."""
    problems = len(comparison.pass_at_1)
    table = Table("strategy", title=f"{problems} MiniMath test problems, % right [95 % interval]", title_justify="left")
    for name in ("N", "accuracy", "less weighted", "tokens"):
        table.add_column(name, justify="right", no_wrap=True)
    for number, arm in enumerate(comparison.asked):
        found, less = comparison.accuracy(arm) or _NOTHING, comparison.against_baseline(arm)
        accuracy = f"{found.mean:.1%} [{found.low:.1%}, {found.high:.1%}]".replace("%", "")
        difference = f"{less.mean:+.1%} [{less.low:+.1%}, {less.high:+.1%}]".replace("%", "") if less else ""
        tokens = f"{comparison.mean(arm, 'generated_tokens'):,.0f}"
        last = [one.strategy for one in comparison.asked[number + 1 : number + 2]] != [arm.strategy]
        cells = (name_of(arm.strategy), str(arm.n), accuracy, difference, tokens)
        table.add_row(*map(Text, cells), end_section=last)
    return table


def section(comparison: Comparison, pictures: Sequence[Path], results: Path, notes: Sequence[str]) -> str:
    """The tables as Markdown for the file ``results``, with what made them, the pictures and further sentences."""
    quintile_head = ("strategy", "N", *(f"quintile {name}" for name in _QUINTILE_NAMES))
    groups = [*([one] for one in QUINTILES), MIDDLE]
    accuracies = (
        (name_of(arm.strategy), str(arm.n), *(_accuracy(comparison.accuracy(arm, [one])) for one in QUINTILES))
        for arm in comparison.asked
    )
    differences = (
        (name_of(arm.strategy), str(arm.n), *(_difference(comparison.against_baseline(arm, some)) for some in groups))
        for arm in comparison.asked
        if arm.strategy not in (BASELINE, "greedy")
    )
    parts = [
        provenance(),
        *notes,
        f"{len(comparison.pass_at_1)} problems; brackets hold 95 % bootstrap intervals over problems, differences are "
        "paired by problem; tokens and FLOPs are a problem's.",
        markdown_table(_HEAD, (_line(comparison, arm) for arm in comparison.asked)),
        *picture_links(pictures, results),
        "Accuracy by oracle-difficulty quintile (pass@1 in the pool: "
        + ", ".join("none" if math.isnan(rate) else f"{rate:.2f}" for rate in comparison.rates)
        + "):",
        markdown_table(quintile_head, accuracies),
        "Accuracy less that of weighted best-of-N at the same N, by quintile; bold where the interval leaves out 0:",
        markdown_table((*quintile_head, "2 to 4"), differences),
        _rivals(comparison),
    ]
    return "\n\n".join(part for part in parts if part)


def draw_pictures(comparison: Comparison, folder: Path) -> list[Path]:
    """Accuracy against N, and bars by difficulty and N, each as PNG and SVG."""
    return [*_draw_sizes(comparison, folder), *_draw_difficulty(comparison, folder)]


def _draw_sizes(comparison: Comparison, folder: Path) -> list[Path]:
    greedy = Arm("greedy", 1)
    searched = [arm for arm in comparison.asked if arm != greedy]
    curves = [
        _curve(comparison, [arm for arm in searched if arm.strategy == strategy])
        for strategy in dict.fromkeys(arm.strategy for arm in searched)
    ]
    level = _curve(comparison, [greedy]) if greedy in comparison.asked else None
    with styled(7.2, 4.8) as (figure, axes):
        draw_sizes(axes, curves, level)
        axes.set_title(f"Accuracy against N, {len(comparison.pass_at_1)} MiniMath test problems")
        return save(figure, folder / "strategies_by_n.png", ".svg")


def _draw_difficulty(comparison: Comparison, folder: Path) -> list[Path]:
    greedy = Arm("greedy", 1)
    sizes = sorted({arm.n for arm in comparison.asked if arm != greedy})
    level = _bars(comparison, greedy) if greedy in comparison.asked else None
    names = [
        f"{name}\n{'no problem' if math.isnan(rate) else f'{rate:.0%}'}"
        for name, rate in zip(_QUINTILE_NAMES, comparison.rates, strict=True)
    ]
    with styled(8.4, 1.0 + 2.3 * len(sizes), nrows=len(sizes), sharex=True, squeeze=False) as (figure, panels):
        for axes, n in zip(panels[:, 0], sizes, strict=True):
            bars = [_bars(comparison, arm) for arm in comparison.asked if arm.n == n and arm != greedy]
            draw_bars(axes, bars, names, level)
            axes.set_title(f"N = {n}")
            axes.set_ylabel("accuracy")
        axes.set_xlabel("difficulty quintile, with the share of right samples (pass@1)")
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.tight_layout()
        figure.legend(handles, labels, loc="lower center", bbox_to_anchor=(0.53, 1.0), ncols=4, frameon=False)
        return save(figure, folder / "strategies_by_difficulty.png", ".svg")


def _curve(comparison: Comparison, arms: Sequence[Arm]) -> Curve:
    found = [comparison.accuracy(arm) or _NOTHING for arm in arms]
    return Curve.of(arms[0].strategy, [arm.n for arm in arms], found)


def _bars(comparison: Comparison, arm: Arm) -> Curve:
    return Curve.of(arm.strategy, QUINTILES, [comparison.accuracy(arm, [one]) or _NOTHING for one in QUINTILES])


def _line(comparison: Comparison, arm: Arm) -> tuple[str, ...]:
    coverage, generated, prm, flops, candidates, voted = (comparison.mean(arm, measure) for measure in MEANS)
    return (
        name_of(arm.strategy),
        str(arm.n),
        _accuracy(comparison.accuracy(arm)),
        _difference(comparison.against_baseline(arm)),
        f"{coverage:.3f}",
        *(f"{one:,.0f}" for one in (generated, prm, flops / 1e6)),
        *(f"{one:.1f}" for one in (candidates, voted)),
    )


def _rivals(comparison: Comparison) -> str:
    """DVTS against beam search at every N, in one line."""
    pairs = [(arm, Arm("beam_search", arm.n)) for arm in comparison.asked if arm.strategy == "dvts"]
    pairs = [(arm, beam) for arm, beam in pairs if beam in comparison.arms]
    told = [f"{_difference(comparison.difference(arm, beam))} at N={arm.n}" for arm, beam in pairs]
    return f"DVTS less beam search, all problems: {', '.join(told)}." if told else ""


def _accuracy(found: Interval | None) -> str:
    return "" if found is None else f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _difference(found: Interval | None) -> str:
    if found is None:
        return ""
    text = f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
    return text if found.low <= 0 <= found.high else f"**{text}**"
