"""``--html``: the page of a run, and of one problem."""

import json

import pytest

from adaptive_ttc.cli import main
from tests.cli.test_batch import QUESTIONS, data, graded, loaded

__all__ = ["data", "graded", "loaded"]

pytestmark = pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.CalibrationWarning")


def told(page):
    text = page.read_text()
    begin = text.index('<script type="application/json" id="data">') + len('<script type="application/json" id="data">')
    return json.loads(text[begin : text.index("</script>", begin)]), text


def test_a_run_has_a_page_with_its_trees(loaded, graded, tmp_path, capsys):
    page = tmp_path / "run.html"
    asked = ["eval", "--dataset", str(graded), "--shared-budget", "4000", "--prm", "p", "--policy", "m"]
    assert main([*asked, "--html", str(page)]) == 0
    assert f"the page is {page}" in capsys.readouterr().err
    data, text = told(page)
    assert [one["question"] for one in data["problems"]] == QUESTIONS
    assert all(one["correct"] is not None and one["voters"] for one in data["problems"])
    assert data["head"]["budget"] == 4000 >= data["head"]["spent"] > 0
    assert text.count("<template") == text.count('id="tree"') == len(QUESTIONS)


def test_what_an_earlier_run_settled_is_told_without_a_tree(loaded, data, tmp_path):
    page, out = tmp_path / "run.html", tmp_path / "out.jsonl"
    asked = ["solve", "--dataset", str(data), "--n", "2", "--policy", "m", "--out", str(out), "--html", str(page)]
    assert main([*asked, "--limit", "3"]) == 0
    assert main(asked) == 0
    document, text = told(page)
    assert [one["state"] for one in document["problems"]] == ["answered"] * len(QUESTIONS)
    assert all(one["spent"] and one["answer"] for one in document["problems"])
    assert text.count('id="tree"') == len(QUESTIONS) - 3
    assert text.count("There is no trace of it.") == 3


def test_one_problem_has_the_page_of_its_trace(loaded, tmp_path):
    page = tmp_path / "one.html"
    assert main(["solve", QUESTIONS[0], "--n", "2", "--policy", "m", "--html", str(page)]) == 0
    assert "<h1>Search tree</h1>" in page.read_text()
