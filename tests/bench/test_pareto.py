"""The Pareto bench on simulated records: what is read off curves, published rules, a whole trial without a model."""

import argparse
import importlib
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from adaptive_ttc.calibration.collect.arms import default_arms
from adaptive_ttc.calibration.collect.records import Weights
from adaptive_ttc.calibration.fit.accuracy import answerable, by_bins, measure
from adaptive_ttc.calibration.fit.difficulty import Bins, counts_of
from adaptive_ttc.calibration.fit.gain import GainLearner
from adaptive_ttc.calibration.fit.pipeline import membership, table_of
from adaptive_ttc.calibration.fit.rows import GainSettings
from adaptive_ttc.errors import CalibrationError
from adaptive_ttc.estimate.artefact import Opening
from adaptive_ttc.estimate.gain import TableGainModel
from adaptive_ttc.estimate.table import Vote
from adaptive_ttc.loading import MINI_CALIBRATION
from tests.calibration.simulated import simulated_records

pytest.importorskip("matplotlib", reason="the figures need the extra 'plot'")

BENCH = Path(__file__).parents[2] / "bench"
MOST = 16


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module


@pytest.fixture(scope="module")
def learned():
    """Records to be judged on, and what the table alone has learned from others."""
    known, judged = simulated_records(40, MOST, 1), simulated_records(30, MOST, 2)
    vote, arms = Vote(), answerable(known, default_arms(MOST))[0]
    bins = Bins.fit(counts_of(known))
    curves = measure(known, arms, vote)
    by_bin = by_bins(curves, membership(known, bins))
    return known, judged, table_of(curves, by_bin, bins, vote, known, "simulated")


@pytest.fixture
def trial(bench, learned, monkeypatch, tmp_path):
    """Runs the bench on the records; its exit code and figures."""
    known, judged, table = learned
    script, inputs = bench("adaptive_ttc.calibration.pareto.__main__"), bench("adaptive_ttc.calibration.pareto.inputs")

    def posteriors(states):
        return [table.share] * len(states)

    guide = inputs.Guide(
        np.arange(len(judged)),
        table,
        posteriors,
        TableGainModel(table).forecasts,
        Opening("greedy", True, 90, 90),
        Vote(),
    )
    rows = [{"problem": one.question, "answer": one.answer, "unique_id": one.id} for one in judged]
    tested = inputs.Tested(rows, judged, 2.0, 100)
    monkeypatch.setattr(script, "collected", lambda *arguments: tested)
    monkeypatch.setattr(script, "known", lambda *arguments: ([guide], ["said beforehand"]))
    monkeypatch.setattr(script, "calibration_of", lambda options: None)
    monkeypatch.setattr(script, "tuning_records", lambda options: known)

    def call(*arguments):
        target = tmp_path / "figures.json"
        common = ("--most", str(MOST), "--budgets", "8", "--decks", "1", "--out", str(tmp_path), "--json", str(target))
        code = script.main([*common, *arguments])
        return code, json.loads(target.read_text())["figures"]

    return call


def test_a_whole_trial(trial, tmp_path, capsys):
    results = tmp_path / "RESULTS.md"
    code, figures = trial("--results", str(results))
    assert code == 0
    names = {curve["name"] for curve in figures["curves"]}
    strategies = {"greedy", "majority", "best_of_n", "weighted_best_of_n", "beam_search", "dvts"}
    rules = {
        "best_fixed",
        "table_oracle",
        "table_predicted",
        "adaptive_consistency",
        "uab",
        "ias",
        "rate_oracle",
        "oracle",
    }
    rules |= {"ac_pooled", "esc", "martingale", "cite", "blend_asc", "pets", "least_settled", "pandora_ucb"}
    assert names == strategies | rules | {"ours", "ours_pooled", "ours_cold"}
    by_name = {curve["name"]: curve["points"] for curve in figures["curves"]}
    assert len(figures["budgets"]) == len(by_name["ours_pooled"]) == 8
    for points in by_name.values():
        assert all(point["low"] <= point["accuracy"] <= point["high"] for point in points)
    for name in ("ours", "ours_pooled", "ours_cold"):
        assert all(point["cost"] <= point["budget"] for point in by_name[name])
    assert figures["overspent"] == 0
    oracle, fixed = ({p["budget"]: p["accuracy"] for p in by_name[name]} for name in ("oracle", "best_fixed"))
    assert all(oracle[budget] >= reached - 1e-9 for budget, reached in fixed.items())
    assert figures["targets"]["90"] < figures["targets"]["95"]
    for target, costs in figures["cost_to_reach"].items():
        assert set(costs) == names
        assert costs["oracle"] < costs["rate_oracle"]
        assert costs["oracle"] < costs["best_fixed"]
        assert figures["ratio"][target].keys() == names - {"ours", "ours_pooled", "ours_cold"}
    assert [one["budget"] for one in figures["difference_from_best_fixed"]] == figures["budgets"]
    assert [one["budget"] for one in figures["each_less_best_fixed"]] == figures["budgets"]
    assert set(figures["significantly_below_best_fixed"]) <= set(figures["budgets"])
    text = results.read_text()
    assert "said beforehand" in text
    assert "chosen on calibration problems" in text
    assert "![pareto](pareto.png)" in text
    assert (tmp_path / "pareto.png").stat().st_size > 10_000
    page = (tmp_path / "pareto.html").read_text()
    assert "<svg" in page
    assert "src=" not in page
    assert 'href="http' not in page
    lines = (tmp_path / "pareto.csv").read_text().splitlines()
    assert lines[0].startswith("curve,axis,budget,cost")
    assert {line.split(",")[0] for line in lines[1:]} == names
    assert "said beforehand" in capsys.readouterr().out


def test_what_parts_are_worth_is_replayed_on_the_same_orders(bench, learned):
    known, judged, table = learned
    parts, rules, inputs = (
        bench("adaptive_ttc.calibration.pareto.ablation"),
        bench("adaptive_ttc.calibration.pareto.rules"),
        bench("adaptive_ttc.calibration.pareto.inputs"),
    )
    model = GainLearner.of(known, Vote(), GainSettings(states=400, iterations=10, leaf=10)).learn()
    everybody = np.arange(len(judged))
    guide = inputs.Guide(
        everybody, table, lambda states: [table.share] * len(states), model.forecasts, Opening(), Vote(), model
    )
    asked = (judged, [guide], Weights(prm=2.0), [600.0, 1200.0], 1, lambda what: None)
    lines = parts.ablation(*asked)
    own = rules.replays("ours", rules.shared, *asked).line
    assert set(lines) == {"shares", "true", "table", "trees"}
    assert any(not np.array_equal(own.accuracies, line.accuracies) for line in lines.values())
    figures = parts.ablation_figures(own, lines | {"same": own})
    assert figures["same"]["all"]["mean"] == 0.0
    assert [one["budget"] for one in figures["trees"]["budgets"]] == [600.0, 1200.0]
    assert "less true difficulty" in parts.ablation_table(own, lines)
    plain = replace(guide, gain=TableGainModel(table))
    assert set(parts.forecasters(plain, judged)) == {"table"}


def test_on_an_axis_without_scores_the_prm_costs_nothing(bench, learned):
    rules, weights = bench("adaptive_ttc.calibration.pareto.rules"), Weights
    _, judged, _ = learned
    curves = measure(judged, answerable(judged, default_arms(MOST))[0], Vote())
    free, paid = (
        {line.name: line.costs.mean() for line in rules.strategy_lines(curves, weight)}
        for weight in (weights(), weights(1.0, 2.0))
    )
    assert free["best_of_n"] * 3 == pytest.approx(paid["best_of_n"])  # as many PRM tokens were simulated as generated
    assert free["majority"] == pytest.approx(paid["majority"])


def test_the_oracle_of_pass_rates_does_not_know_a_problems_own_luck(bench, learned):
    rules = bench("adaptive_ttc.calibration.pareto.rules")
    _, judged, _ = learned
    arms = answerable(judged, default_arms(MOST))[0]
    curves = measure(judged, arms, Vote())
    lucky = replace(curves, accuracy=curves.accuracy.copy())
    lucky.accuracy[3, :] = 0.0
    lucky.accuracy[3, 0] = 1.0
    before, after = (rules.oracle_rates(one, judged, Weights(1.0, 2.0)) for one in (curves, lucky))
    assert [point.cost[3] for point in before.points] == [point.cost[3] for point in after.points]
    knows = rules.oracle(lucky, Weights(1.0, 2.0))
    assert knows.points[0].accuracy[3] == 1.0
    assert after.points[0].accuracy[3] == 0.0


def test_costs_to_reach_lie_on_the_line_between_two_settings(bench):
    points = bench("adaptive_ttc.calibration.pareto.curves")
    cost, accuracy = np.array([10.0, 20.0, 40.0, 80.0]), np.array([0.5, 0.4, 0.7, 0.7])
    assert points.cost_to_reach(cost, accuracy, 0.5) == 10
    assert points.cost_to_reach(cost, accuracy, 0.6) == pytest.approx(25)  # past the point that is dearer and worse
    assert points.cost_to_reach(cost, accuracy, 0.7) == 40
    assert points.cost_to_reach(cost, accuracy, 0.71) == math.inf
    values = accuracy[:, None] * np.ones((4, 3))
    assert points.at_cost(cost, values, 25.0).tolist() == pytest.approx([0.475] * 3), (
        "no point is chosen by its accuracy"
    )
    assert points.at_cost(cost, values, 5.0).tolist() == pytest.approx([0.25] * 3)
    assert points.at_cost(cost, values, 1000.0).tolist() == pytest.approx([0.7] * 3)


def test_ratios_say_who_never_gets_there(bench):
    points = bench("adaptive_ttc.calibration.pareto.curves")
    inf = math.inf
    assert points.ratio_of(np.array([1.0, 1.0, 1.0]), np.array([4.0, 4.0, 4.0])) == points.Ratio(0.25, 0.25, 0.25)
    assert points.ratio_of(np.array([inf, inf]), np.array([4.0, 4.0])).value == inf
    assert points.ratio_of(np.array([1.0, 1.0]), np.array([inf, inf])).value == 0
    assert math.isnan(points.ratio_of(np.array([inf, inf]), np.array([inf, inf])).value)
    mixed = points.ratio_of(np.array([1.0, 1.0, inf, 2.0]), np.array([2.0, 2.0, 4.0, 2.0]))
    assert (mixed.value, mixed.low, mixed.high) == (0.5, 0.5, inf)


def test_paired_curves_of_one_ratio_have_no_spread(bench):
    points = bench("adaptive_ttc.calibration.pareto.curves")
    rng = np.random.default_rng(0)
    cost, right = rng.uniform(10, 50, 40), rng.random((3, 40)).cumsum(axis=0) / 3
    first = points.Line.of("a", [points.Point(0, cost * (1 + k), right[k]) for k in range(3)])
    second = points.Line.of("b", [points.Point(0, 2 * cost * (1 + k), right[k]) for k in range(3)])
    drawn = points.Resampled(40, 200)
    ratio = drawn.ratio(first, second, drawn.targets(second, 0.9))
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((0.5, 0.5, 0.5))


def test_curves_of_one_problem_by_many_models_are_drawn_anew_together(bench):
    points = bench("adaptive_ttc.calibration.pareto.curves")
    right = np.repeat(np.random.default_rng(0).random(10), 30)
    line = points.Line.of("a", [points.Point(0, np.ones(300), right)])
    groups = tuple(f"p{row // 30}" for row in range(300))
    spread = {by: points.Resampled(300, 400, groups=by).means(line)[1][1:].std() for by in (None, groups)}
    assert spread[groups] > 4 * spread[None]
    alone = tuple(map(str, range(300)))
    assert (points.Resampled(300, 50, groups=alone).means(line)[1] == points.Resampled(300, 50).means(line)[1]).all()


def test_agreement_is_that_of_the_beta_rule(bench):
    rules = bench("adaptive_ttc.calibration.pareto.sampling_rules")
    assert rules.settled(4, 0) == pytest.approx(0.96875)
    assert rules.settled(2, 0) == pytest.approx(0.875)
    assert rules.settled(3, 3) == pytest.approx(0.5)


def drawn_of(rules, **columns):
    shape = (1, 8)
    known = {"generated": np.arange(1.0, 9)[None], "prm": np.zeros(shape), "agreement": np.zeros(shape)}
    known |= {"nll": np.full(shape, 0.1), "score": np.array([0.5]), "right": {}, "rate": 0.5}
    return rules.Drawn(**known | columns)


def test_rules_stop_where_their_papers_say(bench):
    rules = bench("adaptive_ttc.calibration.pareto.sampling_rules")
    agreeing = drawn_of(rules, agreement=np.array([[rules.settled(k, 0) for k in range(1, 9)]]))
    by_label = {rule.label: rule for rule in rules.adaptive_consistency()}
    assert by_label["threshold 0.95, at most 40"].samples(agreeing).tolist() == [4]
    assert by_label["threshold 0.99, at most 4"].samples(agreeing).tolist() == [4]
    assert by_label["threshold 0.95, at most 40"].samples(drawn_of(rules)).tolist() == [8]
    # IAS: ceil(ln(1 - .99) / ln(1 - .5)) = 7
    assert rules._adapted(lambda score: score, 0.99, 40)(drawn_of(rules)).tolist() == [7]
    assert rules._adapted(lambda score: score, 0.99, 4)(drawn_of(rules)).tolist() == [4]
    # UAB: p = exp(-.1 / .2), and p (1 - p)^c falls under .05 after the second extra sample
    p = math.exp(-0.5)
    extra = next(c for c in range(8) if p * (1 - p) ** c < 0.05)
    assert rules._worthy(0.2, 0.05)(drawn_of(rules)).tolist() == [extra + 1]


def test_a_lower_quantile_rises_with_the_score(bench):
    rules = bench("adaptive_ttc.calibration.pareto.sampling_rules")
    rng = np.random.default_rng(1)
    rate = rng.random(2000)
    score = np.clip(rate + rng.normal(0, 0.2, 2000), 0, 1)
    low, middle = (rules.lower_quantile(score, rate, level)(np.array([0.2, 0.5, 0.8])) for level in (0.1, 0.5))
    assert (np.diff(low) > 0).all()
    assert (low < middle).all()
    assert np.mean(rate[np.abs(score - 0.5) < 0.02] < low[1]) == pytest.approx(0.1, abs=0.06)


def test_settings_are_chosen_where_they_are_tuned_and_nowhere_else(bench):
    rules = bench("adaptive_ttc.calibration.pareto.sampling_rules")
    settings = [rules.Rule("good elsewhere", "majority", None), rules.Rule("good here", "majority", None)]
    cost = np.ones((4, 2))
    elsewhere, here = np.tile([1.0, 0.0], (4, 1)), np.tile([0.0, 1.0], (4, 1))
    line = rules.tuned("rule", settings, [((elsewhere, cost), np.arange(4), (here, cost))])
    assert {point.label for point in line.points} == {"good elsewhere"}
    assert line.accuracies.max() == 0


def test_every_problem_is_judged_once_and_never_where_it_is_tuned(bench):
    groups = [f"p{row // 2}" for row in range(23)]
    parts = list(bench("adaptive_ttc.calibration.pareto.inputs").tuning_parts(groups, 5))
    assert len(parts) == 5
    assert sorted(np.concatenate([judged for _, judged in parts]).tolist()) == list(range(23))
    assert all(not {groups[row] for row in tuned} & {groups[row] for row in judged} for tuned, judged in parts)


def test_the_predicted_table_pays_for_its_probes(bench, learned):
    rules, weights = bench("adaptive_ttc.calibration.pareto.rules"), Weights(1.0, 2.0)
    _, judged, table = learned
    curves = rules.known_arms(measure(judged, answerable(judged, default_arms(MOST))[0], Vote()), table)
    line = rules.predicted_bins(curves, table, lambda states: [table.share] * len(states), judged, weights)
    fixed = rules.best_fixed(curves, table, weights)
    assert line.costs.mean(axis=1).min() > fixed.costs.mean(axis=1).min() + 4 * 3 * 8  # four first steps of 8 tokens
    none = [
        type(one)(one.id, one.question, one.answer, one.prompt_tokens, {"greedy": one.units["greedy"]})
        for one in judged
    ]
    greedy = measure(none, default_arms(1)[:1], Vote())
    assert (
        rules.predicted_bins(rules.known_arms(greedy, table), table, lambda s: [table.share] * len(s), none, weights)
        is None
    )


def test_worse_than_the_best_fixed_arm_is_told(bench):
    points = bench("adaptive_ttc.calibration.pareto.curves")
    ones, rng = np.ones(50), np.random.default_rng(0)
    right = rng.random((2, 50)) < 0.7

    def line(name, less):
        return points.Line.of(name, [points.Point(b, b * ones, right[k] * less) for k, b in enumerate((10.0, 20.0))])

    lines = (line("best_fixed", 1.0), line("oracle", 1.2), line("ours_pooled", 0.5), line("ours", 1.0))
    found = points.Findings("flops", (10.0, 20.0), lines, dict.fromkeys(points.TARGETS, lines[0].points[1]), 0)
    assert found.below_fixed() == [10.0, 20.0]
    assert found.below_fixed("ours") == []
    assert found.difference(10.0, "ours").mean == 0


def test_problems_of_the_calibration_are_refused(bench, tmp_path):
    inputs = bench("adaptive_ttc.calibration.pareto.inputs")
    with pytest.raises(CalibrationError, match="no calibration"):
        inputs.shipped(tmp_path, inputs.Tested([], [], 0.0, 0), False)


@pytest.mark.parametrize(
    ("changed", "folder"),
    [
        ({"crossfit": True}, None),
        ({"replay": Path("x")}, None),
        ({"calibration": "here"}, Path("here")),
        ({"policy": "other"}, None),
        ({"answers": "number"}, None),
        ({}, MINI_CALIBRATION),
    ],
)
def test_which_calibration_is_used(bench, changed, folder):
    named = ("replay", "calibration", "policy", "prm", "recipe", "second", "answers")
    asked = argparse.Namespace(**{"crossfit": False, **dict.fromkeys(named), **changed})
    assert bench("adaptive_ttc.calibration.pareto.inputs").calibration_of(asked) == folder


def test_recorded_samples_are_judged_at_all_their_sizes_and_on_the_axis_that_they_tell(bench, tmp_path):
    pareto = bench("adaptive_ttc.calibration.pareto.__main__")
    samples = [{"answer": str(n % 2), "tokens": 10 + n, "correct": bool(n % 2)} for n in range(6)]
    plain, scored = tmp_path / "plain.jsonl", tmp_path / "scored.jsonl"
    plain.write_text(json.dumps({"id": "p", "gold": "1", "samples": samples}))
    scored.write_text(json.dumps({"id": "p", "gold": "1", "samples": [{**one, "score": 0.5} for one in samples]}))
    console = Console(quiet=True)
    for files, axis, strategies in (([plain], "flops", 1), ([scored], "generated", 3)):
        asked = pareto.parser().parse_args(["--replay", *map(str, files)])
        options, tested, arms = pareto.gathered(asked, console)
        assert (options.axis, tested.scored) == (axis, axis == "generated")
        assert [arm.n for arm in arms] == [1, 2, 4, 6] * strategies
        assert tested.weights(options.axis).prm == 0
    assert pareto.stem_of(options) == "pareto_generated_replayed_scored"
