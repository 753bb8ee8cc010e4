"""The reports: all figures are there, the page needs no network, and what is not known is not made up."""

import json
import re
from dataclasses import replace

import pytest

from adaptive_ttc.calibration.fit.save import write_reports
from adaptive_ttc.calibration.report import html
from adaptive_ttc.calibration.report.tables import (
    Grid,
    choices,
    findings,
    gains,
    markdown_table,
    sentences,
    shown_budgets,
    stages,
)


@pytest.fixture(scope="module")
def written(calibration, saved, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_reports(calibration, json.loads((saved / "meta.json").read_text()), folder)
    return folder


def test_the_page_needs_nothing_from_elsewhere(written):
    page = (written / "report.html").read_text()
    assert not re.findall(r"<(script|link|iframe|object)|@import|url\(", page)
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == 6
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)


def test_without_matplotlib_the_page_says_what_is_missing(calibration, saved, tmp_path, monkeypatch):
    def missing(*_):
        raise ImportError

    for name in ("curves", "arm_heat_map", "gains", "reliability", "confusion", "importances"):
        monkeypatch.setattr(html, name, missing)
    write_reports(calibration, json.loads((saved / "meta.json").read_text()), tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert page.count("pip install &#x27;matplotlib&gt;=") == 6
    assert "The best arm of every difficulty" in page


def test_markdown_holds_every_table_and_the_command(calibration, written):
    text = (written / "report.md").read_text()
    meta = {"models": {}, "dataset": {"name": ""}}
    for grid in findings(calibration, meta).values():
        assert f"## {grid.title}" in text
    assert "`python -m calibration.fit --dataset simulated`" in text
    assert "Optimism gap" in text
    assert "Chosen on all of these problems, unlike all that was fitted: the vote, the kinds of work on offer" in text


def test_the_best_arm_of_a_row_is_the_one_that_the_table_looks_up(calibration):
    grid = choices(calibration.table, calibration.settings.weights, [300.0, 2000.0])
    assert len(grid.rows) == 12
    best, second, *_ = calibration.table.lookup(2000.0, 1, generated=1.0, prm=2.0)
    column = calibration.table.arms.index(best.arm)
    low, high = calibration.table.cells.low[1][column], calibration.table.cells.high[1][column]
    name, budget, arm, reached, following = grid.rows[3]
    assert (name, budget, arm) == ("1 easy", "2,000", best.arm.name)
    assert reached.startswith(f"{100 * best.accuracy:.1f}; ")
    assert reached.endswith(f"[{100 * low:.0f}, {100 * high:.0f}]")
    assert following.startswith(second.arm.name)


def test_adaptive_runs_stand_beside_the_budget_at_which_they_were_replayed(calibration):
    grid = gains(calibration)
    told = {row[0]: row[-1] for row in grid.rows if row[-1]}
    met = calibration.adaptive
    assert told == {f"{budget:,.0f}": f"{100 * got:.1f}" for budget, got in zip(met.budgets, met.learned, strict=True)}


def test_a_share_that_was_not_measured_is_not_told(calibration):
    nothing = replace(calibration, gain=replace(calibration.gain, kept=None, kept_at_best=None))
    assert any("not said" in sentence for sentence in sentences(nothing))


def test_every_stage_has_its_metrics(calibration):
    grid = stages(calibration.stages)
    assert [row[0] for row in grid.rows] == list(calibration.stages)
    assert "finished_4" in calibration.stages
    assert all(len(row) == len(grid.head) for row in grid.rows)


def test_importances_are_of_what_the_stage_shows(calibration):
    assert set(calibration.importances["prompt"]) == {"prompt"}
    finished = calibration.importances["finished_8"]
    assert "agreement" in finished
    assert max(finished.values()) > 0


def test_few_budgets_are_shown_whole_and_many_from_the_first_to_the_last():
    assert shown_budgets([100.0, 200.0]) == [100.0, 200.0]
    shown = shown_budgets([123.4 * 1.7**power for power in range(10)])
    assert shown[0] == 120.0
    assert len(shown) <= 6
    assert shown[-1] == float(f"{123.4 * 1.7**9:.2g}")


def test_a_cell_with_a_bar_does_not_break_the_table():
    text = markdown_table(Grid("", ("a", "b"), (("x|y", "1"),)))
    assert text.splitlines()[-1] == r"| x\|y | 1 |"
