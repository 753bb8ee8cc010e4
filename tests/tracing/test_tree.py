import pytest

from adaptive_ttc.errors import ConfigError
from adaptive_ttc.events import (
    CandidateEvent,
    DoneEvent,
    ExpandedEvent,
    ExpandEvent,
    ForkEvent,
    PrunedEvent,
    RunEvent,
    SampledEvent,
    ScoredEvent,
    SearchEvent,
    VoteEvent,
)
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.solver import Solver
from adaptive_ttc.tracing.outcomes import outcomes, rounds, trees
from adaptive_ttc.tracing.page import render
from adaptive_ttc.tracing.page.picture import picture
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.tracing.tree import Node, search_tree
from adaptive_ttc.tracing.tree_text import Fold, rows, title
from adaptive_ttc.types import AnswerClass
from tests.doubles import TinyPolicy

pytestmark = pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.CalibrationWarning")

ANSWER = "\\boxed{%s}"


class Story:
    """A trace told by hand: ``sample`` draws, ``end`` hands in and votes."""

    def __init__(self, strategy="beam_search", **options):
        self.trace = Trace()
        self.record(
            RunEvent,
            problem="q",
            messages=(("user", "how much?"),),
            policy="p",
            prm="r",
            seed=0,
            budget=None,
            count="g",
        )
        self.record(SearchEvent, strategy=strategy, options={"temperature": 0.8, **options}, start=())
        self.asked = 0

    def record(self, kind, **fields):
        self.trace.record(kind(time=0.0, **fields))

    def ask(self, *paths, attempts=None, temperature=0.8, branch=()):
        self.record(
            ExpandEvent,
            branch=branch,
            number=self.asked,
            paths=paths,
            attempts=attempts or ((),) * len(paths),
            n=1,
            stop=("\n\n",),
            max_tokens=99,
            temperature=temperature,
            top_p=1.0,
            score=True,
        )

    def reply(self, *children, branch=()):
        self.record(ExpandedEvent, branch=branch, number=self.asked, children=children)
        self.asked += 1

    def sample(self, path, text, *scores, tokens=5, finish="stop"):
        self.record(SampledEvent, path=path, text=text, tokens=tokens, logprob=-1.0, finish=finish)
        if scores:
            self.record(ScoredEvent, started=0.0, path=path, scores=scores, prm_tokens=1)

    def prune(self, path, into=None):
        self.record(PrunedEvent, path=path, score=0.1, merged_into=into)

    def end(self, answer, **handed_in):
        for name, (held, score) in handed_in.items():
            path = tuple(map(int, name[1:].split("_")))
            self.record(CandidateEvent, path=path, answer=held, answer_class=held, score=score)
        classes = tuple(AnswerClass(held, 1, 0.5) for held in dict.fromkeys(held for held, _ in handed_in.values()))
        self.record(VoteEvent, method="weighted", classes=classes, answer=answer)
        ended = {"stopped": "settled", "why": "it did what it was asked for", "confidence": None}
        self.record(DoneEvent, answer=answer, abstained=None if answer else "why", spent=9, usage={}, **ended)
        return search_tree(self.trace)


def beams():
    """Three first steps of which two are equal, one pruned; two solutions that are equal and one other."""
    story = Story()
    story.ask((), (), (), ())
    for path, text, score in [((0,), "a\n\n", 0.9), ((1,), "a\n\n", 0.9), ((2,), "b\n\n", 0.3), ((3,), "c\n\n", 0.8)]:
        story.sample(path, text, score)
    story.reply((0,), (1,), (2,), (3,))
    story.prune((1,), into=(0,))
    story.prune((2,))
    story.ask((0,), (0,), (0,), (3,))
    story.sample((0, 0), ANSWER % 1, 0.9, 0.7, tokens=3, finish="eos")
    story.sample((0, 1), ANSWER % 1, 0.9, 0.7, tokens=3, finish="eos")
    story.sample((0, 2), ANSWER % 2, 0.9, 0.6, tokens=3, finish="eos")
    story.sample((3, 0), ANSWER % 1, 0.8, 0.95, tokens=3, finish="eos")
    story.reply((0, 0), (0, 1), (0, 2), (3, 0))
    return story.end("1", p0_0=("1", 0.7), p0_2=("2", 0.6), p3_0=("1", 0.95))


def at(tree, *path):
    return next(node for node in tree.nodes if node.path == path)


def solved(**arguments):
    with Solver(
        TinyPolicy(mean=12, step=4), FakePRM(lambda question, steps: (len(steps[-1]) * 37 % 10) / 10)
    ) as solver:
        return solver.solve_sync("how much?", **arguments)


# ---- what became of every sample ------------------------------------------------------------------------------


def test_fates_and_twins():
    found = beams().outcomes
    assert {path: one.fate for path, one in found.items()} == {
        (0,): "continued",
        (1,): "merged",
        (2,): "pruned",
        (3,): "continued",
        (0, 0): "candidate",
        (0, 1): "merged",
        (0, 2): "candidate",
        (3, 0): "candidate",
    }
    assert (found[1,].twin, found[0, 1].twin) == ((0,), (0, 0))


def test_a_sample_has_the_steps_that_it_added_and_their_scores():
    found = beams().outcomes
    (step,) = found[3, 0].steps
    assert (step.text, step.score, found[3, 0].text) == (ANSWER % 1, 0.95, "c\n\n" + ANSWER % 1)


def test_a_step_that_was_cut_and_gone_on_with_stands_whole():
    story = Story()
    story.ask(())
    story.sample((0,), "one\n\ntw", finish="budget")
    story.reply((0,))
    story.ask((0,))
    story.sample((0, 0), "o\n\nthree", 0.1, 0.2, 0.3, finish="eos")
    story.reply((0, 0))
    found = outcomes(story.trace)
    assert [(one.text, one.score) for one in found[0, 0].steps] == [("two", 0.2), ("three", 0.3)]
    assert found[0,].fate == "continued"


def test_what_came_of_a_cut_or_unused_sample():
    story = Story()
    story.ask((), ())
    story.sample((0,), "x", finish="budget")
    story.sample((1,), "y", finish="eos")
    story.reply((0,), (1,))
    story.end(None)
    assert [one.fate for one in outcomes(story.trace).values()] == ["cut", "unused"]


def test_a_revision_starts_anew_below_the_attempt_that_it_revises():
    story = Story("revision")
    story.ask(())
    story.sample((0,), "x" + ANSWER % 1, 0.2, finish="eos")
    story.reply((0,))
    story.ask((0,), attempts=(((0,),),))
    story.sample((0, 0), "y" + ANSWER % 2, 0.9, finish="eos")
    story.reply((0, 0))
    tree = story.end("2", p0=("1", 0.2), p0_0=("2", 0.9))
    revision = tree.outcomes[0, 0]
    assert (revision.revises, revision.text) == (True, "y" + ANSWER % 2)
    assert not tree.outcomes[0,].revises
    assert at(tree, 0).fate == "candidate"
    assert at(tree, 0).children == [at(tree, 0, 0)]
    assert [dot.revises for dot in picture(tree).dots] == [False, True]


@pytest.mark.parametrize(("lookahead", "expected"), [(1, {(0, 0)}), (0, set())])
def test_roll_outs_are_told_from_steps(lookahead, expected):
    story = Story(lookahead=lookahead)
    story.ask((), ())
    story.sample((0,), "a\n\n", 0.5)
    story.sample((1,), "b\n\n", 0.4)
    story.reply((0,), (1,))
    story.ask((0,), temperature=0.0)
    story.sample((0, 0), "c\n\n", 0.5, 0.4)
    story.reply((0, 0))
    tree = story.end(None)
    assert {path for path, one in tree.outcomes.items() if one.lookahead} == expected
    assert [one.lookahead for one in rounds(tree.outcomes)] == ([1] if lookahead else [0, 0])


# ---- the tree -------------------------------------------------------------------------------------------------


def test_equal_siblings_are_one_node_and_merged_ones_have_no_vote():
    tree = beams()
    assert [node.path for node in tree.nodes] == [(3,), (3, 0), (0,), (0, 0), (0, 2), (2,)]
    assert [one.path for one in at(tree, 0).merged] == [(1,)]
    assert [one.path for one in at(tree, 0, 0).merged] == [(0, 1)]
    assert len(at(tree, 0, 0).samples) == 1


def test_equal_independent_samples_are_one_node_with_all_their_votes():
    story = Story("majority")
    story.ask((), (), ())
    for index, answer in enumerate("112"):
        story.sample((index,), ANSWER % answer, finish="eos")
    story.reply((0,), (1,), (2,))
    tree = story.end("1", p0=("1", None), p1=("1", None), p2=("2", None))
    assert [(len(node.samples), node.merged, node.wins) for node in tree.roots] == [(2, (), True), (1, (), False)]


def test_equal_solutions_of_different_searches_stay_apart():
    story = Story("dvts")
    for search in (0, 1):
        story.sample((search,), ANSWER % 1, 0.5, finish="eos")
        story.record(ExpandedEvent, branch=(0, search), number=0, children=((search,),))
    assert len(story.end("1", p0=("1", 0.5), p1=("1", 0.5)).roots) == 2


def test_a_branch_costs_what_all_its_samples_took():
    tree = beams()
    assert (at(tree, 0).tokens, at(tree, 0).branch_tokens, at(tree, 0).branch_samples) == (10, 10 + 9, 5)
    assert sum(node.branch_tokens for node in tree.roots) == 4 * 5 + 4 * 3


def test_winning_paths_and_the_best_of_them():
    tree = beams()
    assert [node.path for node in tree.nodes if node.wins] == [(3,), (3, 0), (0,), (0, 0)]
    assert [node.path for node in tree.nodes if node.best] == [(3,), (3, 0)]
    assert [node.path for node in tree.nodes if not node.fruitful] == [(2,)]
    assert at(tree, 0).answers == ("1", "2")


def test_without_an_answer_nothing_wins():
    story = Story()
    story.sample((0,), "x", finish="budget")
    tree = story.end(None, p0=(None, None))
    assert [(node.wins, node.best, node.fruitful) for node in tree.nodes] == [(False, False, True)]


def test_evidence_from_elsewhere_does_not_break_the_tree():
    story = Story()
    story.ask((4,))
    story.sample((4, 0), ANSWER % 1, 0.5, finish="eos")
    story.reply((4, 0))
    assert [node.path for node in story.end("1", p4_0=("1", 0.5)).roots] == [(4, 0)]


def test_a_run_that_was_broken_off_has_a_tree():
    story = Story()
    story.ask(())
    story.sample((0,), "a\n\n", 0.5)
    tree = search_tree(story.trace)
    assert (tree.done, tree.vote, at(tree, 0).fate) == (None, None, "cut")


def test_a_trace_without_a_run_is_refused():
    with pytest.raises(ConfigError, match="holds no run"):
        search_tree(Trace())


def test_trees_as_deep_as_they_like():
    story = Story()
    depth = 1200
    for length in range(1, depth):
        story.ask((0,) * (length - 1))
        story.sample((0,) * length, "x\n\n")
    tree = story.end(None)
    assert len(tree.nodes) == len(rows(tree)) == len(picture(tree).dots) == depth - 1
    assert tree.roots[0].branch_tokens == 5 * (depth - 1)


@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("weighted_best_of_n", {"n": 16}),
        ("majority", {"n": 16, "slice_size": 4}),
        ("beam_search", {"n": 16, "beam_width": 4}),
        ("beam_search", {"n": 8, "beam_width": 2, "lookahead": 1}),
        ("beam_search", {"n": 16, "beam_width": 4, "budget_tokens": 90}),
        ("dvts", {"n": 16, "beam_width": 4}),
        ("dvts", {"n": 16, "beam_width": 4, "budget_tokens": 90}),
        ("revision", {"n": 9, "sequential": 3}),
        (None, {"budget_tokens": 300}),
    ],
)
@pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.RevisionWarning")
def test_every_sample_token_and_candidate_is_in_the_tree_once(strategy, options):
    solution = solved(strategy=strategy, **options)
    tree = search_tree(solution.trace)
    paths = [one.path for node in tree.nodes for one in (*node.samples, *node.merged)]
    assert sorted(paths) == sorted(event.path for event in solution.trace.of(SampledEvent))
    assert sum(node.branch_tokens for node in tree.roots) == solution.usage.completion_tokens
    assert sum(node.branch_samples for node in tree.roots) == len(paths)
    voters = [one for node in tree.nodes for one in node.samples if one.fate == "candidate"]
    assert sorted(one.path for one in voters) == sorted(one.prefix.path for one in solution.candidates)
    by_path = {one.prefix.path: one for one in solution.candidates}
    for one in voters:
        assert one.text == by_path[one.path].prefix.text
    assert sum(one.best and one.fate == "candidate" for one in tree.nodes) >= (solution.answer is not None)
    assert sum(one.sampled + one.lookahead for one in rounds(tree.outcomes)) == len(paths)
    for one in rounds(tree.outcomes):
        parts = one.kept + one.pruned + one.merged + one.cut + one.unused + one.finished
        assert parts == one.sampled


def test_trees_of_a_fork_are_counted():
    assert trees(solved(strategy="dvts", n=16, beam_width=4).trace) == 4
    assert trees(solved(strategy="majority", n=2).trace) == 0


def test_trees_that_began_in_two_turns_are_counted_once():
    story = Story("dvts")
    for searches in ((0,), (1, 2)):
        story.record(ForkEvent, branch=(), number=0, searches=searches, limits=(None,) * len(searches))
    story.record(ForkEvent, branch=(), number=1, searches=(0, 1), limits=(None, None))
    assert trees(story.trace) == 3


# ---- the outline ----------------------------------------------------------------------------------------------


def shape(lines):
    return [(row.level, row.entry.kind if isinstance(row.entry, Fold) else row.entry.path, row.closes) for row in lines]


def test_rows_tell_where_levels_end():
    assert shape(rows(beams())) == [
        (1, (3,), 0),
        (2, (3, 0), 2),
        (1, (0,), 0),
        (2, (0, 0), 1),
        (2, (0, 2), 2),
        (1, (2,), 1),
    ]


def test_what_led_nowhere_is_folded_where_something_did_not():
    story = Story()
    story.ask((), (), ())
    for index, text in enumerate(["a\n\n", "b\n\n", "c\n\n"]):
        story.sample((index,), text, 0.5)
    story.reply((0,), (1,), (2,))
    story.prune((1,))
    story.prune((2,))
    story.ask((0,))
    story.sample((0, 0), ANSWER % 1, 0.5, 0.5, finish="eos")
    story.reply((0, 0))
    tree = story.end("1", p0_0=("1", 0.5))
    assert shape(rows(tree)) == [(1, (0,), 0), (2, (0, 0), 2), (1, "lost", 0), (2, (1,), 1), (2, (2,), 2)]
    fold = rows(tree)[2].entry
    assert (fold.samples, fold.tokens, fold.wins, fold.votes) == (2, 10, False, 0)


def test_where_all_is_lost_nothing_is_folded():
    story = Story()
    for index in range(3):
        story.sample((index,), f"{index}", finish="budget")
    assert not any(isinstance(row.entry, Fold) for row in rows(story.end(None)))


def test_many_solutions_are_folded_by_answer_in_the_order_of_the_vote():
    story = Story("majority")
    held = {}
    for index in range(30):
        story.sample((index,), f"{index}" + ANSWER % (index % 11), 0.5, finish="eos")
        held[f"p{index}"] = (f"{index % 11}", 0.5)
    tree = story.end("0", **held)
    top = [row.entry for row in rows(tree) if row.level == 1]
    assert [(fold.kind, fold.answer) for fold in top] == [("answer", str(n)) for n in range(8)] + [("answers", None)]
    assert [fold.votes for fold in top] == [3] * 8 + [6]
    assert [fold.best for fold in top] == [True] + [False] * 8
    assert sum(isinstance(row.entry, Node) for row in rows(tree)) == len(tree.nodes) == 30


def test_first_steps_are_under_their_tree():
    tree = search_tree(solved(strategy="dvts", n=16, beam_width=4).trace)
    top = [row.entry for row in rows(tree) if row.level == 1]
    assert [fold.kind for fold in top] == ["tree"] * 4
    for fold in top:
        assert len({node.head.branch for node in fold.nodes}) == 1
    assert {id(row.entry) for row in rows(tree) if isinstance(row.entry, Node)} == {id(node) for node in tree.nodes}


def test_samples_outside_the_forked_searches_stand_beside_their_trees():
    story = Story("adaptive")
    story.sample((0,), ANSWER % 1, 0.5, finish="eos")
    story.reply((0,))
    for number, branch in enumerate([(1, 0), (1, 1), (3, 0), (3, 1)]):
        paths = ((2 * number + 1,), (2 * number + 2,))
        for path in paths:
            story.sample(path, f"{path}\n\n", 0.4)
        story.record(ExpandedEvent, branch=branch, number=0, children=paths)
    tree = story.end("1", p0=("1", 0.5))
    top = [row.entry for row in rows(tree) if row.level == 1]
    assert top[0].path == (0,)
    assert [title(entry) for entry in top[1:]] == [f"tree {number}: 2 samples" for number in (1, 2, 3, 4)]
    assert "tree 4: 2 samples" in render(tree)


# ---- the picture ----------------------------------------------------------------------------------------------


def test_the_picture_is_inside_its_frame_and_the_winning_path_is_straight():
    tree = search_tree(solved(strategy="beam_search", n=16, beam_width=4).trace)
    drawn = picture(tree)
    assert len(drawn.dots) == sum(len(node.steps) for node in tree.nodes)
    for dot in drawn.dots:
        assert dot.x - dot.radius > 0
        assert dot.x + dot.radius < drawn.width
        assert dot.y - dot.radius > 0
        assert dot.y + dot.radius < drawn.height
    places = [(dot.x, dot.y) for dot in drawn.dots]
    assert len(set(places)) == len(places)
    assert len({dot.y for dot in drawn.dots if dot.owner.best}) == 1
    assert drawn.dots[-1].owner.best
