"""Runs of a toy pair whose traces are explained and drawn."""

from adaptive_ttc.prm.fake import FakePRM
from adaptive_ttc.solver import Solver
from tests.doubles import TinyPolicy

STEERING = "a\x1b[2J\x1b]0;owned\x07b\u202ec\x9bd"

RUNS = [
    {"strategy": "weighted_best_of_n", "n": 24},
    {"strategy": "beam_search", "n": 16, "beam_width": 4},
    {"strategy": "beam_search", "n": 8, "beam_width": 2, "lookahead": 1},
    {"strategy": "beam_search", "n": 16, "beam_width": 4, "budget_tokens": 60},
    {"strategy": "dvts", "n": 16, "beam_width": 4},
    {"strategy": "revision", "n": 9, "sequential": 3},
    {"strategy": "majority", "n": 4, "budget_tokens": 2, "policy": TinyPolicy(mean=1000)},
]


def scored(question, steps):
    return (len(steps[-1]) * 37 % 10) / 10


def save_run(path, policy=None, prm=True, problem="how much?", **arguments):
    """Write the trace of a run to a file; the solution."""
    with Solver(policy or TinyPolicy(mean=12, step=4), FakePRM(scored) if prm else None) as solver:
        solution = solver.solve_sync(problem, **arguments)
    solution.trace.save(path)
    return solution
