"""What ``eval`` tells of searches: candidates beside samples, options in its help, one warning for all problems."""

import json

import pytest

from adaptive_ttc.cli import main
from adaptive_ttc.errors import RevisionWarning
from adaptive_ttc.policies.fake import FakePolicy, toy_answer, toy_right_so_far
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.solver import Solver
from adaptive_ttc.strategies import strategy_names

QUESTIONS = [f"Add {11 * i % 37} + {i + 3} + {5 * i % 23}." for i in range(4)]
ROWS = [{"problem": one, "answer": toy_answer(one), "unique_id": f"sum/{i}"} for i, one in enumerate(QUESTIONS)]


def make_solver(**settings):
    return Solver(FakePolicy.generative(error_rate=0.15), FakePRM.truthful(toy_right_so_far), **settings)


@pytest.fixture
def evaluate(monkeypatch, tmp_path):
    """Run ``eval`` on a toy pair; its exit code and figures."""
    data, target = tmp_path / "sums.jsonl", tmp_path / "out.json"
    data.write_text("\n".join(map(json.dumps, ROWS)))
    monkeypatch.setattr(Solver, "load", lambda policy, prm=None, *, seed=0, **settings: make_solver(seed=seed))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments):
        code = main(["eval", "--dataset", str(data), "--json", str(target), *arguments])
        return code, json.loads(target.read_text())["figures"]

    return call


@pytest.mark.parametrize(
    ("strategy", "arguments", "options"),
    [
        ("beam_search", ["--beam-width", "2", "--option", "lookahead=1"], {"beam_width": 2, "lookahead": 1}),
        ("dvts", ["--beam-width", "4", "--option", "max-steps=3"], {"beam_width": 4, "max_steps": 3}),
        ("revision", ["--option", "sequential=8"], {"sequential": 8}),
    ],
)
def test_candidates_are_those_that_the_searches_handed_in(strategy, arguments, options, evaluate, capsys):
    code, figures = evaluate("--strategy", strategy, "--n", "8", *arguments)
    assert code == 0
    with make_solver() as solver:
        solved = [
            solver.solve_sync(row["problem"], id=row["unique_id"], strategy=strategy, n=8, **options) for row in ROWS
        ]
    assert figures["candidates"] == sum(len(one.candidates) for one in solved) / 4
    assert figures["effective_n"] == sum(one.effective_n for one in solved) / 4
    assert figures["tokens"] == [one.usage.completion_tokens for one in solved]
    assert f"{figures['candidates']:.1f} ({figures['effective_n']:.1f})" in capsys.readouterr().out


def test_a_policy_that_was_not_trained_to_revise_is_told_once(evaluate, monkeypatch, capsys):
    prepared = FakePolicy.generative()
    prepared.revision_prompt = None
    monkeypatch.setattr(
        Solver, "load", lambda *models, **settings: Solver(prepared, FakePRM.truthful(toy_right_so_far))
    )
    code, _ = evaluate("--strategy", "revision", "--n", "2")
    assert code == 0
    printed = capsys.readouterr()
    assert (printed.out + printed.err).count("was trained to revise") == 1
    assert RevisionWarning.__name__ not in printed.err


def test_the_help_names_every_strategy_with_its_own_options(capsys):
    with pytest.raises(SystemExit):
        main(["eval", "--help"])
    lines = capsys.readouterr().out.splitlines()
    for name in strategy_names():
        assert any(line.split()[:1] == [name] for line in lines)
    (beam,) = [line for line in lines if line.split()[:1] == ["beam_search"]]
    assert "lookahead=0" in beam
    assert "max_steps=40" in beam
    assert any(line.split()[:1] == ["revision"] and "sequential" in line for line in lines)
