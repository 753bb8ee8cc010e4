"""How far one solver process reaches: the real solver on a virtual clock, over simulated replicas of an engine.

    python bench/simulate.py --json FILE [--replicas 1,10,100,1000] [--limit PROBLEMS] [--profile cpu|h200] [--prm 1]
    python bench/simulate.py --json FILE --replicas 10 --stream 100000

``Solver.solve_many`` runs as it is: allocator, scheduler, driver, ledger, grader. Only the engines are simulated
(``simulation/``): replicas that batch continuously, a decoding step taking ``base + row * b`` seconds for b samples, on
an event loop whose clock jumps to the next timer. Problems come from an asynchronous source, as many being open as all
replicas have slots, times ``--open``; their pass rates and wrong answers are drawn from the shipped prior over real
models; one budget of ``--samples`` mean solutions a problem is for all of them. No calibration: agreement decides.

The step times of ``cpu`` are measured first, with the embedded pair on one thread of this machine; those of ``h200``
are derived from two figures of one card (``simulation/profiles.py``). Replicas that answer over a network cost the
solver's process more than is counted here: the client's work is not simulated.

The virtual clock does not see what the solver computes. So its processor time is measured (``process_time``, what the
simulation itself takes left out), and every number of replicas is run twice: once as if the solver took no time, as
with any number of solver processes, and once with one process that spends, one sample after the other, what was
measured on each.

Figures, ``<figure>.<replicas>`` as if the solver took no time, and ``one_process.<figure>.<replicas>``:

- ``problems_per_s``, ``tokens_per_s``; ``middle_tokens_per_s``, while the tokens from a tenth to seven tenths of all
  are generated (the last problems, which come in turn, leave replicas idle); ``utilisation`` (share of the time in
  which a replica has at least one sample), ``slots_used`` (mean share of all slots); ``p50_s`` and ``p99_s`` of a
  problem's time, from its arrival to its solution; ``simulated_s`` in all: seconds of the virtual clock;
- ``solver_us_per_sample``: microseconds of real processor time; ``solver_cores``: of all of it to the simulated time,
  which is how many solver processes these replicas need;
- ``samples`` (steps, where a search drew them), ``requests`` (with those that renew a lease), ``accuracy``,
  ``spent_share`` of the budget, ``failed`` problems; ``overspent``: tokens above the budget, or that engines generated
  and the ledger does not know;
- ``prm_utilisation``, ``scores`` with ``--prm 1``.

Of all: ``base_ms``, ``row_us``, ``prefill_us``, ``front_us``, ``slots``, ``score_base_ms``, ``score_token_us`` of the
profile, ``replica_tokens_per_s`` (the most that one can do), ``one_process_us`` (what a sample costs one process in the
second runs), ``problems``. With ``--stream N`` there is one run of so many problems, as if the solver took no time,
whose figures end in ``.stream``, with ``memory_mb`` of the process after every tenth of the problems, and
``bytes_per_problem``, its growth from the first tenth on (caches of a limited size that fill are a part of it).
"""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

from measuring import Figure, run_measurement
from simulation.engines import Profile
from simulation.population import Population
from simulation.profiles import H200, embedded
from simulation.run import Load, Seen, in_a_thread, simulated

from adaptive_ttc.errors import CalibrationWarning, ConfigError

_CALIBRATING = 400  # problems of the run that tells what a sample costs the solver


def runs(load: Load, replicas: list[int]) -> dict[str, Figure]:
    """The figures of both runs of every number of replicas."""
    small = replace(load, problems=min(load.problems, _CALIBRATING), replicas=1)
    simulated(small)  # the first run loads and warms up what all others use
    cost = per_sample(simulated(small))
    figures: dict[str, Figure] = {"one_process_us": 1e6 * cost}
    for number in replicas:
        for name, solver in (("", 0.0), ("one_process.", cost)):
            one = replace(load, replicas=number, solver=solver)
            seen = simulated(one)
            figures |= {f"{name}{key}.{number}": value for key, value in seen.figures(one).items()}
    return figures


def streamed(load: Load) -> dict[str, Figure]:
    """The figures of one run, with its memory."""
    seen = simulated(load, watch=True)
    between = load.problems * (len(seen.memory) - 1) / len(seen.memory)
    figures: dict[str, Figure] = {**seen.figures(load)}
    figures["bytes_per_problem"] = (seen.memory[-1] - seen.memory[0]) / between
    figures["memory_mb"] = [one / 2**20 for one in seen.memory]
    return {f"{key}.stream": value for key, value in figures.items()}


def per_sample(seen: Seen) -> float:
    """Seconds of processor time that a sample costs the solver."""
    return seen.processor / seen.samples


def of_profile(profile: Profile, tokens: float) -> dict[str, float]:
    """The figures of a profile, for solutions of so many tokens."""
    front = tokens / profile.front if profile.front else math.inf
    return {
        "base_ms": 1e3 * profile.base,
        "row_us": 1e6 * profile.row,
        "prefill_us": 1e6 * profile.prefill,
        "front_us": 1e6 * profile.front,
        "slots": profile.slots,
        "score_base_ms": 1e3 * profile.score_base,
        "score_token_us": 1e6 * profile.score_token,
        "replica_tokens_per_s": min(profile.tokens_per_s(), front),
    }


async def measure(
    *,
    replicas: str,
    limit: int,
    profile: str,
    samples: float,
    tokens: float,
    open: float,
    prm: int,
    stream: int,
    seed: int,
) -> dict[str, Figure]:
    """All figures."""
    if profile not in ("cpu", "h200"):
        raise ConfigError(f"profile={profile!r} is neither cpu nor h200")
    numbers = [int(one) for one in replicas.split(",")]
    engine = H200 if profile == "h200" else await embedded()
    load = Load(
        population=Population(tokens=tokens, seed=seed),
        profile=engine,
        problems=stream or limit,
        samples=samples,
        replicas=numbers[0],
        open_share=open,
        prm=bool(prm),
        seed=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CalibrationWarning)  # that there is none
        found = await in_a_thread(lambda: streamed(load) if stream else runs(load, numbers))
    return {**of_profile(engine, tokens), **found, "problems": load.problems}


if __name__ == "__main__":
    run_measurement(
        "simulate",
        __doc__,
        measure,
        replicas=("1,10,100,1000", "numbers of replicas (%(default)s)"),
        limit=(2000, "problems (%(default)s)"),
        profile=("cpu", "step times: cpu (measured now) or h200 (%(default)s)"),
        samples=(4.0, "mean solutions of a problem that the budget pays for (%(default)s)"),
        tokens=(55.0, "mean of a solution (%(default)s)"),
        open=(2.0, "problems open at once, to the slots of all replicas (%(default)s)"),
        prm=(0, "1: a PRM as well, with searches (%(default)s)"),
        stream=(0, "problems of one long run, in place of the others"),
        seed=(0, "of problems and samples (%(default)s)"),
    )
