"""``train-prm``: makes a verifier of any causal LM from its own graded samples."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from adaptive_ttc.answers.spaces.registry import parse_space
from adaptive_ttc.cli.train_options import add_training_options, train, training_options, training_parser
from adaptive_ttc.training.settings import BALANCES, KINDS, LEARN, TEMPLATES, TrainSettings

if TYPE_CHECKING:
    from adaptive_ttc.training.result import Trained

EXAMPLE = """\
  adaptive-ttc train-prm --policy my-policy --data labels.jsonl --out my-prm
  adaptive-ttc train-prm --policy my-policy --data rollouts.jsonl --out my-prm --kind implicit
"""

_DEFAULTS = TrainSettings()


def add(subparsers: Any) -> None:
    """Add the command's parser."""
    parser = training_parser(
        subparsers,
        "train-prm",
        help="make a verifier of a policy from its graded samples",
        description="Train a verifier on graded samples",
        example=EXAMPLE,
        data="`export --format prm` or `rollouts`",
        out="verifier",
    )
    option = parser.add_argument
    option("--kind", choices=KINDS, default=_DEFAULTS.kind, help="what is made (default: %(default)s)")
    option("--reference", metavar="FOLDER", help="what --kind implicit compares with (default: the policy as it is)")
    option(
        "--beta", type=float, default=_DEFAULTS.beta, metavar="B", help="factor of the log-ratio (default: %(default)s)"
    )
    option("--balance", choices=BALANCES, default=_DEFAULTS.balance, help="what right and wrong labels weigh alike in")
    option("--learn", choices=LEARN, help="labels of all steps (default of process), or the last's alone")
    option("--template", choices=TEMPLATES, default=_DEFAULTS.template, help="the chat template (default: %(default)s)")
    option("--answers", default="math", metavar="SPACE", help="what answers are, for votes (default: %(default)s)")
    add_training_options(parser, _DEFAULTS)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Train, and print one line; after a signal the checkpoint is written first."""
    own = {name: getattr(options, name) for name in ("kind", "beta", "balance", "learn", "template")}
    settings = TrainSettings(**training_options(options), **own)
    space = parse_space(options.answers)
    from adaptive_ttc.training.verifier import train_verifier

    def begin(stop: Callable[[], bool]) -> Trained:
        data, out, reference = options.data, options.out, options.reference
        return train_verifier(options.policy, data, out, settings, space, reference=reference, stop=stop)

    return train(options, begin)
