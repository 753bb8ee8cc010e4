import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from adaptive_ttc.events import PrunedEvent
from adaptive_ttc.policies.fake import FakePolicy
from adaptive_ttc.tracing import tree_text as words
from adaptive_ttc.tracing.page import board, render
from adaptive_ttc.tracing.page.board import RunProblem, render_run
from adaptive_ttc.tracing.page.rendering import fragment
from adaptive_ttc.tracing.page.summary import provisional
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.tracing.tree import search_tree
from tests.tracing.runs import RUNS, STEERING, save_run

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7 * 7 }}</style></title>"
VOID = {"meta", "br", "img", "link", "input"}


@pytest.fixture
def saved(tmp_path):
    """Writes the trace of a run; gives its path and the solution."""

    def save(**arguments):
        path = tmp_path / "trace.json"
        return path, save_run(path, **arguments)

    return save


def place(node):
    return "n" + "-".join(map(str, node.path))


def page_of(path):
    return render(search_tree(Trace.load(path)))


class Page(HTMLParser):
    """Checks that every element is closed where it should be, and keeps what is of interest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.texts, self.contents = [], [], [], {"script": "", "style": ""}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in self.contents:
            self.contents[self.open[-1]] += data
        else:
            self.texts.append(data)

    def all(self, tag):
        return [attributes for one, attributes in self.elements if one == tag]


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.RevisionWarning")
def test_the_page_is_well_formed_and_holds_every_node(run, saved):
    path, solution = saved(**run)
    page, tree = Page(page_of(path)), search_tree(solution.trace)
    ids = [one["id"] for one in page.all("details") if "id" in one]
    assert sorted(ids) == sorted(place(node) for node in tree.nodes)
    links = {one["href"] for one in page.all("a")}
    assert links == {f"#{one}" for one in ids}
    assert len(page.all("circle")) == sum(max(len(node.steps), 1) for node in tree.nodes)
    text = "".join(page.texts)
    assert words.spent(tree) in text
    for one in solution.answer_classes[:10]:
        assert one.answer in text


def test_the_page_asks_for_nothing_from_outside(saved):
    text = page_of(saved(strategy="beam_search", n=16, beam_width=4)[0])
    page = Page(text)
    for _, attributes in page.elements:
        assert not {"src", "srcset", "style", "onclick", "action"} & set(attributes)
        assert attributes.get("href", "#").startswith("#")
    assert not re.search(r"https?:|@import|url\(", text)


def test_only_the_script_and_style_that_come_with_the_package_may_run(saved):
    page = Page(page_of(saved(strategy="majority", n=2)[0]))
    (policy,) = [one["content"] for one in page.all("meta") if "content" in one and "http-equiv" in one]
    assert "default-src 'none'" in policy
    for kind in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(page.contents[kind].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy


def test_text_of_model_and_problem_is_escaped(saved):
    policy = FakePolicy.scripted({EVIL: [f"{EVIL}\n\n\\boxed{{<q>}}", "\\boxed{1}"]})
    path, _ = saved(policy=policy, problem=EVIL, strategy="weighted_best_of_n", n=2)
    page = Page(page_of(path))
    assert len(page.all("script")) == len(page.all("style")) == 1
    assert not page.all("img")
    assert "alert" not in page.contents["script"]
    text = "".join(page.texts)
    assert text.count("<script>alert(1)</script>") >= 3
    assert "{{ 7 * 7 }}" in text
    assert "= <q>" in text


def test_text_of_the_model_turns_no_direction_on_the_page(saved):
    policy = FakePolicy.scripted({"q": [f"{STEERING}\n\nline\none\n\n\\boxed{{1}}"]})
    text = page_of(saved(policy=policy, problem="q", strategy="majority", n=1)[0])
    assert not any(letter in text for letter in "\x1b\x07\u202e\x9b")
    assert "line\none" in text


def test_the_winning_path_is_open_and_marked(saved):
    path, solution = saved(strategy="beam_search", n=16, beam_width=4)
    page, tree = Page(page_of(path)), search_tree(solution.trace)
    opened = {one["id"] for one in page.all("details") if "open" in one and "id" in one}
    assert opened == {place(node) for node in tree.nodes if node.best and node.children}
    assert sum("best" in one["class"].split() for one in page.all("path")) == sum(node.best for node in tree.nodes)
    faded = [one for one in page.all("circle") if "lost" in one["class"].split()]
    assert len(faded) == sum(not node.fruitful for node in tree.nodes) > 0


def test_colours_are_those_of_the_scores(saved):
    path, solution = saved(strategy="beam_search", n=16, beam_width=4)
    page, tree = Page(page_of(path)), search_tree(solution.trace)
    expected = [f"s-{round(step.score * 20)}" for node in tree.nodes for step in node.steps]
    assert sorted(one["class"].split()[1] for one in page.all("circle")) == sorted(expected)
    for name in set(expected):
        red, green, blue = words.colour(int(name[2:]) / 20)
        assert f".{name} {{ --shade: rgb({red} {green} {blue}); }}" in page.contents["style"]


def test_an_unfinished_run_has_a_page(saved):
    path, _ = saved(strategy="beam_search", n=8, beam_width=2)
    document = json.loads(path.read_text())
    document["events"] = [one for one in document["events"] if one["event"] not in ("done", "vote", "candidate")]
    path.write_text(json.dumps(document))
    assert "the run did not end" in "".join(Page(page_of(path)).texts)


def test_colours_run_from_one_end_to_the_other():
    shades = [words.colour(step / 10) for step in range(11)]
    assert len(set(shades)) == 11
    assert words.colour(0.0)[0] > words.colour(1.0)[0]
    assert words.colour(None) == words.UNSCORED


# ---- the page of a run ----------------------------------------------------------------------------------------


def run_of(*traces, **told):
    problems = [
        RunProblem(name=f"p{number}", question=EVIL, trace=trace, correct=number == 0, **told)
        for number, trace in enumerate(traces)
    ]
    return render_run(f"run of {EVIL}", problems, budget=5000)


def data_of(page):
    return json.loads(page.contents["script"].partition('"use strict"')[0])


def test_the_page_of_a_run_holds_every_problem_with_its_tree(saved):
    path, solution = saved(strategy="beam_search", n=8, beam_width=2)
    text = run_of(Trace.load(path), None, error="it broke")
    page = Page(text)
    data = data_of(page)
    solved, failed = data["problems"]
    assert (solved["state"], solved["answer"], solved["spent"]) == ("answered", solution.answer, solution.spent)
    assert (solved["correct"], failed["correct"], failed["state"], failed["error"]) == (
        True,
        False,
        "failed",
        "it broke",
    )
    assert solved["voters"] == sum(one.votes for one in solution.answer_classes)
    assert (data["head"]["budget"], data["head"]["left"]) == (5000, 5000 - solution.spent)
    assert [one["data-tree"] for one in page.all("template")] == ["0", "1"]
    ids = [one["id"] for one in page.all("details") if "id" in one]
    assert sorted(ids) == sorted(place(node) for node in search_tree(solution.trace).nodes)
    assert not re.search(r"https?:(?!//www.w3.org/2000/svg)|@import|url\(", text)


def test_nothing_hostile_ends_the_data_or_a_tree(saved):
    policy = FakePolicy.scripted({EVIL: [f"{EVIL}</template>\n\n\\boxed{{{EVIL}}}"]})
    path, _ = saved(policy=policy, problem=EVIL, strategy="majority", n=1)
    page = Page(run_of(Trace.load(path)))
    assert (len(page.all("script")), len(page.all("template"))) == (2, 1)
    assert not page.all("img")
    [row] = data_of(page)["problems"]
    assert row["question"] == EVIL
    assert row["answer"]


def test_trees_that_would_be_too_large_are_left_out(saved, monkeypatch):
    path, _ = saved(strategy="beam_search", n=8, beam_width=2)
    trace = Trace.load(path)
    monkeypatch.setattr(board, "MOST_CHARACTERS", len(board.tree_of(trace)))
    assert [one["data-tree"] for one in Page(run_of(trace, trace)).all("template")] == ["0"]
    monkeypatch.setattr(board, "MOST_SAMPLES", 3)
    assert "too many to be drawn" in board.tree_of(trace)


def test_a_search_at_work_is_drawn_as_far_as_it_came(saved):
    _, solution = saved(strategy="beam_search", n=8, beam_width=2)
    events = list(solution.trace)
    for number in range(1, len(events)):
        tree = search_tree(provisional(events[:number], lambda text: "7"))
        html = fragment(tree, at_work=True)
        assert "led nowhere</em>" not in html or any(isinstance(one, PrunedEvent) for one in events[:number])
        assert "not handed in" not in html
    assert "= 7" in html
