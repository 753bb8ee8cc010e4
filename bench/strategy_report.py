"""Shows a comparison of strategies to people: a table, a section of Markdown, two pictures; it estimates nothing."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from arms import Arm
from comparison import BASELINE, MIDDLE, QUINTILES, Comparison
from measuring import command, markdown_table
from plots import Bars, Curve, draw_bars, draw_sizes, name_of, save, styled
from rich.table import Table
from rich.text import Text

from adaptive_ttc.evaluation.metrics import Interval
from adaptive_ttc.evaluation.result_file import git_state, machine

_NOTHING = Interval(math.nan, math.nan, math.nan)
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
    """The tables as Markdown, with what made them.

    Args:
        comparison: what was measured.
        pictures: PNG files are shown.
        results: the file that it is for, from which the pictures are linked.
        notes: further sentences.
    """
    facts = machine()
    links = [
        f"![{path.stem}]({Path(os.path.relpath(path, results.parent)).as_posix()})"
        for path in pictures
        if path.suffix == ".png"
    ]
    quintile_head = ("strategy", "N", *(f"quintile {name}" for name in _QUINTILE_NAMES))
    rates = [_rate(comparison, one) for one in QUINTILES]
    parts = [
        f"`{command()}`, {datetime.now(UTC):%Y-%m-%d}, commit {git_state()[:12]}, "
        f"{facts['processor']}, {facts['cpus']} cores.",
        *notes,
        f"{len(comparison.pass_at_1)} problems; brackets hold 95 % bootstrap intervals over problems, differences are "
        "paired by problem; tokens and FLOPs are a problem's.",
        markdown_table(_HEAD, (_line(comparison, arm) for arm in comparison.asked)),
        *links,
        "Accuracy by oracle-difficulty quintile (pass@1 in the pool: "
        + ", ".join("none" if math.isnan(rate) else f"{rate:.2f}" for rate in rates)
        + "):",
        markdown_table(quintile_head, _accuracy_lines(comparison)),
        "Accuracy less that of weighted best-of-N at the same N, by quintile; bold where the interval leaves out 0:",
        markdown_table((*quintile_head, "2 to 4"), _difference_lines(comparison)),
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
    rates = [_rate(comparison, one) for one in QUINTILES]
    names = [f"{name}\n{_percent(rate)}" for name, rate in zip(_QUINTILE_NAMES, rates, strict=True)]
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
    return Curve(
        arms[0].strategy,
        cost=[arm.n for arm in arms],
        accuracy=[one.mean for one in found],
        low=[one.low for one in found],
        high=[one.high for one in found],
    )


def _bars(comparison: Comparison, arm: Arm) -> Bars:
    found = [comparison.accuracy(arm, [one]) or _NOTHING for one in QUINTILES]
    return Bars(arm.strategy, [one.mean for one in found], [one.low for one in found], [one.high for one in found])


def _line(comparison: Comparison, arm: Arm) -> tuple[str, ...]:
    return (
        name_of(arm.strategy),
        str(arm.n),
        _accuracy(comparison.accuracy(arm)),
        _difference(comparison.against_baseline(arm)),
        f"{comparison.mean(arm, 'coverage'):.3f}",
        f"{comparison.mean(arm, 'generated_tokens'):,.0f}",
        f"{comparison.mean(arm, 'prm_tokens'):,.0f}",
        f"{comparison.mean(arm, 'flops') / 1e6:,.0f}",
        f"{comparison.mean(arm, 'candidates'):.1f}",
        f"{comparison.mean(arm, 'effective_n'):.1f}",
    )


def _accuracy_lines(comparison: Comparison) -> Iterator[tuple[str, ...]]:
    for arm in comparison.asked:
        yield (
            name_of(arm.strategy),
            str(arm.n),
            *(_accuracy(comparison.accuracy(arm, [one])) for one in QUINTILES),
        )


def _difference_lines(comparison: Comparison) -> Iterator[tuple[str, ...]]:
    for arm in comparison.asked:
        if arm.strategy not in (BASELINE, "greedy"):
            found = [comparison.against_baseline(arm, [one]) for one in QUINTILES]
            found.append(comparison.against_baseline(arm, MIDDLE))
            yield name_of(arm.strategy), str(arm.n), *map(_difference, found)


def _rivals(comparison: Comparison) -> str:
    """DVTS against beam search at every N, in one line."""
    pairs = [(arm, Arm("beam_search", arm.n)) for arm in comparison.asked if arm.strategy == "dvts"]
    told = [
        f"{_difference(comparison.difference(arm, beam))} at N={arm.n}"
        for arm, beam in pairs
        if beam in comparison.arms
    ]
    return f"DVTS less beam search, all problems: {', '.join(told)}." if told else ""


def _rate(comparison: Comparison, quintile: int) -> float:
    chosen = comparison.pass_at_1[comparison.quintile == quintile]
    return float(chosen.mean()) if len(chosen) else math.nan


def _percent(rate: float) -> str:
    return "no problem" if math.isnan(rate) else f"{rate:.0%}"


def _accuracy(found: Interval | None) -> str:
    return "" if found is None else f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _difference(found: Interval | None) -> str:
    if found is None:
        return ""
    text = f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
    return text if found.low <= 0 <= found.high else f"**{text}**"
