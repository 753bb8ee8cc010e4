"""The comparison of strategies on toy engines: its figures, that a run that was cut goes on, tables and pictures."""

import importlib
import json
import signal
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from adaptive_ttc.calibration.pareto import plots
from adaptive_ttc.errors import ConfigError, EngineError
from adaptive_ttc.policies.fake import FakePolicy, toy_answer, toy_right_so_far
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.solver import Solver
from adaptive_ttc.types import Problem, split_steps

pytest.importorskip("matplotlib", reason="the figures need the extra 'plot'")

BENCH = Path(__file__).parents[2] / "bench"
QUESTIONS = [f"Add {' + '.join(str(7 * i % 50 + 3 * k) for k in range(2 + i % 5))}." for i in range(12)]
ROWS = [{"problem": one, "answer": toy_answer(one), "unique_id": f"sum/{i}"} for i, one in enumerate(QUESTIONS)]
SEARCHES = ("beam_search", "dvts", "revision")
MEASURES = ("coverage", "generated_tokens", "prm_tokens", "flops", "candidates", "effective_n")


class Pairs:
    """Stands for the loader of the mini models: a toy pair for every run, all of which are kept."""

    def __init__(self):
        self.made = []
        self.prepare = lambda policy: None

    def __call__(self, *, seed=0):
        pair = FakePolicy.generative(error_rate=0.1), FakePRM.truthful(toy_right_so_far)
        self.prepare(pair[0])
        self.made.append(Solver(*pair, seed=seed))
        return self.made[-1]


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setenv("COLUMNS", "80")
    return importlib.import_module


@pytest.fixture
def pairs(monkeypatch):
    stand_in = Pairs()
    monkeypatch.setattr(Solver, "mini", stand_in)
    return stand_in


@pytest.fixture
def drawing_run(bench, pairs, monkeypatch, tmp_path):
    script = bench("strategies")
    monkeypatch.setattr(script, "load_problems", lambda name, limit=None, seed=None: ROWS[:limit])

    def call(*arguments, out="out"):
        target = tmp_path / f"{out}.json"
        target.unlink(missing_ok=True)
        code = script.main(["--out", str(tmp_path / out), "--json", str(target), *arguments])
        return code, json.loads(target.read_text())["figures"] if target.exists() else None

    return call


@pytest.fixture
def run(bench, drawing_run, monkeypatch):
    """A run without its pictures, which take the longest."""
    monkeypatch.setattr(bench("strategies"), "draw_pictures", lambda comparison, folder: [])
    return drawing_run


def entries(tmp_path, out="out"):
    return [json.loads(line) for line in (tmp_path / out / "journal.jsonl").read_text().splitlines()[1:]]


def test_figures_are_those_that_the_script_describes(run, tmp_path, capsys):
    code, figures = run("--limit", "10", "--n", "4", "8")
    assert code == 0
    sampling, n = ("majority", "best_of_n", "weighted_best_of_n"), (4, 8)
    arms = ["greedy.1", *(f"{one}.{k}" for one in (*sampling, *SEARCHES) for k in n)]
    rivals = [arm for arm in arms if not arm.startswith(("greedy", "weighted"))]
    spread = ("", "_low", "_high")
    expected = {f"{measure}.{arm}" for measure in MEASURES for arm in arms}
    expected |= {f"accuracy{end}.{arm}{part}" for end in spread for arm in arms for part in ("", "_by_quintile")}
    expected |= {f"difference{end}.{arm}{part}" for end in spread for arm in rivals for part in ("", "_by_quintile")}
    expected |= {f"middle_difference{end}.{arm}" for end in spread for arm in rivals}
    expected |= {f"dvts_minus_beam_search{end}.{k}" for end in spread for k in n}
    expected |= {"problems", "problems_by_quintile", "pass_at_1", "pass_at_1_by_quintile"}
    assert set(figures) == expected
    for arm in arms:
        low, mean, high = (figures[f"accuracy{end}.{arm}"] for end in ("_low", "", "_high"))
        assert low <= mean <= high
        by_quintile = figures[f"accuracy.{arm}_by_quintile"]
        assert np.average(by_quintile, weights=figures["problems_by_quintile"]) == pytest.approx(mean)
        assert mean <= figures[f"coverage.{arm}"] + 1e-9
        assert f"{100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]" in capsys.readouterr().out or arm != arms[0]
    for arm in rivals:
        baseline = figures[f"accuracy.weighted_best_of_n.{arm.rpartition('.')[2]}"]
        assert figures[f"difference.{arm}"] == pytest.approx(figures[f"accuracy.{arm}"] - baseline)
    assert figures["pass_at_1_by_quintile"] == sorted(figures["pass_at_1_by_quintile"], reverse=True)
    assert figures["problems_by_quintile"] == [2] * 5
    assert (figures["prm_tokens.majority.8"], figures["prm_tokens.greedy.1"]) == (0, 0)
    assert figures["flops.majority.8"] < figures["flops.best_of_n.8"] == figures["flops.weighted_best_of_n.8"]


def test_costs_are_what_the_engines_delivered(run, pairs, tmp_path):
    code, figures = run("--limit", "3", "--n", "64", "--strategies", "weighted_best_of_n", "revision")
    assert code == 0
    delivered = sum(solver.policy.completion_tokens for solver in pairs.made)
    read = sum(solver.prm.prm_tokens for solver in pairs.made)
    both = ("weighted_best_of_n.64", "revision.64")
    assert sum(figures[f"generated_tokens.{arm}"] for arm in both) * 3 == pytest.approx(delivered)
    assert sum(figures[f"prm_tokens.{arm}"] for arm in both) * 3 == pytest.approx(read)
    assert all(solver.policy.closed and solver.prm.closed for solver in pairs.made)


def test_every_arm_has_engines_whose_caches_are_empty(run, pairs):
    assert run("--limit", "2", "--n", "4", "8", "--strategies", "majority", "dvts")[0] == 0
    asked = [{len(request.stop) for request in solver.policy.requests} for solver in pairs.made]
    assert asked == [set(), {0}, {1}, {1}]  # the one whose fingerprints are read, the pool, and DVTS twice


@pytest.mark.parametrize("strategy", SEARCHES)
def test_a_search_is_what_the_solver_makes_of_it(strategy, run, tmp_path):
    assert run("--limit", "5", "--n", "8", "--strategies", strategy)[0] == 0
    found = {entry["problem"]: entry for entry in entries(tmp_path) if entry["strategy"] == strategy}
    width = {} if strategy == "revision" else {"beam_width": 4}
    with Pairs()() as solver:
        for row in ROWS[:5]:
            solution = solver.solve_sync(row["problem"], id=row["unique_id"], strategy=strategy, n=8, **width)
            entry = found[row["unique_id"]]
            assert entry["texts"] == [candidate.prefix.text for candidate in solution.candidates]
            assert entry["correct"] == (solution.answer == row["answer"])
            assert entry["covered"] == any(candidate.answer == row["answer"] for candidate in solution.candidates)
            assert entry["generated_tokens"] == solution.usage.completion_tokens
            assert entry["prm_tokens"] == solution.usage.prm_tokens


def interrupt_at(monkeypatch, journal, number):
    add, added = journal.Journal.add, []

    def counted(self, entry):
        if len(added) == number:
            signal.raise_signal(signal.SIGINT)
        added.append(entry)
        add(self, entry)

    monkeypatch.setattr(journal.Journal, "add", counted)


def test_an_interrupted_run_goes_on_and_comes_to_the_same(run, bench, pairs, monkeypatch, tmp_path, capsys):
    arguments = ("--limit", "6", "--n", "4", "--strategies", "majority", *SEARCHES)
    code, whole = run(*arguments, out="whole")
    assert code == 0
    kept = []
    for number in (0, 4, 9):  # in the pools twice, then among the searches
        with monkeypatch.context() as patch:
            interrupt_at(patch, bench("measuring"), number)
            assert run(*arguments) == (130, None)
        assert "the same command goes on" in capsys.readouterr().err
        assert entries(tmp_path)[: len(kept)] == kept
        kept = entries(tmp_path)
        assert len(kept) < 24
        assert pairs.made[-1].policy.closed
    assert run(*arguments) == (0, whole)
    assert entries(tmp_path)[: len(kept)] == kept
    keys = [(entry["strategy"], entry["n"], entry["problem"]) for entry in entries(tmp_path)]
    assert len(keys) == len(set(keys)) == 6 * 4
    assert run(*arguments) == (0, whole)
    assert pairs.made[-1].policy.requests == []


def test_a_wider_run_samples_only_what_is_new(run, pairs, tmp_path):
    assert run("--limit", "4", "--n", "4", "--strategies", "majority", "dvts")[0] == 0
    before = entries(tmp_path)
    assert run("--limit", "6", "--n", "4", "8", "--strategies", "dvts", "best_of_n")[0] == 0
    new = entries(tmp_path)[len(before) :]
    assert entries(tmp_path)[: len(before)] == before
    assert {(entry["strategy"], entry["n"]) for entry in new} == {("pool", 64), ("dvts", 4), ("dvts", 8)}
    assert sorted(entry["problem"] for entry in new if entry["n"] != 8) == ["sum/4", "sum/4", "sum/5", "sum/5"]


def test_other_samples_are_not_mixed_into_a_journal(run, tmp_path, capsys):
    assert run("--limit", "3", "--strategies", "majority")[0] == 0
    before = (tmp_path / "out" / "journal.jsonl").read_bytes()
    assert run("--limit", "3", "--strategies", "majority", "--seed", "1") == (2, None)
    assert "seed 0, now 1" in capsys.readouterr().err
    assert (tmp_path / "out" / "journal.jsonl").read_bytes() == before


def test_problems_that_failed_are_told_and_tried_again(run, pairs, tmp_path, capsys):
    def broken(policy):
        prompt = policy.encode(Problem.of(QUESTIONS[1]))
        policy.fail(
            EngineError("out of memory"), matching=lambda one: one.prompt_ids[: len(prompt)] == prompt and one.stop
        )

    pairs.prepare = broken
    arguments = ("--limit", "4", "--n", "4", "--strategies", "beam_search")
    assert run(*arguments) == (1, None)
    assert "1 of 4 problems failed under beam_search with n=4" in capsys.readouterr().err
    assert len(entries(tmp_path)) == 4 + 3
    pairs.prepare = lambda policy: None
    code, figures = run(*arguments)
    assert (code, figures["problems"]) == (0, 4)
    assert entries(tmp_path)[-1]["problem"] == "sum/1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--n", "6", "--strategies", "dvts"], "not a multiple of beam_width=4"),
        (["--n", "128", "--strategies", "majority"], "from 1 to 64"),
        (["--strategies", "guess"], "unknown strategy 'guess'"),
        (["--limit", "0"], "at least 1"),
    ],
)
def test_what_is_impossible_is_refused_before_a_model_is_loaded(arguments, message, run, pairs, capsys):
    assert run(*arguments) == (2, None)
    assert message in capsys.readouterr().err
    assert pairs.made == []


def test_with_few_problems_empty_quintiles_have_no_figure(run, tmp_path):
    _, figures = run("--limit", "3", "--n", "4", "--strategies", "majority")
    present = [number > 0 for number in figures["problems_by_quintile"]]
    assert sum(present) == 3
    for key in ("accuracy.majority.4_by_quintile", "difference.majority.4_by_quintile", "pass_at_1_by_quintile"):
        assert [value is not None for value in figures[key]] == present


def test_tables_and_pictures_go_where_they_are_sent(drawing_run, tmp_path):
    results, pictures = tmp_path / "notes" / "RESULTS.md", tmp_path / "docs"
    results.parent.mkdir()
    results.write_text("# Results\n\nBefore.\n")
    arguments = ("--limit", "6", "--n", "4", "--results", str(results), "--pictures", str(pictures))
    _, figures = drawing_run(*arguments)
    names = ("strategies_by_n", "strategies_by_difficulty")
    assert sorted(path.name for path in pictures.iterdir()) == sorted(
        f"{one}.{s}" for one in names for s in ("png", "svg")
    )
    text = results.read_text()
    assert text.startswith("# Results\n\nBefore.\n")
    for name in names:
        assert f"![{name}](../docs/{name}.png)" in text
    mean, low, high = (figures[f"accuracy{end}.dvts.4"] for end in ("", "_low", "_high"))
    assert f"| DVTS | 4 | {mean:.3f} [{low:.3f}, {high:.3f}] |" in text
    drawn = {path.name: path.read_bytes() for path in pictures.iterdir()}
    results.write_text(text.replace("Before.", "Still here."))
    drawing_run(*arguments)
    again = results.read_text()
    assert again.replace("Still here.", "Before.") == text
    assert {path.name: path.read_bytes() for path in pictures.iterdir()} == drawn


def test_a_journal_cut_anywhere_keeps_its_whole_lines(bench, tmp_path):
    journal, settings = bench("measuring"), {"seed": 1, "policy": "é"}
    path = tmp_path / "new" / "journal.jsonl"
    kept = journal.Journal(path, settings)
    for number in range(3):
        kept.add({"strategy": "dvts", "n": 4, "problem": f"é{number}", "texts": ["a\u2028b\n\n"]})
    whole = path.read_bytes()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        opened = journal.Journal(path, settings)
        lines = whole[:size].count(b"\n")
        found = [number for number in range(3) if ("dvts", 4, f"é{number}") in opened]
        assert found == list(range(max(0, lines - 1)))
        for number in opened.missing("dvts", 4, ["é0", "é1", "é2"]):
            opened.add(kept["dvts", 4, number])
        assert path.read_bytes() == whole


def test_a_file_that_is_no_journal_is_left_alone(bench, tmp_path):
    journal = bench("measuring")
    for text in ("not JSON\n", '{"name": "x"}\n', '{"settings": {"seed": 1}}\n{"strategy": "dvts"}\n', "[]\n"):
        path = tmp_path / "other.jsonl"
        path.write_text(text)
        with pytest.raises(ConfigError, match="name another folder"):
            journal.Journal(path, {"seed": 1})
        assert path.read_text() == text


@pytest.mark.parametrize("cached", [0, 7])
def test_tokens_of_scoring_k_samples_count_once_what_they_share(cached, bench):
    share = bench("strategies_comparison")._scored_share
    texts = ["a\n\nb", "a\n\nb\n\n", "c", "a\n\nd", "a\n\nb\n\ne", ""]
    steps = [split_steps(text) for text in texts]
    counts = [[10 + 3 * (number + 1) for number in range(len(one))] for one in steps]
    entry = {"texts": texts, "score_tokens": counts, "question_tokens": 10, "prm_cached_tokens": cached}

    def read(drawn):
        solutions = {steps[index] for index in drawn if steps[index]}
        if not cached:
            return sum(10 + 3 * len(one) for one in solutions)
        return 10 * bool(solutions) + 3 * len({one[: end + 1] for one in solutions for end in range(len(one))})

    for k in range(1, 7):
        expected = np.mean([read(drawn) for drawn in combinations(range(6), k)])
        assert share(entry, k) == pytest.approx(expected / read(range(6)))


def test_a_constant_difference_is_certain_however_wide_the_accuracies_spread(bench):
    comparison, arms = bench("strategies_comparison"), bench("strategies")
    half, zeros = np.tile([0.0, 0.7], 20), np.zeros(40)
    rest = dict.fromkeys(MEASURES, zeros)
    first, second = arms.Arm("dvts", 4), arms.Arm("weighted_best_of_n", 4)
    found = comparison.Comparison(
        arms={
            first: {"accuracy": half + 0.25, **rest},
            second: {"accuracy": half, **rest},
        },
        asked=(first,),
        pass_at_1=half,
        quintile=np.arange(40) // 8,
    )
    accuracy, less = found.accuracy(first), found.against_baseline(first)
    assert accuracy.high - accuracy.low > 0.15
    assert (less.mean, less.low, less.high) == pytest.approx((0.25, 0.25, 0.25))
    assert found.against_baseline(second) is None
    assert found.against_baseline(first, [3]).mean == pytest.approx(0.25)


def test_the_forecast_follows_the_measured_pace(bench):
    arms = bench("strategies")
    pace, asked = arms.Pace(), arms.arms_of(["majority", "dvts"], [4, 16])
    pace.note(arms.Arm("pool", 64), problems=10, seconds=64.0)
    assert pace.forecast(asked, 20) is None
    pace.note(arms.Arm("dvts", 4), problems=10, seconds=8.0)
    assert pace.forecast(asked, 20) == pytest.approx(20 * (64 * 0.1 + (4 + 16) * 0.2))


def test_a_section_is_replaced_and_nothing_else(bench, tmp_path):
    results, path = bench("measuring"), tmp_path / "RESULTS.md"
    results.write_section(path, "one", "first")
    results.write_section(path, "two", "second")
    path.write_text("top\n\n" + path.read_text() + "\nbottom\n")
    before = path.read_text()
    results.write_section(path, "one", "first, anew")
    assert path.read_text() == before.replace("\nfirst\n", "\nfirst, anew\n")
    path.write_text(before.replace("<!-- one: end -->\n", ""))
    with pytest.raises(ConfigError, match="one: end"):
        results.write_section(path, "one", "x")


def test_names_stand_apart_in_their_order_and_near_their_places():
    spread = plots.spread
    heights = [0.1, 0.5, 0.5, 0.51, 0.9, 0.93]
    places = spread(heights, 0.1)
    assert np.diff(places).min() >= 0.1 - 1e-12
    assert places[0] == pytest.approx(0.1)
    assert np.mean(places[1:4]) == pytest.approx(np.mean(heights[1:4]))
    assert spread([0.1, 0.3], 0.1) == pytest.approx([0.1, 0.3])


def test_no_name_lies_on_another_when_all_strategies_end_alike():
    from matplotlib.text import Text

    names = [name for name in plots.COLOURS if name not in ("greedy", "adaptive")]
    curves = [plots.Curve(name, (4, 16), (0.4, 0.5), (0.3, 0.4), (0.5, 0.6)) for name in names]
    level = plots.Curve("greedy", (1,), (0.5,), (0.4,), (0.6,))
    with plots.styled(7.2, 4.8) as (figure, axes):
        plots.draw_sizes(axes, curves, level)
        figure.canvas.draw()
        boxes = [Text.get_window_extent(name) for name in axes.texts]  # an annotation's own includes its thread
    assert len(boxes) == len(curves) + 1
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
