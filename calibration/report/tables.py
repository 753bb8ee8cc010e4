"""Tables and sentences on what a calibration found, and how a terminal of 80 columns shows them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from adaptive_ttc.calibration.collect.records import Weights
from adaptive_ttc.calibration.fit.accuracy import name_of
from adaptive_ttc.calibration.judge.contest import OUTLOOK, PROBLEMS, UNFITTED, Contest
from adaptive_ttc.calibration.judge.gains import LEAST_GAIN, DifficultyGain
from adaptive_ttc.calibration.judge.openings import OpeningReplays
from adaptive_ttc.estimate.artefact import Opening
from adaptive_ttc.estimate.blended_gain import BlendedGainModel
from adaptive_ttc.estimate.gain import LearnedGainModel
from adaptive_ttc.estimate.table import Choice, ComputeOptimalTable
from adaptive_ttc.evaluation.metrics import Interval
from adaptive_ttc.types import BIN_NAMES

if TYPE_CHECKING:  # scikit-learn comes with what is fitted, and is not needed to show it
    from adaptive_ttc.calibration.fit.pipeline import Calibration
    from adaptive_ttc.calibration.judge.difficulty import StageMetrics

SHOWN_BUDGETS = 5


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of words."""

    title: str  # in one line
    head: tuple[str, ...]  # of the columns; the first ones hold text, those from ``numbers`` on figures
    rows: tuple[tuple[str, ...], ...]  # as many words each
    numbers: int = 1  # index of the first column of figures
    sections: frozenset[int] = frozenset()  # numbers of the rows after which a line is drawn


def choices(table: ComputeOptimalTable, weights: Weights, budgets: Sequence[float]) -> Grid:
    """The best arm of every bin at every budget, what it reaches, and the next best; mixed problems last.

    A budget below the cheapest arm is shown as less than its cost. Arms are chosen by shrunken accuracies.
    """
    rows, sections = [], set()
    for difficulty in (*range(len(table.share)), None):
        for budget in budgets:
            prices = {"generated": weights.generated, "prm": weights.prm}
            best, *others = table.lookup(budget, difficulty, **prices)
            within = f"{budget:,.0f}" if best.cost <= budget else f"< {best.cost:,.0f}"
            second = f"{others[0].arm.name} {100 * others[0].accuracy:.0f}" if others else ""
            rows.append((bin_name(table, difficulty), within, best.arm.name, reached(table, difficulty, best), second))
        sections.add(len(rows) - 1)
    head = ("difficulty", "budget", "best arm", "% right; measured [95 %]", "next best")
    return Grid("The best arm of every difficulty at every budget", head, tuple(rows), 5, frozenset(sections))


def bin_name(table: ComputeOptimalTable, difficulty: int | None) -> str:
    """``2 middle``; ``any`` where it is not known."""
    if difficulty is None:
        return "any"
    return f"{difficulty} {BIN_NAMES[difficulty]}" if len(table.share) == len(BIN_NAMES) else str(difficulty)


def reached(table: ComputeOptimalTable, difficulty: int | None, choice: Choice) -> str:
    """Expected accuracy, then what was measured with its interval, in per cent; for mixed problems the first alone."""
    expected = _percent(choice.accuracy)
    if difficulty is None:
        return expected
    column = table.arms.index(choice.arm)
    accuracy, low, high = (
        100 * rows[difficulty][column] for rows in (table.cells.accuracy, table.cells.low, table.cells.high)
    )
    return f"{expected}; {accuracy:.0f} [{low:.0f}, {high:.0f}]"


def shown_budgets(budgets: Sequence[float]) -> list[float]:
    """At most ``SHOWN_BUDGETS`` of them, with the first and the last, to two digits."""
    step = max(1, -(-(len(budgets) - 1) // (SHOWN_BUDGETS - 1)))
    chosen = {*budgets[::step], budgets[-1]}
    return [float(f"{budget:.2g}") for budget in sorted(chosen)]


def stages(found: Mapping[str, StageMetrics]) -> Grid:
    """The classifiers of difficulty on unseen problems."""
    figures = ("log_loss", "log_loss_of_shares", "log_loss_floor", "brier", "ece", "spearman", "spearman_ceiling")
    rows = [(name, *(f"{getattr(one, figure):.3f}" for figure in figures)) for name, one in found.items()]
    head = ("evidence", "log-loss", "of shares", "floor", "Brier", "ECE", "Spearman", "ceiling")
    return Grid("Difficulty read off evidence, on unseen problems", head, tuple(rows))


def gains(calibration: Calibration) -> Grid:
    """Accuracy on unseen problems at equal mean cost."""
    gain, met = calibration.gain, calibration.adaptive
    adaptive = {round(budget, 6): place for place, budget in enumerate(met.budgets)}
    rows = []
    for place, budget in enumerate(gain.budgets):
        at = adaptive.get(round(budget, 6))
        runs = ("", "") if at is None else (_percent(met.table[at]), _percent(met.learned[at]))
        predicted = _percent(gain.predicted[place]) if any(gain.predicted) else ""
        fixed, oracle = _percent(gain.fixed[place]), _percent(gain.oracle[place])
        rows.append((f"{budget:,.0f}", fixed, predicted, oracle, *runs))
    head = ("units a problem", "one arm", "by predicted", "by true bin", "adaptive: table", "adaptive: outlook")
    return Grid("Right, in % of unseen problems, at equal mean cost", head, tuple(rows), 0)


def openings(found: OpeningReplays) -> Grid:
    """What a cascade's problems were opened by, replayed."""
    columns = zip(found.units, found.first, found.second, found.scored, strict=True)
    rows = [(f"{units:,.0f}", *map(_percent, accuracies)) for units, *accuracies in columns]
    head = ("units a problem, prompts paid", "first", "second, not scored", "second, scored at once")
    return Grid("Right, in % of unseen problems, by what opened them", head, tuple(rows), 0)


def sentences(calibration: Calibration) -> Iterator[str]:
    """Further findings, a line each."""
    gain, met, vote = calibration.gain, calibration.adaptive, calibration.vote
    yield (
        f"Vote: {name_of(vote.vote)}, right on {vote.crossfitted:.1%} of unseen problems (mean over pools of "
        f"several sizes); where it was chosen it looks {_points(vote.optimism)} better."
    )
    yield _begun_with(calibration.opening, calibration.settings.weights)
    yield (
        f"Optimism gap: what the table promises of its choices is {_points(abs(gain.optimism))} "
        f"{'above' if gain.optimism >= 0 else 'below'} what these reach on unseen problems."
    )
    yield _kept(gain)
    if calibration.contest is not None:
        yield _contest(calibration.contest)
    better = "kept" if calibration.gain_model is not None else "not kept: the table forecasts in its place"
    if calibration.contest is not None:
        better = "kept" if calibration.contest.chosen == OUTLOOK else "not kept: the contest of rules decides"
    yield (
        f"Outlook less table in adaptive runs on unseen problems: {interval_in_words(met.difference)}; the outlook is "
        f"{better}."
    )
    offer, model = calibration.offer, calibration.gain_model
    dropped = "; ".join(f"{kind}, as {why}" for kind, why in offer.dropped.items())
    yield f"Kinds of work on offer, beside stopping: {', '.join(offer.kinds)}." + (
        f" Dropped: {dropped}." * bool(dropped)
    )
    yield (
        "Chosen on all of these problems, unlike all that was fitted: the vote, the kinds of work on offer, and what a "
        "problem is begun with. Figures of adaptive runs on unseen problems are under these choices."
    )
    learned = model.learned if isinstance(model, BlendedGainModel) else model
    if isinstance(model, BlendedGainModel):
        first, second, _ = model.weights.right
        yield (
            "While a problem holds votes alone, agreement among them has so much weight, chosen out of fold: "
            f"{model.weights.gain:.2f} in gains of samples, {first:.2f} in the logit of being right, where the rest of "
            f"the outlook has {second:.2f}."
        )
    if isinstance(learned, LearnedGainModel) and learned.bins is not None:
        yield f"Weight of the gains by difficulty in a forecast, chosen out of fold: {learned.bins.weight:.2f}."
    if calibration.left_out:
        yield f"Arms left out for want of units: {', '.join(arm.name for arm in calibration.left_out)}."
    yield f"Fitted on {len(calibration.problems)} problems in {calibration.seconds:,.0f} s."


def _contest(found: Contest) -> str:
    others = "; ".join(
        f"{name} {found.accuracy[name]:.1%}, {interval_in_words(known)}"
        for name, known in found.ahead.items()
        if name != UNFITTED
    )
    return (
        f"Contest of rules on at most {PROBLEMS} unseen problems, mean over budgets: {UNFITTED} (no fit) "
        f"{found.accuracy[UNFITTED]:.1%}; less it: {others}. What is better by its interval ships, else the simplest: "
        f"{found.chosen}."
    )


def _begun_with(opening: Opening, weights: Weights) -> str:
    told = f"Every problem is begun with: {opening.kind}, {'scored' if opening.scored else 'not scored'}."
    if not opening.second_from:
        return told
    second, whole = opening.of_second().kind, weights.generated * opening.second_generated
    told += f" From {opening.second_from * whole:,.0f} units a problem on, beside the prompts, with {second}"
    if opening.scored and weights.prm:
        from_on = f"from {opening.second_scored_from * whole:,.0f} on" if opening.second_scored_from else "never"
        told += f" (scored at once: {from_on})"
    return f"{told}: that was better in replays of unseen problems."


def _kept(gain: DifficultyGain) -> str:
    """How much of what true difficulty is worth a predicted one keeps."""
    told = "Share of the oracle's gain kept by difficulty predicted from four first steps"
    if not any(gain.predicted):
        return f"{told}: not said, as no scored first steps were recorded to predict from."
    most, budget = max(
        (oracle - fixed, at) for oracle, fixed, at in zip(gain.oracle, gain.fixed, gain.budgets, strict=True)
    )
    at_best = "nothing" if gain.kept_at_best is None else f"{gain.kept_at_best:.2f} of it"
    where = f"true difficulty gains most, {_points(most)}, at {budget:,.0f} units, and there {at_best} is kept"
    if gain.kept is None:
        return f"{told}: not said, as it gains less than {100 * LEAST_GAIN:.0f} points at every budget; {where}."
    return f"{told}: {gain.kept:.2f} over the budgets where it gains at least {100 * LEAST_GAIN:.0f} points; {where}."


def interval_in_words(found: Interval) -> str:
    """A difference in points with its interval."""
    return f"{100 * found.mean:+.1f} points [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def origin(meta: Mapping[str, Any]) -> Grid:
    """How it was made, from the metadata."""
    rows = [(key, text) for key, text in _flat(meta) if text]
    return Grid("How it was made", ("what", "value"), tuple(rows), 2)


def _flat(meta: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, str]]:
    for key, value in meta.items():
        name = f"{before}{key}"
        if key in ("problems", "digests") and not isinstance(value, int):
            yield name, f"{len(value)} ids"
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        else:
            yield name, f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"


def findings(calibration: Calibration, meta: Mapping[str, Any]) -> dict[str, Grid]:
    """The tables of both reports."""
    budgets = shown_budgets(calibration.gain.budgets)
    return {
        "choices": choices(calibration.table, calibration.settings.weights, budgets),
        "gains": gains(calibration),
        "stages": stages(calibration.stages),
        **({"openings": openings(calibration.openings)} if calibration.openings else {}),
        "origin": origin(meta),
    }


def as_markdown(heading: str, command: str, told: Sequence[str], grids: Mapping[str, Grid]) -> str:
    """The findings as Markdown."""
    parts = [f"# {heading}", f"`{command}`", "\n".join(f"- {sentence}" for sentence in told)]
    for grid in grids.values():
        parts += [f"## {grid.title}", markdown_table(grid)]
    return "\n\n".join(parts) + "\n"


def title(meta: Mapping[str, Any]) -> str:
    """Of the reports."""
    models = " with ".join(name for name in meta["models"].values() if name)
    return f"Calibration of {models} on {meta['dataset']['name']}"


def markdown_table(grid: Grid) -> str:
    """The table, figures to the right."""
    align = ["---:" if index >= grid.numbers else "---" for index in range(len(grid.head))]
    rows: list[Sequence[str]] = [grid.head, align, *grid.rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)


def show_calibration(calibration: Calibration, console: Console) -> None:
    """What was learned, and how good it is on problems that were not seen."""
    weights = calibration.settings.weights
    show_grid(choices(calibration.table, weights, shown_budgets(calibration.gain.budgets)), console)
    show_grid(stages(calibration.stages), console)
    show_grid(gains(calibration), console)
    if calibration.openings is not None:
        show_grid(openings(calibration.openings), console)
    for sentence in sentences(calibration):
        console.print(Text(sentence))


def show_grid(grid: Grid, console: Console) -> None:
    """Print a table; its title stands above it, unfolded."""
    console.print(Text(grid.title, style="bold"), soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for index, name in enumerate(grid.head):
        table.add_column(name, justify="right" if index >= grid.numbers else "left", overflow="fold", no_wrap=not index)
    for number, row in enumerate(grid.rows):
        table.add_row(*map(Text, row), end_section=number in grid.sections)
    console.print(table)
