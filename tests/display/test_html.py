"""What notebooks show: everything escaped, no colour of its own, and that it works where an event loop runs."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from adaptive_ttc.allocation.report import AllocationReport
from adaptive_ttc.display import html
from adaptive_ttc.errors import ConfigError
from adaptive_ttc.estimate.artefact import Calibrated
from adaptive_ttc.loading import MINI_CALIBRATION
from adaptive_ttc.policies.fake import FakePolicy, toy_right_so_far
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.solver import Solver
from adaptive_ttc.types import Problem

EVIL = "<script>alert(1)</script>\x1b[31m\u202e&"
QUESTIONS = [f"Add {11 * i % 37} + {i + 3} + {5 * i % 23}." for i in range(6)]

pytestmark = pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.CalibrationWarning")


class Tags(HTMLParser):
    """The tags of a fragment, which must all be closed, and its text."""

    def __init__(self, fragment):
        super().__init__()
        self.open, self.found, self.text = [], [], ""
        self.feed(fragment)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.text += text


def read(fragment):
    page = Tags(fragment)
    allowed = {
        "div",
        "p",
        "strong",
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "details",
        "summary",
        "pre",
    }
    assert {tag for tag, _ in page.found} <= allowed
    styles = " ".join(attributes.get("style") or "" for _, attributes in page.found)
    assert not re.search(r"color|background|#", styles), "it is light or dark as the page is"
    assert not set(page.text) & {"\x1b", "\u202e"}
    assert len(fragment) < 20_000
    return page


def make_solver(**settings):
    return Solver(FakePolicy.generative(error_rate=0.15), FakePRM.truthful(toy_right_so_far), **settings)


async def test_a_solution_shows_answer_votes_cost_and_why():
    async with make_solver() as solver:
        solution = await solver.solve("Add 40 + 38 + 47 + 45.", n=4, budget_tokens=2000)
    page = read(solution._repr_html_())
    for part in (solution.answer, "stopped: settled", f"{solution.spent:,} of 2,000 charged", "weighted_best_of_n"):
        assert part in page.text
    assert solution.explain() in page.text
    evil = replace(
        solution, answer=EVIL, answer_classes=tuple(replace(one, answer=EVIL) for one in solution.answer_classes)
    )
    assert "<script>" in read(evil._repr_html_()).text
    assert "no answer" in read(replace(solution, answer=None)._repr_html_()).text


async def test_a_pool_and_its_report_show_who_got_what():
    async with make_solver() as solver:
        problems = [Problem.of(one, f"{EVIL}{i}") for i, one in enumerate(QUESTIONS)]
        pool = solver.solve_many(problems, budget_tokens=1200)
        read(pool._repr_html_())
        solutions = await pool
    report = pool.report()
    page = read(report._repr_html_())
    assert page.text == read(pool._repr_html_()).text
    assert page.text.count("<script>") == len(QUESTIONS)
    for one in report.problems:
        assert one.ending.why in page.text
    assert f"{sum(one.spent for one in solutions):,} of 1,200 units spent" in page.text
    many = replace(report, problems=report.problems * 20)
    assert f"and {len(many.problems) - html.SHOWN:,} more" in read(many._repr_html_()).text
    empty = AllocationReport(budget=None, spent=0, promised=0, price=0.0, prices=(), problems=())
    assert "no limit" in read(empty._repr_html_()).text


def test_a_calibration_shows_its_best_arms():
    calibrated = Calibrated.load(MINI_CALIBRATION)
    page = read(calibrated._repr_html_())
    table = calibrated.table
    assert page.text == read(table._repr_html_()).text
    assert f"{table.problems:,} problems" in page.text
    best = table.lookup(max(one.cost for one in table.choices()), 0)[0]
    assert f"{best.arm.name} {100 * best.accuracy:.0f} %" in page.text
    read(replace(table, source=EVIL, problems=0)._repr_html_())


async def test_calls_without_an_event_loop_say_what_to_write_where_one_runs():
    solver = make_solver()
    with pytest.raises(ConfigError, match=r"as in a notebook: write `await solver\.solve\(\.\.\.\)` there"):
        solver.solve_sync(QUESTIONS[0], n=1)
    with pytest.raises(ConfigError, match=r"write `await solver\.solve_many\(\.\.\.\)` there"):
        solver.solve_many_sync(QUESTIONS, budget_tokens=1000)
    with pytest.raises(ConfigError, match=r"write `await solver\.aclose\(\)` there"):
        solver.close()
    await solver.aclose()


def test_many_problems_without_an_event_loop():
    with make_solver(seed=1) as solver:
        solutions = solver.solve_many_sync(QUESTIONS, budget_tokens=1200)
        assert [one.problem.question for one in solutions] == QUESTIONS
        assert sum(one.spent for one in solutions) <= 1200
        assert solver.solve_sync(QUESTIONS[0], n=1).answer
        with pytest.raises(ConfigError, match="problems are several"):
            solver.solve_many_sync(QUESTIONS[0], budget_tokens=1200)


async def test_a_pool_shows_its_progress(monkeypatch, capsys):
    monkeypatch.setattr("adaptive_ttc.display.progress.EVERY", 0.001)
    async with make_solver() as solver:
        await solver.solve_many(QUESTIONS, budget_tokens=1200, progress=True)
        told = capsys.readouterr().err.splitlines()
        assert told[-1].startswith("settled 6 of 6, ")
        assert f"{solver.statistics().policy.tokens:,} tokens" in told[-1]
        await solver.solve_many(QUESTIONS, budget_tokens=1200)
    assert capsys.readouterr().err == ""
