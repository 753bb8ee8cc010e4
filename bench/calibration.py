"""How good a calibration is on problems that it has not seen, and how long it takes to fit from a full store.

    python bench/calibration.py [--json FILE] [--store FILE] [--limit K] [--seed S] [--folds K] [...]

What the store lacks is drawn first; ``--help`` lists the options of drawing, which are those of
``python -m calibration.fit``. ``--seed`` is of folds, replays and estimators. All figures but the times are
cross-fitted: what decides on a problem was fitted without it.

Figures; a stage is one of ``prompt``, ``first_steps_2``, ``first_steps_4``, ``greedy``, ``finished_4``, ``finished_8``:

``log_loss.<stage>``, ``brier.<stage>``, ``ece.<stage>``, ``spearman.<stage>``, ``spearman_ceiling.<stage>``
    of the posterior over five bins of difficulty; the first in nats, with its least possible value beside it
    (``log_loss_floor.<stage>``) and that of one who knows nothing but the shares (``log_loss_of_shares.<stage>``).
``fit_seconds``, ``fit_cpu_seconds``
    from a full store to a calibration in memory, reading included: by the clock, and of this process's CPU time.
``optimism_gap``
    accuracy that the table promises of its choices less what these reach on unseen problems.
``oracle_gain_kept``, ``kept_at_best``
    (predicted - best fixed arm) / (oracle - best fixed arm) with difficulty predicted from four first steps, at equal
    mean cost: over the budgets at which the oracle gains at least 5 points, and at the one where it gains most;
    ``null`` where there is none. ``oracle_gain`` is the most that it gains.
``outlook_less_table``, ``outlook_less_table_low``, ``outlook_less_table_high``
    accuracy of adaptive runs by the learned outlook less that by the table's forecasts, with its 95 % interval.
``vote_optimism``
    how much better the chosen vote looks where it was chosen.
``problems``, ``samples``
    of the fit, and samples a problem.
"""

from pathlib import Path

# The folder of the benches comes first on their path: whoever imports the package of this name finds it through here.
__path__ = [str(Path(__file__).resolve().parent.parent / "calibration")]

if __name__ == "__main__":
    from calibration_quality import main

    main(__doc__)
