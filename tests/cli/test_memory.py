"""What work over many problems keeps of those that are done: nothing but lines and names, with the collector off."""

import gc
import json
from collections import Counter
from contextlib import contextmanager

import pytest

from adaptive_ttc.calibration.collect.__main__ import main as collect
from adaptive_ttc.calibration.collect.collector import Tally
from adaptive_ttc.cli import main
from adaptive_ttc.cli.batch import Batch
from adaptive_ttc.driver.growing_sample import Sample
from adaptive_ttc.export.file import ExportFile
from adaptive_ttc.policies.fake import FakePolicy, toy_answer, toy_right_so_far
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.run.run import ProblemRun
from adaptive_ttc.solution import Solution
from adaptive_ttc.solver import Solver
from adaptive_ttc.tracing.trace import Trace
from adaptive_ttc.types import Candidate, Prefix

QUESTIONS = [f"Add {11 * i % 37} + {i + 3} + {5 * i % 23} + {i}." for i in range(48)]
SAMPLES, PLACES, EVERY = 3, 2, 12

KEPT = (ProblemRun, Solution, Trace, Candidate, Prefix, Sample)
"""What a problem is made of while it is solved."""

pytestmark = pytest.mark.filterwarnings("ignore::adaptive_ttc.errors.CalibrationWarning")


class ForgetfulPolicy(FakePolicy):
    async def sample(self, request):
        self.requests.clear()
        return await super().sample(request)


class ForgetfulPRM(FakePRM):
    async def score(self, request):
        self.requests.clear()
        return await super().score(request)


def solver(*_, **__):
    return Solver(ForgetfulPolicy.generative(error_rate=0.12), ForgetfulPRM.truthful(toy_right_so_far), seed=1)


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setattr(Solver, "load", solver)
    path = tmp_path / "sums.jsonl"
    rows = [{"id": f"sum {i}", "problem": one, "answer": toy_answer(one)} for i, one in enumerate(QUESTIONS)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def alive():
    return Counter(type(one).__name__ for one in gc.get_objects() if issubclass(type(one), KEPT))


class Looks:
    """What is alive after every so many problems, beside what was before."""

    def __init__(self):
        gc.collect()
        self.done, self.before, self.found = 0, alive(), []

    def __call__(self):
        self.done += 1
        if self.done % EVERY == 0:
            self.found.append(alive() - self.before)

    def after(self, monkeypatch, owner, name):
        """Look whenever this method has been called."""
        method = getattr(owner, name)

        def called(*arguments, **options):
            result = method(*arguments, **options)
            self()
            return result

        monkeypatch.setattr(owner, name, called)


@contextmanager
def no_collector():
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "words",
    [
        f"export --format rollouts --n {SAMPLES}",
        "export --format rollouts --budget-tokens 150",
        f"eval --n {SAMPLES}",
        "eval --budget-tokens 150",
    ],
)
def test_commands_keep_what_is_at_work(words, data, tmp_path, monkeypatch, capsys):
    looks = Looks()
    looks.after(monkeypatch, ExportFile, "add")
    looks.after(monkeypatch, Batch, "add")
    with no_collector():
        assert (
            main([*words.split(), "--dataset", data, "--concurrency", "2", "--out", str(tmp_path / "out.jsonl")]) == 0
        )
    assert looks.done == len(QUESTIONS)
    assert all(found["Trace"] for found in looks.found)
    for found in looks.found:
        assert max(found.values()) <= 2 * PLACES * SAMPLES, found


@pytest.mark.parametrize("command", ["export --format rollouts", "eval"])
def test_of_one_budget_for_all_what_has_not_settled_is_kept(command, data, tmp_path, monkeypatch, capsys):
    looks = Looks()
    looks.after(monkeypatch, ExportFile, "add")
    looks.after(monkeypatch, Batch, "add")
    words = [*command.split(), "--shared-budget", "6000", "--concurrency", "2", "--out", str(tmp_path / "out.jsonl")]
    with no_collector():
        assert main([*words, "--dataset", data]) == 0
    assert looks.done == len(QUESTIONS)
    for number, found in enumerate(looks.found, start=1):
        assert found["Trace"] <= len(QUESTIONS) - number * EVERY + 2 * PLACES, found


def test_a_collection_keeps_what_is_at_work(data, tmp_path, monkeypatch, capsys):
    looks = Looks()
    add = Tally.add

    def added(tally, advance):
        add(tally, advance)
        if advance.problem is not None:
            looks()

    monkeypatch.setattr(Tally, "add", added)
    words = ["--arms", f"majority:{SAMPLES}", "beam_search:4x2", "--concurrency", "2"]
    with no_collector():
        assert collect([*words, "--dataset", data, "--store", str(tmp_path / "units.sqlite")]) == 0
    assert looks.done == len(QUESTIONS)
    for found in looks.found:
        assert max(found.values()) <= 2 * PLACES * 16, found


async def test_a_stream_of_problems_is_forgotten_as_it_settles():
    looks = Looks()

    async def source():
        for question in QUESTIONS:
            yield question

    with no_collector():
        async with solver() as one:
            async for solution in one.solve_many(source(), budget_tokens=9000, max_concurrency=PLACES):
                del solution
                looks()
    assert looks.done == len(QUESTIONS)
    for found in looks.found:
        assert max(found.values()) <= 2 * PLACES * 16, found
