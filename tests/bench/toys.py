"""What the tests of bench/ share: its modules, toy problems, a toy pair in place of the embedded one."""

import importlib
from pathlib import Path

from adaptive_ttc.policies.fake import FakePolicy, toy_answer, toy_right_so_far
from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.solver import Solver

BENCH = Path(__file__).parents[2] / "bench"


def rows(number=9):
    """Sums of two to five numbers."""
    questions = [f"Add {' + '.join(str(7 * i % 50 + 3 * k) for k in range(2 + i % 4))}." for i in range(number)]
    return [{"problem": one, "answer": toy_answer(one), "unique_id": str(i)} for i, one in enumerate(questions)]


def toys(*, seed=0):
    """A pair whose samples run side by side: one token a turn."""
    policy = FakePolicy.generative(error_rate=0.1, turn_tokens=1)
    return Solver(policy, FakePRM.truthful(toy_right_so_far), seed=seed)


def load(monkeypatch, name):
    """A module of bench/, found as a command finds it: through the folder itself."""
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module(name)


def bench(monkeypatch, name):
    """A measurement on the toy problems and the toy pair."""
    module = load(monkeypatch, name)
    monkeypatch.setattr(Solver, "mini", toys)
    monkeypatch.setattr(module, "load_problems", lambda dataset, limit=None, seed=None: rows()[:limit])
    return module
